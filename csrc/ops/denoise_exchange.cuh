// Data that is its own flag: a word of the exchange is EMPTY until its producer stores it, and a consumer reads it until it is
// not. One trip through L2 instead of the four of a grid barrier (fence, count, poll, load). EMPTY is a NaN that no rounding
// or arithmetic produces, in every type used here. The sweeper empties a block's words once all consumers have them.
#pragma once
#include "../core/vector.cuh"
#include "denoise_shape.h"

namespace frt::denoise {

inline constexpr unsigned EMPTY = 0xffffffffu;
inline constexpr unsigned PATIENCE = 1u << 24;  // reads before the kernel gives up: seconds, then an error and no hang

__device__ __forceinline__ uint4 peek(const void* p) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(p))
               : "memory");
  return v;
}
__device__ __forceinline__ void publish(void* p, unsigned x) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(p)), "r"(x) : "memory");
}
__device__ __forceinline__ void publish(void* p, uint2 x) {
  asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1,%2};" ::"l"(__cvta_generic_to_global(p)), "r"(x.x), "r"(x.y)
               : "memory");
}
__device__ __forceinline__ void publish(void* p, uint4 x) {
  asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(__cvta_generic_to_global(p)), "r"(x.x),
               "r"(x.y), "r"(x.z), "r"(x.w)
               : "memory");
}
// The bits of an fp32 value, never EMPTY.
__device__ __forceinline__ unsigned word(float x) {
  const unsigned bits = __float_as_uint(x);
  return bits == EMPTY ? 0x7fffffffu : bits;
}
__device__ __forceinline__ bool complete(uint4 v) { return v.x != EMPTY && v.y != EMPTY && v.z != EMPTY && v.w != EMPTY; }

// v[i] = 16 bytes at at(i) for each bit i of `wanted`, once they are there; zeros for the others.
template <int N, class At>
__device__ __forceinline__ void receive(uint4 (&v)[N], unsigned wanted, At&& at) {
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = make_uint4(0, 0, 0, 0);
  for (unsigned tries = 0; wanted; ++tries) {
    if (tries == PATIENCE) __trap();
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (wanted >> i & 1) v[i] = peek(at(i));
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (complete(v[i])) wanted &= ~(1u << i);
  }
}

// rows x units of 16 bytes at `p`, `pitch` bytes apart, by one warp.
__device__ __forceinline__ void sweep(char* p, int rows, int units, size_t pitch) {
  for (int i = threadIdx.x % 32; i < rows * units; i += 32)
    publish(p + i / units * pitch + i % units * 16, make_uint4(EMPTY, EMPTY, EMPTY, EMPTY));
}

__device__ __forceinline__ void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory"); }
__device__ __forceinline__ void sync_swept() { asm volatile("bar.sync 2, %0;" ::"n"(SWEPT) : "memory"); }

// The sweeper's program. It meets the consumers once in each GEMM phase (`sync_swept`), when this block has received the
// phase's input. Every block has then consumed what came two exchanges before, so this block's words of that are emptied,
// and the next meeting orders this before whatever the block publishes from then on.
template <class T>
__device__ void sweep_all(const Args& a) {
  const int b = blockIdx.x, M = a.M, tiles = b < QKV / 8 - 2 * BLOCKS ? 3 : 2;
  char* x = a.exchange;
  for (int step = 0; step < a.steps; ++step) {
    sync_swept();  // the actions are here: the last layer's output was used
    sweep(x + Exchange::H2 + b * 16, M, 1, D * 2);
    for (int layer = 0; layer < a.L; ++layer) {
      __threadfence();
      sync_swept();  // input of qkv
      sweep(x + Exchange::HIDDEN + b * 32 * sizeof(T), M, 2 * sizeof(T), MLP * 2);
      if (layer == 0 && b < A && threadIdx.x % 32 < M) publish(x + Exchange::ACTIONS + (threadIdx.x % 32 * A + b) * 4, EMPTY);
      __threadfence();
      sync_swept();  // heads
      for (int t = 0; t < tiles; ++t) sweep(x + Exchange::PROJ + (b + t * BLOCKS) * 16, M, 1, QKV * 2);
      sweep(x + Exchange::PARTS + size_t(b) * ROWS * Exchange::PART * 4, M, Exchange::PART / 4, Exchange::PART * 4);
      sweep(x + (layer ? Exchange::H2 : Exchange::H0) + b * 16, M, 1, D * 2);
      __threadfence();
      sync_swept();  // input of gate/up
      sweep(x + Exchange::HEADS + b * 16 * sizeof(T), M, sizeof(T), Q * 2);
      __threadfence();
      sync_swept();  // hidden
      sweep(x + Exchange::H1 + b * 16, M, 1, D * 2);
    }
    __threadfence();
  }
}

}  // namespace frt::denoise
