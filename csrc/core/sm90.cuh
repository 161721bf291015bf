// What SM90 adds for moving tiles: barriers in shared memory, the tensor copy engine, registers that change hands. For kernels
// whose body is there for SM90 alone (__CUDA_ARCH_FEAT_SM90_ALL).
#pragma once
#include <cuda.h>

#include <cstdint>

#include "mma.cuh"

namespace frt::sm90 {

__device__ __forceinline__ void barrier_init(uint64_t* bar, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(bar)), "r"(arrivals));
}
// Makes initialised barriers visible to the copy engine.
__device__ __forceinline__ void barrier_init_done() { asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }
// One arrival that also announces `bytes` of copies.
__device__ __forceinline__ void barrier_expect(uint64_t* bar, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(bar)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint64_t* bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(bar)) : "memory");
}
// Returns once the phase with this parity is complete; a fresh barrier counts as having completed parity 1.
__device__ __forceinline__ void barrier_wait(uint64_t* bar, int parity) {
  asm volatile("{\n .reg .pred done;\n again:\n mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
               " @done bra over;\n bra again;\n over:\n}\n" ::"r"(shared_address(bar)), "r"(parity)
               : "memory");
}

// Brings a map to where copies look for it.
__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory");
}
// A box of `map` at (x, y) to shared memory, announced at `bar`.
__device__ __forceinline__ void copy_box(void* to, const CUtensorMap* map, uint64_t* bar, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4}], [%2];\n" ::"r"(shared_address(to)), "l"(map), "r"(shared_address(bar)), "r"(x), "r"(y)
               : "memory");
}

// Ordinary writes to shared memory so far are seen by wgmma and the copy engine after the next barrier.
__device__ __forceinline__ void writes_for_copies() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }
// Barrier ID (1..15) of THREADS threads of the block; constants, so that the sanitizer can follow it.
template <int ID, int THREADS>
__device__ __forceinline__ void barrier_sync() {
  asm volatile("bar.sync %0, %1;\n" ::"n"(ID), "n"(THREADS) : "memory");
}
// The four warps of group 0, 1 or 2.
__device__ __forceinline__ void group_sync(int group) {
  if (group == 0) barrier_sync<1, 128>();
  else if (group == 1) barrier_sync<2, 128>();
  else barrier_sync<3, 128>();
}

// From here on this group of four warps uses at most N registers a thread, and others may take the rest.
template <int N>
__device__ __forceinline__ void keep_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(N));
}
template <int N>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(N));
}

// This thread's warp, in a form that the compiler knows to be the same for the whole warp.
__device__ __forceinline__ int warp_index() { return __shfl_sync(~0u, threadIdx.x / 32, 0); }

}  // namespace frt::sm90
