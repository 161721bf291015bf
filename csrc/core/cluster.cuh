// Blocks of a cluster: their launch, their rank, and words that one writes into another's shared memory. For kernels whose body
// is there for SM90 alone.
#pragma once
#include "launch.h"
#include "mma.cuh"

namespace frt {

namespace sm90 {

__device__ __forceinline__ unsigned cluster_rank() {
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return rank;
}
// Every thread of every block of the cluster arrives once and waits once: what came before the arrivals is seen after the wait.
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;\n" ::: "memory"); }

// Where `p` of this block's shared memory lies in block `rank`, for `push`.
__device__ __forceinline__ unsigned address_in(const void* p, unsigned rank) {
  unsigned at;
  asm("mapa.shared::cluster.u32 %0, %1, %2;\n" : "=r"(at) : "r"(shared_address(p)), "r"(rank));
  return at;
}
// 16 bytes into another block's shared memory; the barrier there is told when they have landed.
__device__ __forceinline__ void push(unsigned to, unsigned barrier, const uint4& v) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];\n" ::"r"(to),
               "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(barrier)
               : "memory");
}

}  // namespace sm90

// `launch` with clusters of `size` blocks along x; the grid is a multiple of it.
template <class... P, class... A>
int launch_clusters(const char* op, void (*kernel)(P...), const Grid& g, int size, cudaStream_t stream, const A&... args) {
  cudaError_t e = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       int(g.shared));
  if (e != cudaSuccess) return cuda_failed(op, "cudaFuncSetAttribute", e);
  cudaLaunchAttribute how[2] = {};
  how[0].id = cudaLaunchAttributeClusterDimension;
  how[0].val.clusterDim.x = size, how[0].val.clusterDim.y = 1, how[0].val.clusterDim.z = 1;
  how[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  how[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = g.blocks;
  config.blockDim = g.threads;
  config.dynamicSmemBytes = g.shared;
  config.stream = stream;
  config.attrs = how;
  config.numAttrs = 2;
  e = cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
  if (e == cudaSuccess) return FRT_OK;
  cudaGetLastError();  // not sticky: the next call starts clean
  return cuda_failed(op, "launch", e);
}

}  // namespace frt
