// Blocks of one cluster (SM90): their rank, their barrier, and writes to one another's shared memory that announce themselves
// at a barrier there. For kernels whose body is there for SM90 alone (__CUDA_ARCH_FEAT_SM90_ALL).
#pragma once
#include "mma.cuh"

namespace frt::sm90 {

__device__ __forceinline__ int cluster_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// The barrier of all threads of the cluster that have not exited, in two halves: what was written before the first is seen
// after the second, and the blocks are known to run.
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;\n" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;\n" ::: "memory"); }

// Where block `rank` has what this block has at `p`.
__device__ __forceinline__ unsigned peer_address(const void* p, int rank) {
  unsigned there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(p)), "r"(rank));
  return there;
}
// 16 or 4 bytes to a peer_address; the barrier, at a peer_address of the same block, counts them as a copy's bytes.
__device__ __forceinline__ void send16(unsigned to, unsigned bar, unsigned a, unsigned b, unsigned c, unsigned d) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%2, %3, %4, %5}, [%1];\n" ::"r"(to),
               "r"(bar), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}
__device__ __forceinline__ void send16(unsigned to, unsigned bar, const uint4& v) { send16(to, bar, v.x, v.y, v.z, v.w); }
__device__ __forceinline__ void send4(unsigned to, unsigned bar, float x) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %2, [%1];\n" ::"r"(to), "r"(bar),
               "r"(__float_as_uint(x))
               : "memory");
}

}  // namespace frt::sm90
