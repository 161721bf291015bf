// out[d] += sum of x[:, d], x: [M, D]. A thread to a column, rows in order: the same sum every time.
#pragma once
#include "amax.cuh"

namespace frt {

template <class T>
__global__ void column_sum_kernel(const T* x, float* out, int M, int D) {
  inputs_ready();
  const int d = blockIdx.x * blockDim.x + threadIdx.x;
  if (d >= D) return;
  float sum = 0.0f;
#pragma unroll 8
  for (int m = 0; m < M; ++m) sum += to_float(x[size_t(m) * D + d]);
  out[d] += sum;
}

template <class T>
int column_sum(const T* x, float* out, int M, int D, cudaStream_t stream) {
  const Grid grid = {dim3(divide_up(D, tuning::elementwise_threads)), dim3(tuning::elementwise_threads)};
  return launch("column_sum", column_sum_kernel<T>, grid, stream, x, out, M, D);
}

}  // namespace frt
