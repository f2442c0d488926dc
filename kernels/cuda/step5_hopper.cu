// Step 5: Hopper. One thread of a producer warpgroup does nothing but start bulk tensor copies (TMA); two or three
// consumer warpgroups of 64 rows each do the matrix products (wgmma, straight from shared memory) and the softmax.
//
// Two overlaps keep the tensor cores fed. Inside a warpgroup: the next S = QK^T and the PV of before are started
// together, and the softmax of that S runs while PV is still at work; the next S may be the next tile's first. Between
// warpgroups (ping-pong): named barriers make them take turns at starting products, so that the softmax of one falls on
// the products of the other. A block takes tile after tile, under a causal mask the longest first from a counter
// (Shah et al., arXiv 2407.08608).
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
    // Together no more than the block starts with, or taking waits for ever: 168 or 128 a thread.
    static constexpr int PRODUCER_REGISTERS = GROUPS == 2 ? 24 : 32, CONSUMER_REGISTERS = GROUPS == 2 ? 240 : 160;
    // Shared memory, in bytes from its start: two Q tiles, rings of K and V tiles, barriers, a slot for each Q tile.
    static constexpr int Q_BYTES = ROWS * DIM * 2, KV_BYTES = KEYS * DIM * 2;
    static constexpr int K = 2 * Q_BYTES, V = K + STAGES * KV_BYTES, BARRIERS = V + STAGES * KV_BYTES;
    static constexpr int SLOTS = BARRIERS + (4 + 4 * STAGES) * 8, BYTES = SLOTS + 2 * 16;
};

struct Maps {
    CUtensorMap q, k, v;
};

// Where the barriers lie: a full one is ended by the copy's bytes, an empty one by the consumers' warps.
template <class S>
struct Barriers {
    uint32_t base;
    __device__ uint32_t q_full(int stage) const { return base + stage * 8; }
    __device__ uint32_t q_empty(int stage) const { return base + (2 + stage) * 8; }
    __device__ uint32_t k_full(int stage) const { return base + (4 + stage) * 8; }
    __device__ uint32_t v_full(int stage) const { return base + (4 + S::STAGES + stage) * 8; }
    __device__ uint32_t k_empty(int stage) const { return base + (4 + 2 * S::STAGES + stage) * 8; }
    __device__ uint32_t v_empty(int stage) const { return base + (4 + 3 * S::STAGES + stage) * 8; }
};

// Counts through the stages of a ring; the parity tells one round from the next.
template <int STAGES>
struct Ring {
    int stage = 0, parity = 0;
    __device__ void step() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

// The rows of one head that a block works on, and the blocks of keys they see. Tiles are counted from the end of the
// sequence, so that the one that is cut short is the first: under a causal mask it has the fewest keys.
template <class S>
struct Tile {
    int level, b, h, row0;
    Sequence s;
    __device__ Tile(const AttentionArgs &a, int level, int b, int h)
        : level(level), b(b), h(h), s(sequence_of(a, b)) {
        row0 = s.nq - (level + 1) * S::ROWS;
    }
    // At least one: rows that see no key get a block that is masked as a whole, and come out as zeros.
    __device__ int blocks() const {
        return max(1, (s.last_key(row0 + S::ROWS - 1, S::CAUSAL) + S::KEYS) / S::KEYS);
    }
    __device__ int full() const { return max(0, s.last_key(max(row0, 0), S::CAUSAL) + 1) / S::KEYS; }  // by every row
};

// Tiles go by sections of heads whose K and V fit the L2 cache together, and inside a section from the last rows (the
// longest, under a causal mask) to the first. Without a mask a section is one head: its tiles run side by side.
template <class S>
__device__ Tile<S> tile_at(const AttentionArgs &a, int index, int section) {
    int levels = (a.seq_q + S::ROWS - 1) / S::ROWS, first = index / (levels * section) * section;
    int width = min(section, a.batch * a.heads - first), inside = index - first * levels;
    int bh = first + inside % width;
    return Tile<S>(a, inside / width, bh / a.heads, bh % a.heads);
}

template <class S>
__device__ void produce(const AttentionArgs &a, const Maps &maps, int tiles, int section, uint32_t shared,
                        volatile int *slots) {
    Barriers<S> bar{shared + S::BARRIERS};
    Ring<2> q_ring;
    Ring<S::STAGES> k_ring, v_ring;
    const int group = a.heads / a.kv_heads;
    int v_row = -1, v_head = 0, v_batch = 0;  // the V tile to come, one behind K, as they are used

    auto load = [&](const CUtensorMap &map, uint32_t to, uint32_t full, uint32_t empty, int parity, int bytes, int row,
                    int head, int batch) {
        barrier_wait(empty, parity ^ 1);
        barrier_expect(full, bytes);
        load_tile(to, map, full, row, head, batch);
    };
    auto load_v = [&] {
        if (v_row < 0) return;
        int i = v_ring.stage;
        load(maps.v, shared + S::V + i * S::KV_BYTES, bar.v_full(i), bar.v_empty(i), v_ring.parity, S::KV_BYTES, v_row,
             v_head, v_batch);
        v_ring.step();
    };

    for (int index = blockIdx.x, next; index < tiles; index = next) {
        next = S::CAUSAL ? gridDim.x + atomicAdd(static_cast<int *>(a.scratch), 1) : index + gridDim.x;
        Tile<S> t = tile_at<S>(a, index, section);
        if (t.row0 + S::ROWS <= 0) continue;  // a sequence shorter than the longest
        bool packed = a.cu_q != nullptr;
        int batch = packed ? 0 : t.b, q_row = (packed ? t.s.q0 : 0) + t.row0, k_row = packed ? t.s.k0 : 0;
        int i = q_ring.stage;
        barrier_wait(bar.q_empty(i), q_ring.parity ^ 1);
        slots[4 * i] = t.level, slots[4 * i + 1] = t.b, slots[4 * i + 2] = t.h;
        barrier_expect(bar.q_full(i), S::Q_BYTES);
        load_tile(shared + i * S::Q_BYTES, maps.q, bar.q_full(i), q_row, t.h, batch);
        q_ring.step();
        for (int n = t.blocks() - 1; n >= 0; --n) {
            i = k_ring.stage;
            load(maps.k, shared + S::K + i * S::KV_BYTES, bar.k_full(i), bar.k_empty(i), k_ring.parity, S::KV_BYTES,
                 k_row + n * S::KEYS, t.h / group, batch);
            k_ring.step();
            load_v();
            v_row = k_row + n * S::KEYS, v_head = t.h / group, v_batch = batch;
        }
    }
    load_v();
    barrier_wait(bar.q_empty(q_ring.stage), q_ring.parity ^ 1);
    slots[4 * q_ring.stage] = -1;  // no more
    barrier_arrive(bar.q_full(q_ring.stage));
}

// One tile of scores: leaves exp(s - m) in s and adds it up in l. Row i of this lane has its scores at
// s[4 n + 2 i + j]: columns 8 n + 2 (lane % 4) + j. m need not be the maximum, only near it: it moves when a row of the
// warp has grown past it by SLACK powers of two, which after the first tiles is seldom. Then the answer is true, and
// what was summed with the old m must be multiplied by `shrink`.
constexpr float SLACK = 8;

template <bool MASKED, int N>
__device__ inline bool softmax(float (&s)[N], float (&m)[2], float (&l)[2], float (&shrink)[2], float scale,
                               const int (&last)[2]) {
    float most[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
        for (int n = 0; n < N / 4; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                float &x = s[4 * n + 2 * i + j];
                if (MASKED && 8 * n + j > last[i]) x = -INFINITY;
                top[j] = fmaxf(top[j], x);
            }
        most[i] = fmaxf(top[0], top[1]);
        most[i] = fmaxf(most[i], __shfl_xor_sync(~0u, most[i], 1));
        most[i] = fmaxf(most[i], __shfl_xor_sync(~0u, most[i], 2));
    }
    const bool moved = __any_sync(~0u, (most[0] - m[0]) * scale > SLACK || (most[1] - m[1]) * scale > SLACK);
    if (moved) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            most[i] = fmaxf(most[i], m[i]);
            shrink[i] = m[i] == -INFINITY ? 0 : exp2_fast((m[i] - most[i]) * scale);
            l[i] *= shrink[i];
            m[i] = most[i];
        }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const float base = MASKED && m[i] == -INFINITY ? 0 : m[i] * scale;  // no key seen yet: keep -inf - -inf out
        float sum[2] = {};
#pragma unroll
        for (int n = 0; n < N / 4; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                float &x = s[4 * n + 2 * i + j];
                x = exp2_fast(x * scale - base);
                sum[j] += x;
            }
        l[i] += sum[0] + sum[1];
    }
    return moved;
}

// Divides a warp's 16 rows by their sums and writes them, through `stage` (16 rows of each slab of a Q tile, no longer
// needed, and free from here on) so that a row leaves in whole 128-byte lines.
template <class S>
__device__ inline void write_out(const AttentionArgs &a, const Tile<S> &t, const float (&o)[S::DIM / 2], float (&l)[2],
                                 uint32_t stage, uint32_t empty, int first_row) {
    using T = typename S::T;
    const int lane = threadIdx.x % 32;
    float inverse[2];
    for (int i = 0; i < 2; ++i) {
        l[i] += __shfl_xor_sync(~0u, l[i], 1);
        l[i] += __shfl_xor_sync(~0u, l[i], 2);
        inverse[i] = l[i] > 0 ? 1 / l[i] : 0;
    }
#pragma unroll
    for (int n = 0; n < S::DIM / 16; ++n) {
        uint32_t r[4];
        for (int i = 0; i < 4; ++i)
            r[i] = pack<T>(o[n * 8 + 2 * i] * inverse[i % 2], o[n * 8 + 2 * i + 1] * inverse[i % 2]);
        uint32_t at = stage + n / 4 * (S::ROWS * 128) + lane % 16 * 128 + ((n % 4 * 2 + lane / 16) ^ lane % 8) * 16;
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(r[0]),
                     "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
    }
    __syncwarp();
    uint4 x[S::DIM / 16];
#pragma unroll
    for (int i = 0; i < S::DIM / 16; ++i) {
        int r = i % 4 * 4 + lane / 8, at = stage + i / 4 * (S::ROWS * 128) + r * 128 + (lane % 8 ^ r % 8) * 16;
        asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x[i].x), "=r"(x[i].y), "=r"(x[i].z), "=r"(x[i].w) : "r"(at) : "memory");
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // the next copy comes through the other proxy
    __syncwarp();
    if (lane == 0) barrier_arrive(empty);
#pragma unroll
    for (int i = 0; i < S::DIM / 16; ++i) {
        int row = first_row + i % 4 * 4 + lane / 8;
        if (row < 0) continue;
        T *to = static_cast<T *>(a.o) + offset_of(t.s.q0 + row, a.heads, t.h, S::DIM) + i / 4 * 64 + lane % 8 * 8;
        *reinterpret_cast<uint4 *>(to) = x[i];
    }
}

template <class S>
__device__ void consume(const AttentionArgs &a, uint32_t shared, volatile int *slots, int group) {
    using T = typename S::T;
    constexpr int DIM = S::DIM, KEYS = S::KEYS;
    Barriers<S> bar{shared + S::BARRIERS};
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, my_row = group * 64 + warp * 16;
    const float scale = a.scale * LOG2E;
    const uint64_t q_desc = descriptor(shared + group * 64 * 128, 16);
    const uint64_t k_desc = descriptor(shared + S::K, 16), v_desc = descriptor(shared + S::V, KEYS * 128);
    Ring<2> q_ring;
    Ring<S::STAGES> ring;  // of K; V is one behind
    float s[KEYS / 2], o[DIM / 2], m[2], l[2], shrink[2];
    uint32_t p[KEYS / 16][4];

    auto release = [&](uint32_t empty) {
        if (lane == 0) barrier_arrive(empty);
    };
    auto fetch = [&] {
        barrier_wait(bar.q_full(q_ring.stage), q_ring.parity);
        volatile int *slot = slots + 4 * q_ring.stage;
        return Tile<S>(a, slot[0], slot[0] < 0 ? 0 : slot[1], slot[0] < 0 ? 0 : slot[2]);
    };
    auto start_scores = [&] {
        const uint64_t q = q_desc + q_ring.stage * (S::Q_BYTES >> 4), k = k_desc + ring.stage * (S::KV_BYTES >> 4);
        barrier_wait(bar.k_full(ring.stage), ring.parity);
        wgmma_fence();
#pragma unroll
        for (int d = 0; d < DIM / 16; ++d)
            Wgmma<T>::shared(s, q + d / 4 * (S::ROWS * 128 >> 4) + d % 4 * 2, k + d / 4 * (KEYS * 128 >> 4) + d % 4 * 2,
                             d > 0);
        wgmma_commit();
    };
    auto start_values = [&](const Ring<S::STAGES> &v_ring) {
        const uint64_t v = v_desc + v_ring.stage * (S::KV_BYTES >> 4);
        barrier_wait(bar.v_full(v_ring.stage), v_ring.parity);
        wgmma_fence();
#pragma unroll
        for (int n = 0; n < KEYS / 16; ++n) Wgmma<T>::registers(o, p[n], v + n * (2048 >> 4));
        wgmma_commit();
    };
    auto soften = [&](auto masked, const Tile<S> &t, int n) {
        int last[2];
        for (int i = 0; i < 2; ++i)
            last[i] = t.s.last_key(t.row0 + my_row + lane / 4 + 8 * i, S::CAUSAL) - n * KEYS - lane % 4 * 2;
        return softmax<decltype(masked)::value>(s, m, l, shrink, scale, last);
    };
    auto pack_p = [&] {
#pragma unroll
        for (int n = 0; n < KEYS / 16; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) p[n][i] = pack<T>(s[8 * n + 2 * i], s[8 * n + 2 * i + 1]);
    };
    auto clear = [&] {
        m[0] = m[1] = -INFINITY;
        l[0] = l[1] = 0;
    };
    // Starts S of the next block and PV of the block before, waits for S and hands it to `between`, then waits for PV.
    auto products = [&](auto between) {
        const Ring<S::STAGES> v_ring = ring;
        ring.step();
        group_wait(1 + group, 256);
        start_scores();
        start_values(v_ring);
        group_pass(1 + (group + 1) % S::GROUPS, 256);
        wgmma_wait<1>();
        hold(s);
        release(bar.k_empty(ring.stage));
        between();
        wgmma_wait<0>();
        hold(o);
        release(bar.v_empty(v_ring.stage));
    };
    auto step = [&](auto masked, const Tile<S> &t, int n) {
        bool moved;
        products([&] { moved = soften(masked, t, n); });
        pack_p();
        if (moved) {
#pragma unroll
            for (int i = 0; i < DIM / 2; ++i) o[i] *= shrink[i / 2 % 2];
        }
    };

    Tile<S> t = fetch();
    if (t.level < 0) return;
    if (group == S::GROUPS - 1) group_pass(1, 256);  // the first turn is group 0's
    clear();
    start_scores();
    wgmma_wait<0>();
    hold(s);
    release(bar.k_empty(ring.stage));
    soften(std::true_type{}, t, t.blocks() - 1);
    while (true) {
        pack_p();
#pragma unroll
        for (float &x : o) x = 0;
        int n = t.blocks() - 2;
        for (const int full = t.full(); n >= full; --n) step(std::true_type{}, t, n);
        for (; n >= 0; --n) step(std::false_type{}, t, n);

        const uint32_t q_stage = q_ring.stage;
        float sums[2];
        q_ring.step();
        const Tile<S> next = fetch();
        if (next.level >= 0) {
            products([&] {
                for (int i = 0; i < 2; ++i) sums[i] = l[i];
                clear();
                soften(std::true_type{}, next, next.blocks() - 1);
            });
        } else {
            for (int i = 0; i < 2; ++i) sums[i] = l[i];
            start_values(ring);
            wgmma_wait<0>();
            hold(o);
            group_wait(1 + S::GROUPS + group, 128);  // every warp is done with this Q
        }
        write_out<S>(a, t, o, sums, shared + q_stage * S::Q_BYTES + my_row * 128, bar.q_empty(q_stage),
                     t.row0 + my_row);
        if (next.level < 0) return;
        t = next;
    }
}

template <class S>
__global__ void __launch_bounds__(S::THREADS, 1)
    hopper(AttentionArgs a, const __grid_constant__ Maps maps, int tiles, int section) {
    extern __shared__ __align__(1024) unsigned char shared_bytes[];
    uint32_t shared = shared_address(shared_bytes);
    volatile int *slots = reinterpret_cast<int *>(shared_bytes + S::SLOTS);
    if (threadIdx.x == 0) {
        Barriers<S> bar{shared + S::BARRIERS};
        for (int i = 0; i < 2; ++i) {
            barrier_init(bar.q_full(i), 1);
            barrier_init(bar.q_empty(i), S::GROUPS * 4);
        }
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
        if (threadIdx.x == 0) produce<S>(a, maps, tiles, section, shared, slots);
    } else {
        take_registers<S::CONSUMER_REGISTERS>();
        consume<S>(a, shared, slots, group - 1);
    }
}

// `section_bytes`: K and V of the heads that are worked on at a time under a causal mask; the L2 cache is 50 to 60 MB.
template <class S>
int run_shape(const AttentionArgs &a, int section_bytes) {
    Maps maps;
    bool packed = a.cu_q != nullptr;
    int batch = packed ? 1 : a.batch, rows_q = packed ? a.total_q : a.seq_q, rows_k = packed ? a.total_k : a.seq_k;
    int e = make_map(&maps.q, a.q, a.is_bf16, S::DIM, rows_q, a.heads, batch, S::ROWS);
    if (!e) e = make_map(&maps.k, a.k, a.is_bf16, S::DIM, rows_k, a.kv_heads, batch, S::KEYS);
    if (!e) e = make_map(&maps.v, a.v, a.is_bf16, S::DIM, rows_k, a.kv_heads, batch, S::KEYS);
    int device, processors;
    if (!e) e = cudaGetDevice(&device);
    if (!e) e = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (!e && S::CAUSAL) e = cudaMemsetAsync(a.scratch, 0, sizeof(int), static_cast<cudaStream_t>(a.stream));
    if (e) return e;
    int tiles = ceil_div(a.seq_q, S::ROWS) * a.batch * a.heads;
    // Sections of like size: a narrow last one would leave its longest tiles to a few blocks at the end.
    double kv_bytes = 4.0 * a.seq_k * S::DIM * a.kv_heads / a.heads;  // of one query head
    int heads = a.batch * a.heads, most = S::CAUSAL ? std::max(1, static_cast<int>(section_bytes / kv_bytes)) : 1;
    int section = ceil_div(heads, ceil_div(heads, most));
    return launch(hopper<S>, dim3(std::min(tiles, processors)), S::THREADS, S::BYTES, a.stream, a, maps, tiles,
                  section);
}

template <typename T, int DIM, bool CAUSAL>
struct Step5 {
    static int run(const AttentionArgs &a) {
        constexpr int MIB = 1 << 20;
        if constexpr (DIM == 64) {
            return run_shape<Shape<T, DIM, CAUSAL, 128, 3, 2>>(a, 32 * MIB);
        } else {  // 192 rows use a key half as often again; short sequences would waste the tile that is cut short
            if (a.seq_q > (CAUSAL ? 2048 : 2047)) return run_shape<Shape<T, DIM, CAUSAL, 80, 3, 2>>(a, 64 * MIB);
            return run_shape<Shape<T, DIM, CAUSAL, 128, 2, 2>>(a, 32 * MIB);
        }
    }
};

}  // namespace

extern "C" int attention_step5(const AttentionArgs *a) { return choose<Step5>(*a); }
