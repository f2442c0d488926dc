// Step 2: the same tiles on tensor cores. S = QK^T and PV are m16n8k16 products with fp32 sums; P goes from the
// accumulators of the one straight into the A operand of the other, without leaving the registers.
//
// The tiles lie in shared memory as they lie in device memory: a row is 128 or 256 bytes, a multiple of the 128 bytes
// that the 32 banks serve at once. The 8 rows that ldmatrix reads together start in the same bank: 8 reads for one.
#include "tensor_tile.cuh"

namespace {

// Byte of 16-byte chunk c of row r: rows one after another.
template <int DIM>
__device__ inline int place(int r, int c) { return r * DIM * 2 + c * 16; }

__device__ inline void load_x4(uint32_t (&r)[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}
__device__ inline void load_x2(uint32_t (&r)[2], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(at));
}
__device__ inline void load_x2_transposed(uint32_t (&r)[2], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(at));
}

template <typename T, int DIM, bool CAUSAL>
__global__ void __launch_bounds__(WARPS * 32, 2) tensor_cores(AttentionArgs a) {
    extern __shared__ __align__(128) unsigned char shared[];
    unsigned char *q_tile = shared, *k_tile = q_tile + ROWS * DIM * 2, *v_tile = k_tile + KEYS * DIM * 2;
    uint32_t q = shared_address(q_tile), k = shared_address(k_tile), v = shared_address(v_tile);

    int h = blockIdx.y, kv_head = h / (a.heads / a.kv_heads), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Sequence s = sequence_of(a, blockIdx.z);
    int row0 = (CAUSAL ? gridDim.x - 1 - blockIdx.x : blockIdx.x) * ROWS;  // the longest rows first
    copy_tile<T, DIM, ROWS>(q_tile, a.q, s.q0, row0, s.nq, a.heads, h, place<DIM>);

    RowState<DIM> state;
    float scale = a.scale * LOG2E;
    int keys = s.last_key(min(row0 + ROWS, s.nq) - 1, CAUSAL) + 1;  // seen by some row
    int full = max(0, s.last_key(row0, CAUSAL) + 1) / KEYS * KEYS;  // seen by every row

    for (int key0 = 0; key0 < keys; key0 += KEYS) {
        __syncthreads();  // the tiles before have been used
        copy_tile<T, DIM, KEYS>(k_tile, a.k, s.k0, key0, s.nk, a.kv_heads, kv_head, place<DIM>);
        copy_tile<T, DIM, KEYS>(v_tile, a.v, s.k0, key0, s.nk, a.kv_heads, kv_head, place<DIM>);
        __syncthreads();

        float c[M_TILES][KEYS / 8][4] = {};
#pragma unroll
        for (int d = 0; d < DIM / 16; ++d) {
            uint32_t rows[M_TILES][4];
            for (int m = 0; m < M_TILES; ++m)
                load_x4(rows[m], q + place<DIM>(warp * 32 + m * 16 + lane % 16, 2 * d + lane / 16));
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) {
                uint32_t b[2];
                load_x2(b, k + place<DIM>(n * 8 + lane % 8, 2 * d + lane / 8 % 2));
                for (int m = 0; m < M_TILES; ++m) mma<T>(c[m][n], rows[m], b[0], b[1]);
            }
        }

        uint32_t p[M_TILES][KEYS / 16][4];
        auto last_key = [&](int row) { return s.last_key(row0 + row, CAUSAL); };
        if (key0 < full) take_in<T, DIM, false>(state, c, p, scale, key0, last_key);
        else take_in<T, DIM, true>(state, c, p, scale, key0, last_key);

#pragma unroll
        for (int n = 0; n < KEYS / 16; ++n)
#pragma unroll
            for (int d = 0; d < DIM / 8; ++d) {
                uint32_t b[2];
                load_x2_transposed(b, v + place<DIM>(n * 16 + lane % 16, d));
                for (int m = 0; m < M_TILES; ++m) mma<T>(state.o[m][d], p[m][n], b[0], b[1]);
            }
    }
    write_out<T, DIM>(state, a, s, row0, h);
}

template <typename T, int DIM, bool CAUSAL>
struct Step2 {
    static int run(const AttentionArgs &a) {
        int bytes = (ROWS + 2 * KEYS) * DIM * 2;
        return launch(tensor_cores<T, DIM, CAUSAL>, dim3(ceil_div(a.seq_q, ROWS), a.heads, a.batch), WARPS * 32, bytes,
                      a.stream, a);
    }
};

}  // namespace

extern "C" int attention_step2(const AttentionArgs *a) { return choose<Step2>(*a); }
