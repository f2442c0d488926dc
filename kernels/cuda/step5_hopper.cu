// Step 5: Hopper. One thread of a producer warpgroup does nothing but start bulk tensor copies (TMA); two or three
// consumer warpgroups of 64 rows each do the matrix products (wgmma, straight from shared memory) and the softmax.
//
// Two overlaps keep the tensor cores fed. Inside a warpgroup: the next S = QK^T and the PV of before are started
// together, and the softmax of that S runs while PV is still at work. Between warpgroups (ping-pong): named barriers
// make them take turns at starting products, so that the softmax of one falls on the products of the other.
// A block takes tile after tile from a counter, longest first under a causal mask (Shah et al., arXiv 2407.08608).
#include <algorithm>
#include <type_traits>

#include "hopper.cuh"

namespace {

template <typename T_, int DIM_, bool CAUSAL_, int KEYS_, int GROUPS_, int STAGES_>
struct Shape {
    using T = T_;
    static constexpr int DIM = DIM_, KEYS = KEYS_, GROUPS = GROUPS_, STAGES = STAGES_;
    static constexpr bool CAUSAL = CAUSAL_;
    static constexpr int ROWS = GROUPS * 64, THREADS = (GROUPS + 1) * 128;
    static constexpr int PRODUCER_REGISTERS = GROUPS == 2 ? 24 : 32, CONSUMER_REGISTERS = GROUPS == 2 ? 240 : 160;
    // Shared memory, in bytes from its start.
    static constexpr int Q_BYTES = ROWS * DIM * 2, KV_BYTES = KEYS * DIM * 2, OUT_BYTES = 16 * 128;  // OUT: a warp's
    static constexpr int K = Q_BYTES, V = K + STAGES * KV_BYTES, OUT = V + STAGES * KV_BYTES;
    static constexpr int BARRIERS = OUT + GROUPS * 4 * OUT_BYTES, TILE = BARRIERS + (2 + 4 * STAGES) * 8;
    static constexpr int BYTES = TILE + 16;
};

struct Maps {
    CUtensorMap q, k, v;
};

// Where the barriers lie: full is ended by the copy's bytes, empty by the consumers' warps.
template <class S>
struct Barriers {
    uint32_t base;
    __device__ uint32_t q_full() const { return base; }
    __device__ uint32_t q_empty() const { return base + 8; }
    __device__ uint32_t k_full(int stage) const { return base + 16 + stage * 8; }
    __device__ uint32_t v_full(int stage) const { return base + 16 + (S::STAGES + stage) * 8; }
    __device__ uint32_t k_empty(int stage) const { return base + 16 + (2 * S::STAGES + stage) * 8; }
    __device__ uint32_t v_empty(int stage) const { return base + 16 + (3 * S::STAGES + stage) * 8; }
};

// Counts through the stages of a ring; the parity tells one round from the next.
template <int STAGES>
struct Ring {
    int stage = 0, parity = 0;
    __device__ void step() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

// The rows of one head that a block works on. Tiles go by sections of heads whose K and V fit the L2 cache together,
// and inside a section from the last rows (the longest, under a causal mask) to the first.
template <class S>
struct Tile {
    int b, h, kv_head, row0, blocks, full;  // blocks of keys in all; of these seen whole by every row
    Sequence s;
    __device__ Tile(const AttentionArgs &a, int index, int section) {
        int levels = (a.seq_q + S::ROWS - 1) / S::ROWS, first = index / (levels * section) * section;
        int width = min(section, a.batch * a.heads - first), inside = index - first * levels;
        int bh = first + inside % width;
        b = bh / a.heads;
        h = bh % a.heads;
        kv_head = h / (a.heads / a.kv_heads);
        row0 = (levels - 1 - inside / width) * S::ROWS;
        s = sequence_of(a, b);
        int keys = s.last_key(min(row0 + S::ROWS, s.nq) - 1, S::CAUSAL) + 1;
        blocks = max(0, (keys + S::KEYS - 1) / S::KEYS);
        full = max(0, s.last_key(row0, S::CAUSAL) + 1) / S::KEYS;
    }
};

template <class S>
__device__ void produce(const AttentionArgs &a, const Maps &maps, int *counter, int tiles, int section,
                        uint32_t shared, volatile int *tile_slot) {
    Barriers<S> bar{shared + S::BARRIERS};
    Ring<S::STAGES> k_ring;
    int q_parity = 1;
    for (int index = blockIdx.x;; index = gridDim.x + atomicAdd(counter, 1)) {
        if (index >= tiles) break;
        Tile<S> t(a, index, section);
        if (t.row0 >= t.s.nq) continue;  // a sequence shorter than the longest
        bool packed = a.cu_q != nullptr;
        int batch = packed ? 0 : t.b, q_row = (packed ? t.s.q0 : 0) + t.row0, k_row = packed ? t.s.k0 : 0;
        auto load = [&](const CUtensorMap &map, uint32_t to, uint32_t full, uint32_t empty, int parity, int n) {
            barrier_wait(empty, parity ^ 1);
            barrier_expect(full, S::KV_BYTES);
            load_tile(to, map, full, k_row + n * S::KEYS, t.kv_head, batch);
        };
        barrier_wait(bar.q_empty(), q_parity);
        q_parity ^= 1;
        *tile_slot = index;
        barrier_expect(bar.q_full(), S::Q_BYTES);
        load_tile(shared, maps.q, bar.q_full(), q_row, t.h, batch);
        Ring<S::STAGES> v_ring = k_ring;
        for (int n = t.blocks - 1; n >= -1; --n) {  // a block's V goes after the next block's K, as they are used
            if (n >= 0) {
                int i = k_ring.stage;
                load(maps.k, shared + S::K + i * S::KV_BYTES, bar.k_full(i), bar.k_empty(i), k_ring.parity, n);
                k_ring.step();
            }
            if (n < t.blocks - 1) {
                int i = v_ring.stage;
                load(maps.v, shared + S::V + i * S::KV_BYTES, bar.v_full(i), bar.v_empty(i), v_ring.parity, n + 1);
                v_ring.step();
            }
        }
    }
    barrier_wait(bar.q_empty(), q_parity);
    *tile_slot = -1;
    barrier_arrive(bar.q_full());
}

// One tile of scores: moves m and l to the larger maximum, leaves exp(s - m) in s and what o must shrink by. Row i of
// this lane has its scores at s[4 n + 2 i + j]: columns 8 n + 2 (lane % 4) + j.
template <bool MASKED, int N>
__device__ inline void softmax(float (&s)[N], float (&m)[2], float (&l)[2], float (&shrink)[2], float scale,
                               const int (&last)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        float top[2] = {m[i], -INFINITY}, sum[2] = {};
#pragma unroll
        for (int n = 0; n < N / 4; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                float &x = s[4 * n + 2 * i + j];
                if (MASKED && 8 * n + j > last[i]) x = -INFINITY;
                top[j] = fmaxf(top[j], x);
            }
        float most = fmaxf(top[0], top[1]);
        most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
        most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
        float base = MASKED && most == -INFINITY ? 0 : most * scale;  // no key seen yet: keep -inf - -inf out
        shrink[i] = exp2_fast(m[i] * scale - base);
        m[i] = most;
#pragma unroll
        for (int n = 0; n < N / 4; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                float &x = s[4 * n + 2 * i + j];
                x = exp2_fast(x * scale - base);
                sum[j] += x;
            }
        l[i] = l[i] * shrink[i] + sum[0] + sum[1];
    }
}

template <class S>
__device__ void consume(const AttentionArgs &a, int section, uint32_t shared, volatile int *tile_slot, int group) {
    using T = typename S::T;
    constexpr int DIM = S::DIM, KEYS = S::KEYS;
    Barriers<S> bar{shared + S::BARRIERS};
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const float scale = a.scale * LOG2E;
    const uint64_t q_desc = descriptor(shared + group * 64 * 128, 16);
    const uint64_t k_desc = descriptor(shared + S::K, 16), v_desc = descriptor(shared + S::V, KEYS * 128);
    const uint32_t out = shared + S::OUT + (group * 4 + warp) * S::OUT_BYTES;

    auto release = [&](uint32_t empty) {
        if (lane == 0) barrier_arrive(empty);
    };
    if (group == S::GROUPS - 1) group_pass(1, 256);  // the first turn is group 0's

    Ring<S::STAGES> ring;
    for (int q_parity = 0;; q_parity ^= 1) {
        barrier_wait(bar.q_full(), q_parity);
        int index = *tile_slot;
        if (index < 0) break;
        Tile<S> t(a, index, section);

        float s[KEYS / 2], o[DIM / 2] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {}, shrink[2];
        uint32_t p[KEYS / 16][4];
        const int row = t.row0 + group * 64 + warp * 16 + lane / 4;

        auto start_scores = [&](int stage) {
            const uint64_t k = k_desc + stage * (S::KV_BYTES >> 4);
            wgmma_fence();
#pragma unroll
            for (int d = 0; d < DIM / 16; ++d)
                Wgmma<T>::shared(s, q_desc + d / 4 * (S::ROWS * 128 >> 4) + d % 4 * 2,
                                 k + d / 4 * (KEYS * 128 >> 4) + d % 4 * 2, d > 0);
            wgmma_commit();
        };
        auto start_values = [&](int stage) {
            const uint64_t v = v_desc + stage * (S::KV_BYTES >> 4);
            wgmma_fence();
#pragma unroll
            for (int n = 0; n < KEYS / 16; ++n) Wgmma<T>::registers(o, p[n], v + n * (2048 >> 4));
            wgmma_commit();
        };
        auto soften = [&](auto masked, int n) {
            int last[2];
            for (int i = 0; i < 2; ++i) last[i] = t.s.last_key(row + 8 * i, S::CAUSAL) - n * KEYS - lane % 4 * 2;
            softmax<decltype(masked)::value>(s, m, l, shrink, scale, last);
        };
        auto pack_p = [&] {
#pragma unroll
            for (int n = 0; n < KEYS / 16; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) p[n][i] = pack<T>(s[8 * n + 2 * i], s[8 * n + 2 * i + 1]);
        };
        auto step = [&](auto masked, int n) {  // S of block n, beside PV of the block before
            const int v_stage = ring.stage, v_parity = ring.parity;
            ring.step();
            barrier_wait(bar.k_full(ring.stage), ring.parity);
            group_wait(1 + group, 256);
            start_scores(ring.stage);
            barrier_wait(bar.v_full(v_stage), v_parity);
            start_values(v_stage);
            group_pass(1 + (group + 1) % S::GROUPS, 256);
            wgmma_wait<1>();
            hold(s);
            release(bar.k_empty(ring.stage));
            if (n == 0) release(bar.q_empty());
            soften(masked, n);
            wgmma_wait<0>();
            hold(o);
            release(bar.v_empty(v_stage));
            pack_p();
#pragma unroll
            for (int i = 0; i < DIM / 2; ++i) o[i] *= shrink[i / 2 % 2];
        };

        if (t.blocks == 0) {
            __syncwarp();  // every lane has read the slot
            release(bar.q_empty());
        } else {
            int n = t.blocks - 1;
            barrier_wait(bar.k_full(ring.stage), ring.parity);
            start_scores(ring.stage);
            wgmma_wait<0>();
            hold(s);
            release(bar.k_empty(ring.stage));
            if (n == 0) release(bar.q_empty());
            soften(std::true_type{}, n);
            pack_p();
            for (--n; n >= t.full; --n) step(std::true_type{}, n);
            for (; n >= 0; --n) step(std::false_type{}, n);
            barrier_wait(bar.v_full(ring.stage), ring.parity);
            start_values(ring.stage);
            wgmma_wait<0>();
            hold(o);
            release(bar.v_empty(ring.stage));
            ring.step();
        }

        float inverse[2];
        for (int i = 0; i < 2; ++i) {
            l[i] += __shfl_xor_sync(~0u, l[i], 1);
            l[i] += __shfl_xor_sync(~0u, l[i], 2);
            inverse[i] = l[i] > 0 ? 1 / l[i] : 0;
        }
        // 16 rows x 64 columns at a time through shared memory, so that a row leaves in whole 128-byte lines.
        T *to = static_cast<T *>(a.o) + offset_of(t.s.q0, a.heads, t.h, DIM);
#pragma unroll
        for (int slab = 0; slab < DIM / 64; ++slab) {
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                uint32_t r[4];
                for (int i = 0; i < 4; ++i)
                    r[i] = pack<T>(o[slab * 32 + n * 8 + 2 * i] * inverse[i % 2],
                                   o[slab * 32 + n * 8 + 2 * i + 1] * inverse[i % 2]);
                uint32_t at = out + lane % 16 * 128 + ((2 * n + lane / 16) ^ lane % 8) * 16;
                asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(r[0]),
                             "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
            }
            __syncwarp();
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                int r = i * 4 + lane / 8, c = lane % 8, at_row = row - lane / 4 + r;
                uint4 x;
                asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                             : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                             : "r"(out + r * 128 + (c ^ r % 8) * 16) : "memory");
                if (at_row < t.s.nq)
                    *reinterpret_cast<uint4 *>(to + static_cast<size_t>(at_row) * a.heads * DIM + slab * 64 + c * 8) = x;
            }
            __syncwarp();
        }
    }
}

template <class S>
__global__ void __launch_bounds__(S::THREADS, 1)
    hopper(AttentionArgs a, const __grid_constant__ Maps maps, int tiles, int section) {
    extern __shared__ __align__(1024) unsigned char shared_bytes[];
    uint32_t shared = shared_address(shared_bytes);
    volatile int *tile_slot = reinterpret_cast<int *>(shared_bytes + S::TILE);
    if (threadIdx.x == 0) {
        Barriers<S> bar{shared + S::BARRIERS};
        barrier_init(bar.q_full(), 1);
        barrier_init(bar.q_empty(), S::GROUPS * 4);
        for (int i = 0; i < S::STAGES; ++i) {
            barrier_init(bar.k_full(i), 1);
            barrier_init(bar.v_full(i), 1);
            barrier_init(bar.k_empty(i), S::GROUPS * 4);
            barrier_init(bar.v_empty(i), S::GROUPS * 4);
        }
        fence_barrier_init();
    }
    __syncthreads();
    int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
    if (group == 0) {
        give_registers<S::PRODUCER_REGISTERS>();
        if (threadIdx.x == 0) produce<S>(a, maps, static_cast<int *>(a.scratch), tiles, section, shared, tile_slot);
    } else {
        take_registers<S::CONSUMER_REGISTERS>();
        consume<S>(a, section, shared, tile_slot, group - 1);
    }
}

template <class S>
int run_shape(const AttentionArgs &a) {
    Maps maps;
    bool packed = a.cu_q != nullptr;
    int batch = packed ? 1 : a.batch, rows_q = packed ? a.total_q : a.seq_q, rows_k = packed ? a.total_k : a.seq_k;
    int e = make_map(&maps.q, a.q, a.is_bf16, S::DIM, rows_q, a.heads, batch, S::ROWS);
    if (!e) e = make_map(&maps.k, a.k, a.is_bf16, S::DIM, rows_k, a.kv_heads, batch, S::KEYS);
    if (!e) e = make_map(&maps.v, a.v, a.is_bf16, S::DIM, rows_k, a.kv_heads, batch, S::KEYS);
    int device, processors;
    if (!e) e = cudaGetDevice(&device);
    if (!e) e = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (!e) e = cudaMemsetAsync(a.scratch, 0, sizeof(int), static_cast<cudaStream_t>(a.stream));
    if (e) return e;
    int tiles = ceil_div(a.seq_q, S::ROWS) * a.batch * a.heads;
    double kv_bytes = 4.0 * a.seq_k * S::DIM * a.kv_heads / a.heads;  // of one query head
    int section = std::max(1, std::min(a.batch * a.heads, static_cast<int>(32e6 / kv_bytes)));
    return launch(hopper<S>, dim3(std::min(tiles, processors)), S::THREADS, S::BYTES, a.stream, a, maps, tiles,
                  section);
}

template <typename T, int DIM, bool CAUSAL>
struct Step5 {
    static int run(const AttentionArgs &a) {
        if constexpr (DIM == 64) return run_shape<Shape<T, DIM, CAUSAL, 128, 3, 2>>(a);
        else return run_shape<Shape<T, DIM, CAUSAL, CAUSAL ? 128 : 176, 2, 2>>(a);
    }
};

}  // namespace

extern "C" int attention_step5(const AttentionArgs *a) { return choose<Step5>(*a); }
