// out[m,:] = (x[m,:] - mean) / sqrt(var + eps) * w + b   x, out: [M,D] row-major, w, b: [D] fp32; statistics in fp32
#pragma once
#include "row.h"

namespace frt {

template <class T, class Out>
__global__ void layer_norm_kernel(const T* x, const float* w, const float* b, Out* out, const float* out_scale, int D,
                                  float eps) {
  inputs_ready();
  const Row<T> row(x + size_t(blockIdx.x) * D, D);
  float sum = 0;
  row.each([&](const float(&v)[8], int) {
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += v[i];
  });
  const float mean = block_sum(sum) / D;
  float squares = 0;
  row.each([&](const float(&v)[8], int) {
#pragma unroll
    for (int i = 0; i < 8; ++i) squares += (v[i] - mean) * (v[i] - mean);
  });
  const float inverse = rsqrtf(block_sum(squares) / D + eps);
  const float scale = inverse_scale<Out>(out_scale);
  row.each([&](const float(&v)[8], int c) {
    float wv[8], bv[8], y[8];
    load8(w + c, wv);
    load8(b + c, bv);
#pragma unroll
    for (int i = 0; i < 8; ++i) y[i] = (v[i] - mean) * inverse * wv[i] + bv[i];
    store8(out + size_t(blockIdx.x) * D + c, y, scale);
  });
}

template <class T, class Out>
int layer_norm(const T* x, const float* w, const float* b, Out* out, const float* out_scale, int M, int D, float eps,
               cudaStream_t stream) {
  return launch("layer_norm", layer_norm_kernel<T, Out>, row_grid(M, D), stream, x, w, b, out, out_scale, D, eps);
}

}  // namespace frt
