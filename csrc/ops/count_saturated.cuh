// out[0] += number of |x| > 464 * scale, x: [n]. Sums of whole numbers below 2^24 are exact in fp32, in any order.
#pragma once
#include "amax.cuh"

namespace frt {

template <class T>
__global__ void count_saturated_kernel(const T* x, const float* scale, float* out, int n) {
  inputs_ready();
  const float limit = 464.0f * *scale;
  unsigned count = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    count += fabsf(to_float(x[i])) > limit;
  count = __reduce_add_sync(~0u, count);
  if (threadIdx.x % 32 == 0 && count) atomicAdd(out, float(count));
}

template <class T>
int count_saturated(const T* x, const float* scale, float* out, int n, cudaStream_t stream) {
  return launch("count_saturated", count_saturated_kernel<T>, measuring_grid(n), stream, x, scale, out, n);
}

}  // namespace frt
