// Words in global memory that blocks of one kernel wait for: stored and loaded past the first-level cache, ordering nothing.
#pragma once
#include <cuda_runtime.h>

namespace frt {

inline constexpr unsigned PATIENCE = 1u << 24;  // loads before a kernel gives up (__trap): seconds, then an error and no hang

__device__ __forceinline__ void store_word(void* p, unsigned x) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(p)), "r"(x) : "memory");
}
__device__ __forceinline__ unsigned load_word(const void* p) {
  unsigned v;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(__cvta_generic_to_global(p)) : "memory");
  return v;
}

}  // namespace frt
