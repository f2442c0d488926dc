// Step 4: cp.async double buffering. While the tensor cores work on one pair of K and V tiles, the next pair is on its
// way from device memory to the other buffer, past the registers; one barrier a tile instead of two. Every address in
// shared memory is one XOR from one of three bases: the swizzle of a lane's row never changes, since rows step by 8.
#include "tensor_tile.cuh"

namespace {

template <int DIM>
__device__ inline int place(int r, int c) { return r * DIM * 2 + (c ^ r % 8) * 16; }

__device__ inline void load_x4(uint32_t (&r)[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}
__device__ inline void load_x4_transposed(uint32_t (&r)[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}

// Starts copying rows `at`... of a head (`rows` points at its first row) into a tile; past `count` it writes zeros.
template <typename T, int DIM, int COUNT>
__device__ inline void start_copy(uint32_t tile, const T *rows, int at, int count, size_t row_stride) {
    constexpr int CHUNKS = DIM / 8, STEP = WARPS * 32 / CHUNKS;  // rows that all threads copy at once, a multiple of 8
    int r = threadIdx.x / CHUNKS, c = threadIdx.x % CHUNKS;
    const T *from = rows + (at + r) * row_stride + c * 8;
    uint32_t to = tile + place<DIM>(r, c);
#pragma unroll
    for (int i = 0; i < COUNT / STEP; ++i)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to + i * STEP * DIM * 2),
                     "l"(from + i * STEP * row_stride), "r"(at + r + i * STEP < count ? 16 : 0));
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;"); }
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_group 0;"); }

template <typename T, int DIM, bool CAUSAL>
__global__ void __launch_bounds__(WARPS * 32, 2) pipelined(AttentionArgs a) {
    constexpr int ROW = DIM * 2, TILE = KEYS * ROW;  // bytes
    extern __shared__ __align__(256) unsigned char shared[];
    uint32_t q = shared_address(shared), kv = q + ROWS * ROW;  // kv: K, V, and the other K, V

    int h = blockIdx.y, kv_head = h / (a.heads / a.kv_heads), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Sequence s = sequence_of(a, blockIdx.z);
    int row0 = (CAUSAL ? gridDim.x - 1 - blockIdx.x : blockIdx.x) * ROWS;  // the longest rows first
    if (row0 >= s.nq) return;                                              // a sequence shorter than the longest
    const T *k_rows = static_cast<const T *>(a.k) + offset_of(s.k0, a.kv_heads, kv_head, DIM);
    const T *v_rows = static_cast<const T *>(a.v) + offset_of(s.k0, a.kv_heads, kv_head, DIM);
    const size_t q_stride = a.heads * DIM, kv_stride = a.kv_heads * DIM;

    RowState<DIM> state;
    float scale = a.scale * LOG2E;
    int keys = s.last_key(min(row0 + ROWS, s.nq) - 1, CAUSAL) + 1;  // seen by some row
    int full = max(0, s.last_key(row0, CAUSAL) + 1) / KEYS * KEYS;  // seen by every row

    start_copy<T, DIM, ROWS>(q, static_cast<const T *>(a.q) + offset_of(s.q0, a.heads, h, DIM), row0, s.nq, q_stride);
    start_copy<T, DIM, KEYS>(kv, k_rows, 0, s.nk, kv_stride);
    start_copy<T, DIM, KEYS>(kv + TILE, v_rows, 0, s.nk, kv_stride);
    commit_copies();

    uint32_t q_base = q + place<DIM>(warp * 32 + lane % 16, lane / 16);
    uint32_t k_base = kv + place<DIM>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    uint32_t v_base = kv + TILE + place<DIM>(lane % 16, lane / 16);
    uint32_t buffer = 0;  // byte offset of the pair in use

    for (int key0 = 0; key0 < keys; key0 += KEYS, buffer ^= 2 * TILE) {
        wait_for_copies();
        __syncthreads();  // this pair is here, and every warp is done with the other
        if (key0 + KEYS < keys) {
            uint32_t next = kv + (buffer ^ 2 * TILE);
            start_copy<T, DIM, KEYS>(next, k_rows, key0 + KEYS, s.nk, kv_stride);
            start_copy<T, DIM, KEYS>(next + TILE, v_rows, key0 + KEYS, s.nk, kv_stride);
            commit_copies();
        }

        float c[M_TILES][KEYS / 8][4] = {};
#pragma unroll
        for (int d = 0; d < DIM / 16; ++d) {
            uint32_t rows[M_TILES][4], q_at = q_base ^ d * 32, k_at = (k_base ^ d * 32) + buffer;
            for (int m = 0; m < M_TILES; ++m) load_x4(rows[m], q_at + m * 16 * ROW);
#pragma unroll
            for (int n = 0; n < KEYS / 16; ++n) {
                uint32_t b[4];
                load_x4(b, k_at + n * 16 * ROW);
                for (int m = 0; m < M_TILES; ++m) {
                    mma<T>(c[m][2 * n], rows[m], b[0], b[1]);
                    mma<T>(c[m][2 * n + 1], rows[m], b[2], b[3]);
                }
            }
        }

        uint32_t p[M_TILES][KEYS / 16][4];
        auto last_key = [&](int row) { return s.last_key(row0 + row, CAUSAL); };
        if (key0 < full) take_in<T, DIM, false>(state, c, p, scale, key0, last_key);
        else take_in<T, DIM, true>(state, c, p, scale, key0, last_key);

#pragma unroll
        for (int d = 0; d < DIM / 16; ++d) {
            uint32_t v_at = (v_base ^ d * 32) + buffer;
#pragma unroll
            for (int n = 0; n < KEYS / 16; ++n) {
                uint32_t b[4];
                load_x4_transposed(b, v_at + n * 16 * ROW);
                for (int m = 0; m < M_TILES; ++m) {
                    mma<T>(state.o[m][2 * d], p[m][n], b[0], b[1]);
                    mma<T>(state.o[m][2 * d + 1], p[m][n], b[2], b[3]);
                }
            }
        }
    }
    write_out<T, DIM>(state, a, s, row0, h);
}

template <typename T, int DIM, bool CAUSAL>
struct Step4 {
    static int run(const AttentionArgs &a) {
        int bytes = (ROWS + 4 * KEYS) * DIM * 2;
        return launch(pipelined<T, DIM, CAUSAL>, dim3(ceil_div(a.seq_q, ROWS), a.heads, a.batch), WARPS * 32, bytes,
                      a.stream, a);
    }
};

}  // namespace

extern "C" int attention_step4(const AttentionArgs *a) { return choose<Step4>(*a); }
