// Hopper's own instructions: mbarriers, bulk tensor copies (TMA), and matrix products of a warpgroup (wgmma).
#pragma once

#include <cuda.h>

#include "common.cuh"

// ---- mbarrier: arrivals and bytes counted in shared memory; a phase ends when all that was expected has come

__device__ inline void barrier_init(uint32_t bar, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals));
}
__device__ inline void barrier_arrive(uint32_t bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ inline void barrier_expect(uint32_t bar, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
// Waits until the phase of this parity has ended.
__device__ inline void barrier_wait(uint32_t bar, int parity) {
    asm volatile(
        "{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n}" ::"r"(bar), "r"(parity) : "memory");
}
__device__ inline void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// ---- named barriers among whole warpgroups: `threads` in all, waiting or only passing by

__device__ inline void group_wait(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void group_pass(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <int COUNT>
__device__ inline void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT)); }
template <int COUNT>
__device__ inline void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT)); }

// ---- TMA

// A tensor (rows, heads, DIM) of 16-bit values, seen as 64 columns x rows x DIM / 64 slabs x heads x batch. A box is
// one head's tile: slab after slab, each of `box_rows` rows of 128 bytes, swizzled; rows past the end come as zeros.
inline int make_map(CUtensorMap *map, const void *data, bool is_bf16, int dim, int rows, int heads, int batch,
                    int box_rows) {
    static decltype(&cuTensorMapEncodeTiled) encode = nullptr;
    if (encode == nullptr) {
        cudaDriverEntryPointQueryResult found;
        cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", reinterpret_cast<void **>(&encode),
                                                         12000, cudaEnableDefault, &found);
        if (e != cudaSuccess) return e;
        if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
    }
    cuuint64_t row = static_cast<cuuint64_t>(heads) * dim * 2;
    cuuint64_t size[5] = {64, cuuint64_t(rows), cuuint64_t(dim / 64), cuuint64_t(heads), cuuint64_t(batch)};
    cuuint64_t stride[4] = {row, 128, cuuint64_t(dim) * 2, row * rows};
    cuuint32_t box[5] = {64, cuuint32_t(box_rows), cuuint32_t(dim / 64), 1, 1}, step[5] = {1, 1, 1, 1, 1};
    CUresult r = encode(map, is_bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 5,
                        const_cast<void *>(data), size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

__device__ inline void load_tile(uint32_t to, const CUtensorMap &map, uint32_t bar, int row, int head, int batch) {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %2, %4, %5}], "
        "[%6];" ::"r"(to), "l"(&map), "r"(0), "r"(row), "r"(head), "r"(batch), "r"(bar) : "memory");
}

// ---- wgmma

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING>
__device__ inline void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory"); }
// Keeps the compiler from moving uses of an accumulator across the wait before this.
template <int N>
__device__ inline void hold(float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(x[i])::"memory");
}

// A tile in shared memory for wgmma: 128-byte rows, swizzled, 1024 bytes from 8 rows to the next 8; `slab` bytes from
// 64 columns to the next 64, which only the transposed operand (V) uses.
__device__ inline uint64_t descriptor(uint32_t at, int slab) {
    return uint64_t(at >> 4) | uint64_t(slab >> 4) << 16 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}

// The operands of the accumulator: 32, 40 or 64 floats a thread for 64, 80 or 128 columns.
// clang-format off
#define LIST32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" \
    ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LIST40 LIST32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define LIST64 LIST32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
    ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define F8(x, i) \
    "+f"(x[i]), "+f"(x[i+1]), "+f"(x[i+2]), "+f"(x[i+3]), "+f"(x[i+4]), "+f"(x[i+5]), "+f"(x[i+6]), "+f"(x[i+7])
#define F32(x) F8(x, 0), F8(x, 8), F8(x, 16), F8(x, 24)
#define F40(x) F32(x), F8(x, 32)
#define F64(x) F32(x), F8(x, 32), F8(x, 40), F8(x, 48), F8(x, 56)
// clang-format on

// shared: c (64 x N floats) = A (64 x 16) B (16 x N), or += with `add`; A and B in shared memory, rows along the 16.
// registers: c += A B with A in registers and the rows of B along N, the transposed operand.
template <typename T>
struct Wgmma {};
#define WGMMA_SS(N, COUNT, A, B, P, NAME)                                                                 \
    static __device__ void shared(float(&c)[COUNT], uint64_t a, uint64_t b, int add) {                    \
        asm volatile("{.reg .pred p; setp.ne.b32 p, %" P ", 0;\n"                                         \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " {" LIST##COUNT "}" \
                     ", %" A ", %" B ", p, 1, 1, 0, 0;}" : F##COUNT(c) : "l"(a), "l"(b), "r"(add));       \
    }
#define WGMMA_RS(N, COUNT, A, B, NAME)                                                                    \
    static __device__ void registers(float(&c)[COUNT], const uint32_t(&a)[4], uint64_t b) {               \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " {" LIST##COUNT "}" \
                     ", {" A "}, %" B ", 1, 1, 1, 1;" : F##COUNT(c)                                       \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                               \
    }
#define WGMMA(T, NAME)                                         \
    template <>                                                \
    struct Wgmma<T> {                                          \
        WGMMA_SS(80, 40, "40", "41", "42", NAME)               \
        WGMMA_SS(128, 64, "64", "65", "66", NAME)              \
        WGMMA_RS(64, 32, "%32, %33, %34, %35", "36", NAME)     \
        WGMMA_RS(128, 64, "%64, %65, %66, %67", "68", NAME)    \
    };
WGMMA(half, "f16")
WGMMA(bf16, "bf16")
