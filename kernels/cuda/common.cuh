// What every step shares: the arguments, a sequence's place in a batch, 16-bit types, and the choice of a template.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

using bf16 = __nv_bfloat16;

// Mirrored field by field by kernels/build.py. Tensors are (batch, seq, heads, dim), contiguous; with cu_q and cu_k
// (batch + 1 offsets each) they are (total, heads, dim) and seq_q, seq_k are the longest of the batch.
struct AttentionArgs {
    const void *q, *k, *v;
    void *o;
    void *scratch;  // step 0: the scores; step 5: one int
    const int *cu_q, *cu_k;
    void *stream;
    int batch, heads, kv_heads, seq_q, seq_k, dim;
    int total_q, total_k;  // rows of q and of k: batch x seq, or cu_q[batch]
    int causal, is_bf16;
    float scale;
};

struct Sequence {
    int q0, k0;  // first row in q, in k
    int nq, nk;
    // The last key that query `row` sees; a causal mask is aligned to the end of both sequences.
    __device__ int last_key(int row, bool causal) const { return causal ? min(nk - 1, row + nk - nq) : nk - 1; }
};

__device__ inline Sequence sequence_of(const AttentionArgs &a, int b) {
    if (a.cu_q == nullptr) return {b * a.seq_q, b * a.seq_k, a.seq_q, a.seq_k};
    return {a.cu_q[b], a.cu_k[b], a.cu_q[b + 1] - a.cu_q[b], a.cu_k[b + 1] - a.cu_k[b]};
}

// Where row `row` of head `h` starts, in elements.
__device__ inline size_t offset_of(int row, int heads, int h, int dim) {
    return (static_cast<size_t>(row) * heads + h) * dim;
}

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
constexpr float LOG2E = 1.4426950408889634f;

__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

template <typename T>
__device__ inline T from_float(float x);
template <>
__device__ inline half from_float<half>(float x) { return __float2half_rn(x); }
template <>
__device__ inline bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }
__device__ inline float to_float(half x) { return __half2float(x); }
__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }

// Two floats as one register of two 16-bit values, `low` in the lower half.
template <typename T>
__device__ inline uint32_t pack(float low, float high);
template <>
__device__ inline uint32_t pack<half>(float low, float high) {
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
template <>
__device__ inline uint32_t pack<bf16>(float low, float high) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

__device__ inline uint32_t shared_address(const void *p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// Raises a kernel's shared memory limit, launches it, and says how that went.
template <typename... P>
int launch(void (*kernel)(P...), dim3 grid, int threads, int shared_bytes, void *stream, P... args) {
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (e != cudaSuccess) return e;
    kernel<<<grid, threads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(args...);
    return cudaGetLastError();
}

// Calls Step<T, DIM, CAUSAL>::run(args) for the type, head dimension and mask that the arguments name.
template <template <typename, int, bool> class Step, typename T, int DIM>
int choose_mask(const AttentionArgs &a) {
    return a.causal ? Step<T, DIM, true>::run(a) : Step<T, DIM, false>::run(a);
}
template <template <typename, int, bool> class Step, typename T>
int choose_dim(const AttentionArgs &a) {
    if (a.dim == 64) return choose_mask<Step, T, 64>(a);
    if (a.dim == 128) return choose_mask<Step, T, 128>(a);
    return cudaErrorInvalidValue;
}
template <template <typename, int, bool> class Step>
int choose(const AttentionArgs &a) {
    return a.is_bf16 ? choose_dim<Step, bf16>(a) : choose_dim<Step, half>(a);
}
