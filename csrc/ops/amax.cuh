// out[0] = max(out[0], max |x|), x: [n]. Non-negative floats order as their bits do, NaN above infinity, so one integer
// atomic per block gives the same result in any order.
#pragma once
#include "../core/launch.h"
#include "../tuning/norm.h"

namespace frt {

inline Grid measuring_grid(int n) {
  const int blocks = divide_up(n, tuning::elementwise_threads * 16);
  return {dim3(blocks < 1024 ? blocks : 1024), dim3(tuning::elementwise_threads)};
}

template <class T>
__global__ void amax_kernel(const T* x, float* out, int n) {
  inputs_ready();
  int top = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    top = max(top, __float_as_int(fabsf(to_float(x[i]))));
  top = __reduce_max_sync(~0u, top);
  if (threadIdx.x % 32 == 0) atomicMax(reinterpret_cast<int*>(out), top);
}

template <class T>
int amax(const T* x, float* out, int n, cudaStream_t stream) {
  return launch("amax", amax_kernel<T>, measuring_grid(n), stream, x, out, n);
}

}  // namespace frt
