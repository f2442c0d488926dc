// Step 0: the textbook way. Three kernels, and the whole score matrix S (batch x heads x seq_q x seq_k floats) goes
// through device memory between them: written once, read and written by the softmax, read again by PV.
#include "common.cuh"

namespace {

constexpr int TILE = 64, DEPTH = 16, SIDE = 16;  // a block of 16 x 16 threads makes 64 x 64 results, 4 x 4 a thread

// C += A B for one tile, A(row, k) and B(k, col) given as functions that return 0 outside their matrix.
template <typename FA, typename FB>
__device__ void tile_product(float (&c)[4][4], int depth, FA a_at, FB b_at) {
    __shared__ float a[DEPTH][TILE + 1], b[DEPTH][TILE + 1];
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    for (int k0 = 0; k0 < depth; k0 += DEPTH) {
        for (int i = threadIdx.x; i < DEPTH * TILE; i += SIDE * SIDE) {
            a[i % DEPTH][i / DEPTH] = a_at(i / DEPTH, k0 + i % DEPTH);
            b[i / TILE][i % TILE] = b_at(k0 + i / TILE, i % TILE);
        }
        __syncthreads();
        for (int k = 0; k < DEPTH; ++k)
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 4; ++j) c[i][j] += a[k][ty + SIDE * i] * b[k][tx + SIDE * j];
        __syncthreads();
    }
}

template <typename T, int DIM, bool CAUSAL>
__global__ void textbook_scores(AttentionArgs a) {
    int bh = blockIdx.z, h = bh % a.heads, kv_head = h / (a.heads / a.kv_heads);
    Sequence s = sequence_of(a, bh / a.heads);
    int row0 = blockIdx.y * TILE, col0 = blockIdx.x * TILE;
    const T *q = static_cast<const T *>(a.q), *k = static_cast<const T *>(a.k);
    float c[4][4] = {};
    tile_product(
        c, DIM,
        [&](int r, int d) {
            return row0 + r < s.nq ? to_float(q[offset_of(s.q0 + row0 + r, a.heads, h, DIM) + d]) : 0.f;
        },
        [&](int d, int n) {
            return col0 + n < s.nk ? to_float(k[offset_of(s.k0 + col0 + n, a.kv_heads, kv_head, DIM) + d]) : 0.f;
        });
    float *out = static_cast<float *>(a.scratch) + static_cast<size_t>(bh) * s.nq * s.nk;
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
            int row = row0 + threadIdx.x / SIDE + SIDE * i, col = col0 + threadIdx.x % SIDE + SIDE * j;
            if (row >= s.nq || col >= s.nk) continue;
            out[static_cast<size_t>(row) * s.nk + col] = col <= s.last_key(row, CAUSAL) ? c[i][j] * a.scale : -INFINITY;
        }
}

// `value` over the block of 256 threads, combined by `op`.
template <typename F>
__device__ float block_reduce(float value, F op) {
    __shared__ float part[8];
    for (int step = 16; step; step /= 2) value = op(value, __shfl_xor_sync(~0u, value, step));
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = value;
    __syncthreads();
    value = part[0];
    for (int i = 1; i < 8; ++i) value = op(value, part[i]);
    return value;
}

// One block a row: maximum, sum of exponentials, division.
__global__ void textbook_softmax(AttentionArgs a) {
    float *row = static_cast<float *>(a.scratch) + (static_cast<size_t>(blockIdx.y) * a.seq_q + blockIdx.x) * a.seq_k;
    float m = -INFINITY, sum = 0;
    for (int i = threadIdx.x; i < a.seq_k; i += 256) m = fmaxf(m, row[i]);
    m = block_reduce(m, [](float x, float y) { return fmaxf(x, y); });
    if (m == -INFINITY) m = 0;  // a row that sees no key at all
    for (int i = threadIdx.x; i < a.seq_k; i += 256) sum += exp2_fast((row[i] - m) * LOG2E);
    sum = block_reduce(sum, [](float x, float y) { return x + y; });
    for (int i = threadIdx.x; i < a.seq_k; i += 256)
        row[i] = sum > 0 ? exp2_fast((row[i] - m) * LOG2E) / sum : 0;
}

template <typename T, int DIM>
__global__ void textbook_values(AttentionArgs a) {
    int bh = blockIdx.z, h = bh % a.heads, kv_head = h / (a.heads / a.kv_heads);
    Sequence s = sequence_of(a, bh / a.heads);
    int row0 = blockIdx.y * TILE, col0 = blockIdx.x * TILE;
    const T *v = static_cast<const T *>(a.v);
    const float *p = static_cast<const float *>(a.scratch) + static_cast<size_t>(bh) * s.nq * s.nk;
    float c[4][4] = {};
    tile_product(
        c, s.nk,
        [&](int r, int n) { return row0 + r < s.nq && n < s.nk ? p[static_cast<size_t>(row0 + r) * s.nk + n] : 0.f; },
        [&](int n, int d) {
            return n < s.nk ? to_float(v[offset_of(s.k0 + n, a.kv_heads, kv_head, DIM) + col0 + d]) : 0.f;
        });
    T *o = static_cast<T *>(a.o);
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
            int row = row0 + threadIdx.x / SIDE + SIDE * i, col = col0 + threadIdx.x % SIDE + SIDE * j;
            if (row < s.nq) o[offset_of(s.q0 + row, a.heads, h, DIM) + col] = from_float<T>(c[i][j]);
        }
}

template <typename T, int DIM, bool CAUSAL>
struct Step0 {
    static int run(const AttentionArgs &a) {
        int bh = a.batch * a.heads, rows = ceil_div(a.seq_q, TILE);
        int e = launch(textbook_scores<T, DIM, CAUSAL>, dim3(ceil_div(a.seq_k, TILE), rows, bh), 256, 0, a.stream, a);
        if (!e) e = launch(textbook_softmax, dim3(a.seq_q, bh), 256, 0, a.stream, a);
        if (!e) e = launch(textbook_values<T, DIM>, dim3(DIM / TILE, rows, bh), 256, 0, a.stream, a);
        return e;
    }
};

}  // namespace

extern "C" int attention_step0(const AttentionArgs *a) { return choose<Step0>(*a); }
extern "C" const char *attention_error(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }
