// Launches a kernel whose blocks wait for one another: all of them are resident at once, or the launch fails.
#pragma once
#include "launch.h"

namespace frt {

template <class... P, class... A>
int launch_together(const char* op, void (*kernel)(P...), const Grid& g, cudaStream_t stream, const A&... args) {
  cudaError_t e = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       int(g.shared));
  if (e != cudaSuccess) return cuda_failed(op, "cudaFuncSetAttribute", e);
  cudaLaunchAttribute together{};
  together.id = cudaLaunchAttributeCooperative;
  together.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = g.blocks;
  config.blockDim = g.threads;
  config.dynamicSmemBytes = g.shared;
  config.stream = stream;
  config.attrs = &together;
  config.numAttrs = 1;
  e = cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
  if (e == cudaSuccess) return FRT_OK;
  cudaGetLastError();  // not sticky: the next call starts clean
  return cuda_failed(op, "cooperative launch", e);
}

}  // namespace frt
