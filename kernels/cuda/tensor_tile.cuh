// What steps 2 to 4 share: the m16n8k16 product, and the online softmax on its fragments.
//
// A warp owns 32 rows (two m-tiles of 16). In an accumulator tile (16 x 8 floats) lane l holds rows l/4 and l/4 + 8,
// columns 2 (l % 4) and the one after: so a lane sees 4 rows, and a row lies in the 4 lanes of a quad.
#pragma once

#include "common.cuh"

constexpr int ROWS = 128, KEYS = 64, WARPS = 4, M_TILES = 2, LANE_ROWS = 2 * M_TILES;

template <typename T>
__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
#define MMA(T, NAME)                                                                                                  \
    template <>                                                                                                       \
    __device__ inline void mma<T>(float(&c)[4], const uint32_t(&a)[4], uint32_t b0, uint32_t b1) {                    \
        asm("mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "     \
            "{%0,%1,%2,%3};"                                                                                          \
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                          \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                          \
    }
MMA(half, "f16")
MMA(bf16, "bf16")
#undef MMA

// Row l/4 (+ 8 i) of this lane, inside the block's tile.
__device__ inline int lane_row(int i) { return threadIdx.x / 32 * 32 + i * 8 + threadIdx.x % 32 / 4; }
__device__ inline int lane_column() { return threadIdx.x % 4 * 2; }

template <int DIM>
struct RowState {
    float o[M_TILES][DIM / 8][4] = {};  // sum of exp(s - m) v
    float m[LANE_ROWS], l[LANE_ROWS] = {};  // maximum; this lane's part of the sum of exp(s - m)
    __device__ RowState() {
        for (float &x : m) x = -INFINITY;
    }
};

// Takes in one tile of scores: moves m, l and o to the larger maximum, and leaves exp(s - m) in `p`, packed as the A
// operand of PV. `scale` carries log2(e). Rows of a tile that crosses the mask or the end give their last key.
template <typename T, int DIM, bool MASKED, typename Last>
__device__ inline void take_in(RowState<DIM> &r, float (&s)[M_TILES][KEYS / 8][4], uint32_t (&p)[M_TILES][KEYS / 16][4],
                               float scale, int key0, Last last_key) {
#pragma unroll
    for (int i = 0; i < LANE_ROWS; ++i) {
        auto &tile = s[i / 2];
        constexpr int N = KEYS / 8;
        int half = i % 2 * 2;
        if (MASKED) {
            int last = last_key(lane_row(i)) - key0 - lane_column();
#pragma unroll
            for (int n = 0; n < N; ++n)
                for (int j = 0; j < 2; ++j)
                    if (n * 8 + j > last) tile[n][half + j] = -INFINITY;
        }
        float top = r.m[i];
#pragma unroll
        for (int n = 0; n < N; ++n) top = fmaxf(top, fmaxf(tile[n][half], tile[n][half + 1]));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        float base = MASKED && top == -INFINITY ? 0 : top * scale;  // no key seen yet: keep -inf - -inf out
        float shrink = exp2_fast(r.m[i] * scale - base), sum = 0;
        r.m[i] = top;
#pragma unroll
        for (int n = 0; n < N; ++n) {
            float x = exp2_fast(tile[n][half] * scale - base), y = exp2_fast(tile[n][half + 1] * scale - base);
            sum += x + y;
            p[i / 2][n / 2][n % 2 * 2 + i % 2] = pack<T>(x, y);
        }
        r.l[i] = r.l[i] * shrink + sum;
#pragma unroll
        for (int n = 0; n < DIM / 8; ++n) {
            r.o[i / 2][n][half] *= shrink;
            r.o[i / 2][n][half + 1] *= shrink;
        }
    }
}

// Divides by the row sums and writes the block's rows.
template <typename T, int DIM>
__device__ inline void write_out(RowState<DIM> &r, const AttentionArgs &a, const Sequence &s, int row0, int h) {
#pragma unroll
    for (int i = 0; i < LANE_ROWS; ++i) {
        float l = r.l[i] + __shfl_xor_sync(~0u, r.l[i], 1);
        l += __shfl_xor_sync(~0u, l, 2);
        float inverse = l > 0 ? 1 / l : 0;
        int row = row0 + lane_row(i);
        if (row >= s.nq) continue;
        T *o = static_cast<T *>(a.o) + offset_of(s.q0 + row, a.heads, h, DIM) + lane_column();
#pragma unroll
        for (int n = 0; n < DIM / 8; ++n)
            *reinterpret_cast<uint32_t *>(o + n * 8) =
                pack<T>(r.o[i / 2][n][i % 2 * 2] * inverse, r.o[i / 2][n][i % 2 * 2 + 1] * inverse);
    }
}

// Copies rows first + at ... of one head into a tile, 16 bytes a thread; rows from `count` on become zero. `place`
// gives the byte of chunk c (16 bytes) of row r: where it goes is what step 3 changes.
template <typename T, int DIM, int COUNT, typename Place>
__device__ inline void copy_tile(unsigned char *tile, const void *from, int first, int at, int count, int heads, int h,
                                 Place place) {
    constexpr int CHUNKS = DIM / 8;
#pragma unroll 4
    for (int i = threadIdx.x; i < COUNT * CHUNKS; i += WARPS * 32) {
        int r = i / CHUNKS, c = i % CHUNKS;
        uint4 value = {};
        if (at + r < count)
            value = *reinterpret_cast<const uint4 *>(static_cast<const T *>(from) +
                                                     offset_of(first + at + r, heads, h, DIM) + c * 8);
        *reinterpret_cast<uint4 *>(tile + place(r, c)) = value;
    }
}
