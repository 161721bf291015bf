// acc[m,c] = sum_k a[m,k] w[c,k] * a_scale * w_scale, fp32   a: [M,K], w: [C,K] row-major, acc: [M,C] fp32 in scratch.
// 16 x 16 outputs per block without tensor cores: for shapes that the library refuses (FP8 with N not a multiple of 16).
#pragma once
#include "../core/launch.h"
#include "../gemm/epilogue.h"

namespace frt {

template <class T>
__global__ void gemm_plain_kernel(GemmArgs g, float* acc) {
  inputs_ready();
  constexpr int TILE = 16;
  __shared__ float as[TILE][TILE + 1], ws[TILE][TILE + 1];
  const int tx = threadIdx.x % TILE, ty = threadIdx.x / TILE, C = g.columns();
  const int m = blockIdx.y * TILE + ty, c = blockIdx.x * TILE + tx, w_row = blockIdx.x * TILE + ty;
  const T *a = static_cast<const T*>(g.a), *w = static_cast<const T*>(g.w);
  float sum = 0;
  for (int k = 0; k < g.K; k += TILE) {  // K is a multiple of 16
    as[ty][tx] = m < g.M ? to_float(a[size_t(m) * g.K + k + tx]) : 0.0f;
    ws[ty][tx] = w_row < C ? to_float(w[size_t(w_row) * g.K + k + tx]) : 0.0f;
    __syncthreads();
#pragma unroll
    for (int j = 0; j < TILE; ++j) sum += as[ty][j] * ws[tx][j];
    __syncthreads();
  }
  if (m < g.M && c < C) acc[size_t(m) * C + c] = sizeof(T) == 1 ? sum * (*g.a_scale * *g.w_scale) : sum;
}

template <class T>
int gemm_plain(const GemmArgs& g, float* acc, cudaStream_t stream) {
  const Grid grid{dim3(divide_up(g.columns(), 16), divide_up(g.M, 16)), dim3(256)};
  return launch("gemm", gemm_plain_kernel<T>, grid, stream, g, acc);
}

}  // namespace frt
