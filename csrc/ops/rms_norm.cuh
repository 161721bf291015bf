// out[m,:] = x[m,:] * rsqrt(mean(x[m,:]^2) + eps)   x, out: [M,D] row-major; no weight, it is folded into the next GEMM
#pragma once
#include "row.h"

namespace frt {

template <class R>
__device__ float inverse_rms(const R& row, int D, float eps) {
  float squares = 0;
  row.each([&](const float(&v)[8], int) {
#pragma unroll
    for (int i = 0; i < 8; ++i) squares += v[i] * v[i];
  });
  return rsqrtf(R::sum(squares) / D + eps);
}

template <class R, class T, class Out>
__global__ void rms_norm_kernel(const T* x, Out* out, const float* out_scale, int M, int D, float eps) {
  inputs_ready();
  if (R::index() >= M) return;
  const R row(x, D);
  const float inverse = inverse_rms(row, D, eps), scale = inverse_scale<Out>(out_scale);
  row.each([&](const float(&v)[8], int c) {
    float y[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) y[i] = v[i] * inverse;
    store8(out + size_t(R::index()) * D + c, y, scale);
  });
}

template <class T, class Out>
int rms_norm(const T* x, Out* out, const float* out_scale, int M, int D, float eps, cudaStream_t stream) {
  if (by_warps(M, D))
    return launch("rms_norm", rms_norm_kernel<WarpRow<T, 8>, T, Out>, warp_row_grid(M), stream, x, out, out_scale, M, D, eps);
  return launch("rms_norm", rms_norm_kernel<Row<T>, T, Out>, row_grid(M, D), stream, x, out, out_scale, M, D, eps);
}

}  // namespace frt
