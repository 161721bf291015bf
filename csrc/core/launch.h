// The one place that launches kernels: sets the shared-memory limit and the early start, launches, checks.
//
// Every kernel starts early (programmatic dependent launch, SM90 and later): its blocks may be resident while the kernel before
// still runs. So each calls `inputs_ready()` before it reads or writes memory that another kernel writes or reads; only weights
// and its own parameters may be touched before. That call also lets the next kernel start. `test/contract/test_csrc.py` checks it.
#pragma once
#include "check.h"
#include "vector.cuh"

namespace frt {

struct Grid {
  dim3 blocks, threads;
  size_t shared = 0;
  int cluster = 1;  // neighbouring blocks along x that run together (SM90)
};

// Returns when all kernels before have finished and their writes can be seen.
__device__ __forceinline__ void inputs_ready() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\ngriddepcontrol.launch_dependents;\n" ::: "memory");  // the other order: 0.6 ms slower
#endif
}

// Whether the current GPU knows the early start: the attribute is not for those before 9.0.
inline bool starts_early() {
  int device = 0, major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 9;
}

template <class... P, class... A>
int launch(const char* op, void (*kernel)(P...), const Grid& g, cudaStream_t stream, A... args) {
  if (g.shared) {  // whatever its size: the 48 KB that need no asking include the kernel's own static shared memory
    cudaError_t e = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, int(g.shared));
    if (e != cudaSuccess) return cuda_failed(op, "cudaFuncSetAttribute", e);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = g.blocks;
  config.blockDim = g.threads;
  config.dynamicSmemBytes = g.shared;
  config.stream = stream;
  cudaLaunchAttribute attributes[2] = {};
  config.attrs = attributes;
  if (starts_early()) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (g.cluster > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs++].val.clusterDim = {unsigned(g.cluster), 1, 1};
  }
  cudaError_t e = cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
  if (e != cudaSuccess) {
    cudaGetLastError();  // not sticky: the next call starts clean
    return cuda_failed(op, "launch", e);
  }
  return FRT_OK;
}

inline int divide_up(long a, long b) { return int((a + b - 1) / b); }

}  // namespace frt
