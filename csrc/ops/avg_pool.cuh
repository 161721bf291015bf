// Mean over F x F windows of a token grid: x [V,G,G,D] -> out [V,G/F,G/F,D]. One block per output token.
#pragma once
#include "../core/launch.h"
#include "../tuning/norm.h"

namespace frt {

template <class T, class Out>
__global__ void avg_pool_kernel(const T* x, Out* out, const float* out_scale, int G, int D, int F) {
  inputs_ready();
  const int side = G / F, token = blockIdx.x;
  const int ox = token % side, oy = token / side % side, view = token / (side * side);
  const float scale = inverse_scale<Out>(out_scale), part = 1.0f / (F * F);
  for (int c = threadIdx.x * 8; c < D; c += blockDim.x * 8) {
    float sum[8] = {};
    for (int y = 0; y < F; ++y)
      for (int dx = 0; dx < F; ++dx) {
        float v[8];
        load8(x + ((size_t(view) * G + oy * F + y) * G + ox * F + dx) * D + c, v);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[i] += v[i];
      }
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] *= part;
    store8(out + size_t(token) * D + c, sum, scale);
  }
}

template <class T, class Out>
int avg_pool(const T* x, Out* out, const float* out_scale, int V, int G, int D, int F, cudaStream_t stream) {
  const Grid grid{dim3(V * (G / F) * (G / F)), dim3(tuning::elementwise_threads)};
  return launch("avg_pool", avg_pool_kernel<T, Out>, grid, stream, x, out, out_scale, G, D, F);
}

}  // namespace frt
