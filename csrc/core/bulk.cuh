// mbarriers and bulk copies from global to shared memory (SM90 and later; empty functions below, where nothing may call them).
#pragma once
#include "mma.cuh"

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define FRT_SM90_ASM(...) asm volatile(__VA_ARGS__)
#else
#define FRT_SM90_ASM(...)
#endif

namespace frt {

__device__ __forceinline__ void barrier_init(uint64_t* barrier, unsigned arrivals) {
  FRT_SM90_ASM("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
  FRT_SM90_ASM("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives, and makes the phase wait for `bytes` of bulk copies too.
__device__ __forceinline__ void barrier_expect(uint64_t* barrier, unsigned bytes) {
  FRT_SM90_ASM("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Arrives once the thread's earlier copy16s have landed.
__device__ __forceinline__ void barrier_arrive_after_copies(uint64_t* barrier) {
  FRT_SM90_ASM("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Waits until the phase of this parity is over.
__device__ __forceinline__ void barrier_wait(uint64_t* barrier, unsigned parity) {
  FRT_SM90_ASM(
      "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra AGAIN;\n}\n" ::
          "r"(shared_address(barrier)), "r"(parity)
      : "memory");
}
// What ordinary stores of this thread put into shared memory is in place before later bulk copies write there.
__device__ __forceinline__ void fence_bulk() { FRT_SM90_ASM("fence.proxy.async.shared::cta;" ::: "memory"); }

// `bytes` and both addresses are multiples of 16.
__device__ __forceinline__ void bulk_load(void* to, const void* from, unsigned bytes, uint64_t* barrier) {
  FRT_SM90_ASM("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
}

}  // namespace frt
