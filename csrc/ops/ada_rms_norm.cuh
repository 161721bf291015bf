// out[m,:] = rms(x[m,:]) * (1 + style[0,:]) + style[1,:]   x, out: [M,D] row-major, style: [3,D] fp32 (scale, shift, gate)
#pragma once
#include "rms_norm.cuh"

namespace frt {

template <class T, class Out>
__global__ void ada_rms_norm_kernel(const T* x, const float* style, Out* out, const float* out_scale, int D,
                                    float eps) {
  inputs_ready();
  const Row<T> row(x, D);
  const float inverse = inverse_rms(row, D, eps), scale = inverse_scale<Out>(out_scale);
  row.each([&](const float(&v)[8], int c) {
    float factor[8], shift[8], y[8];
    load8(style + c, factor);
    load8(style + D + c, shift);
#pragma unroll
    for (int i = 0; i < 8; ++i) y[i] = v[i] * inverse * (1.0f + factor[i]) + shift[i];
    store8(out + size_t(blockIdx.x) * D + c, y, scale);
  });
}

template <class T, class Out>
int ada_rms_norm(const T* x, const float* style, Out* out, const float* out_scale, int M, int D, float eps,
                 cudaStream_t stream) {
  return launch("ada_rms_norm", ada_rms_norm_kernel<T, Out>, row_grid(M, D), stream, x, style, out, out_scale, D, eps);
}

}  // namespace frt
