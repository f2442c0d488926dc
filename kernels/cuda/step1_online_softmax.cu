// Step 1: tiles with an online softmax, fp32 on CUDA cores. S never leaves the block: O(N) memory.
//
// After some of a row's keys the block keeps  m = max s,  l = sum exp(s - m),  o = sum exp(s - m) v.  A tile with
// maximum m' moves them to the larger maximum M:  l <- l exp(m - M) + sum exp(s - M),  o likewise;  at the end
// o / l is the softmax's weighted sum (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135).
#include "common.cuh"

namespace {

constexpr int ROWS = 64, KEYS = 64, SIDE = 16;  // 16 x 16 threads; a thread holds 4 rows x 4 keys of S

template <typename T, int DIM, bool CAUSAL>
__global__ void __launch_bounds__(256) online_softmax(AttentionArgs a) {
    constexpr int STRIDE = DIM + 1;  // one float more: 16 threads read 16 rows of K, each from another bank
    extern __shared__ float shared[];
    float *q = shared, *k = q + ROWS * STRIDE, *v = k + KEYS * STRIDE, *p = v + KEYS * STRIDE;

    int h = blockIdx.y, kv_head = h / (a.heads / a.kv_heads), tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    Sequence s = sequence_of(a, blockIdx.z);
    int row0 = (CAUSAL ? gridDim.x - 1 - blockIdx.x : blockIdx.x) * ROWS;  // the longest rows first

    auto load = [&](float *tile, const void *from, int first, int count, int heads, int head, int at) {
        for (int i = threadIdx.x; i < ROWS * DIM; i += 256) {
            int r = i / DIM, d = i % DIM;
            tile[r * STRIDE + d] =
                at + r < count ? to_float(static_cast<const T *>(from)[offset_of(first + at + r, heads, head, DIM) + d])
                               : 0.f;
        }
    };
    load(q, a.q, s.q0, s.nq, a.heads, h, row0);

    float m[4], l[4] = {}, o[4][DIM / SIDE] = {};
    for (int i = 0; i < 4; ++i) m[i] = -INFINITY;
    int keys = s.last_key(min(row0 + ROWS, s.nq) - 1, CAUSAL) + 1;

    for (int key0 = 0; key0 < keys; key0 += KEYS) {
        __syncthreads();  // the tile before has been used
        load(k, a.k, s.k0, s.nk, a.kv_heads, kv_head, key0);
        load(v, a.v, s.k0, s.nk, a.kv_heads, kv_head, key0);
        __syncthreads();

        float c[4][4] = {};
        for (int d = 0; d < DIM; ++d)
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 4; ++j) c[i][j] += q[(ty * 4 + i) * STRIDE + d] * k[(tx + SIDE * j) * STRIDE + d];

        for (int i = 0; i < 4; ++i) {
            int last = s.last_key(row0 + ty * 4 + i, CAUSAL);
            float top = m[i];
            for (int j = 0; j < 4; ++j) {
                c[i][j] = key0 + tx + SIDE * j <= last ? c[i][j] * a.scale * LOG2E : -INFINITY;
                top = fmaxf(top, c[i][j]);
            }
            for (int step = SIDE / 2; step; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
            float base = top == -INFINITY ? 0 : top;  // no key seen yet: keep -inf - -inf out
            float shrink = exp2_fast(m[i] - base), sum = 0;
            for (int j = 0; j < 4; ++j) {
                float e = exp2_fast(c[i][j] - base);
                p[(ty * 4 + i) * KEYS + tx + SIDE * j] = e;
                sum += e;
            }
            for (int step = SIDE / 2; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
            m[i] = top;
            l[i] = l[i] * shrink + sum;
            for (float &x : o[i]) x *= shrink;
        }
        __syncwarp();  // a row of P is made and used by the same 16 lanes

        for (int n = 0; n < KEYS; ++n)
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < DIM / SIDE; ++j)
                    o[i][j] += p[(ty * 4 + i) * KEYS + n] * v[n * STRIDE + tx + SIDE * j];
    }

    for (int i = 0; i < 4; ++i) {
        int row = row0 + ty * 4 + i;
        if (row >= s.nq) continue;
        float inverse = l[i] > 0 ? 1 / l[i] : 0;
        for (int j = 0; j < DIM / SIDE; ++j)
            static_cast<T *>(a.o)[offset_of(s.q0 + row, a.heads, h, DIM) + tx + SIDE * j] =
                from_float<T>(o[i][j] * inverse);
    }
}

template <typename T, int DIM, bool CAUSAL>
struct Step1 {
    static int run(const AttentionArgs &a) {
        int bytes = (3 * ROWS * (DIM + 1) + ROWS * KEYS) * sizeof(float);
        dim3 grid(ceil_div(a.seq_q, ROWS), a.heads, a.batch);
        return launch(online_softmax<T, DIM, CAUSAL>, grid, 256, bytes, a.stream, a);
    }
};

}  // namespace

extern "C" int attention_step1(const AttentionArgs *a) { return choose<Step1>(*a); }
