// The one place that launches kernels: sets the shared-memory limit, launches, checks.
#pragma once
#include "check.h"
#include "vector.cuh"

namespace frt {

struct Grid {
  dim3 blocks, threads;
  size_t shared = 0;
};

template <class... P, class... A>
int launch(const char* op, void (*kernel)(P...), const Grid& g, cudaStream_t stream, A... args) {
  if (g.shared > 48 * 1024) {
    cudaError_t e = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, int(g.shared));
    if (e != cudaSuccess) return cuda_failed(op, "cudaFuncSetAttribute", e);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = g.blocks;
  config.blockDim = g.threads;
  config.dynamicSmemBytes = g.shared;
  config.stream = stream;
  cudaError_t e = cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
  if (e != cudaSuccess) {
    cudaGetLastError();  // not sticky: the next call starts clean
    return cuda_failed(op, "launch", e);
  }
  return FRT_OK;
}

inline int divide_up(long a, long b) { return int((a + b - 1) / b); }

}  // namespace frt
