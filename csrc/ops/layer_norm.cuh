// out[m,:] = (x[m,:] - mean) / sqrt(var + eps) * w + b   x, out: [M,D] row-major, w, b: [D] fp32; statistics in fp32
#pragma once
#include "row.h"

namespace frt {

// Mean and 1 / standard deviation of a row.
template <class R>
__device__ float2 layer_statistics(const R& row, int D, float eps) {
  float sum = 0, squares = 0;
  row.each([&](const float(&v)[8], int) {
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += v[i];
  });
  const float mean = R::sum(sum) / D;
  row.each([&](const float(&v)[8], int) {
#pragma unroll
    for (int i = 0; i < 8; ++i) squares += (v[i] - mean) * (v[i] - mean);
  });
  return {mean, rsqrtf(R::sum(squares) / D + eps)};
}

template <class Out>
__device__ void store_normed(const float (&v)[8], const float (&w)[8], const float (&b)[8], float2 s, Out* to, float scale) {
  float y[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) y[i] = (v[i] - s.x) * s.y * w[i] + b[i];
  store8(to, y, scale);
}

template <class T, class Out>
__global__ void layer_norm_kernel(const T* x, const float* w, const float* b, Out* out, const float* out_scale, int D,
                                  float eps) {
  inputs_ready();
  const Row<T> row(x, D);
  const float2 s = layer_statistics(row, D, eps);
  const float scale = inverse_scale<Out>(out_scale);
  row.each([&](const float(&v)[8], int c) {
    float wv[8], bv[8];
    load8(w + c, wv);
    load8(b + c, bv);
    store_normed(v, wv, bv, s, out + size_t(row.index()) * D + c, scale);
  });
}

// A warp to a row; w and b are constant and need not wait for the kernel before.
template <int CHUNKS, class T, class Out>
__global__ void __launch_bounds__(128) layer_norm_warp_kernel(const T* x, const float* w, const float* b, Out* out,
                                                              const float* out_scale, int M, int D, float eps) {
  using R = WarpRow<T, CHUNKS>;
  float wv[CHUNKS][8], bv[CHUNKS][8];
  R::hold(w, D, wv);
  R::hold(b, D, bv);
  inputs_ready();
  if (R::index() >= M) return;
  const R row(x, D);
  const float2 s = layer_statistics(row, D, eps);
  const float scale = inverse_scale<Out>(out_scale);
  Out* to = out + size_t(R::index()) * D;
#pragma unroll
  for (int i = 0; i < CHUNKS; ++i)
    if (R::column(i) < D) store_normed(row.values[i], wv[i], bv[i], s, to + R::column(i), scale);
}

template <class T, class Out>
int layer_norm(const T* x, const float* w, const float* b, Out* out, const float* out_scale, int M, int D, float eps,
               cudaStream_t stream) {
  if (by_warps(M, D)) {
    auto* kernel = D <= 1280 ? layer_norm_warp_kernel<5, T, Out> : layer_norm_warp_kernel<8, T, Out>;
    return launch("layer_norm", kernel, warp_row_grid(M), stream, x, w, b, out, out_scale, M, D, eps);
  }
  return launch("layer_norm", layer_norm_kernel<T, Out>, row_grid(M, D), stream, x, w, b, out, out_scale, D, eps);
}

}  // namespace frt
