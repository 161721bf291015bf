// out[m,n] = epilogue(acc[m,:])  acc: [M,C] fp32 or bf16 in scratch, C = N (GEGLU: 2N); see gemm/epilogue.h. What a GEMM library
// cannot fuse; 8 columns per thread.
#pragma once
#include "../core/launch.h"
#include "../gemm/epilogue.h"
#include "../tuning/norm.h"

namespace frt {

// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
__device__ __forceinline__ float gelu_tanh(float x) {
  return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

template <class Acc, class Res, class Out>
__global__ void gemm_epilogue_kernel(GemmArgs g, const Acc* acc) {
  inputs_ready();
  const int chunks = g.N / 8;
  const long i = long(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= long(g.M) * chunks) return;
  const int m = int(i / chunks), n = int(i % chunks) * 8;
  const size_t at = size_t(m) * g.N + n;
  float x[8], y[8];
  load8(acc + size_t(m) * g.columns() + n, x);
  if (uses_bias(g.epilogue)) {
    load8(g.bias + n, y);
#pragma unroll
    for (int j = 0; j < 8; ++j) x[j] += y[j];
  }
  if (g.epilogue == BIAS_GELU) {
#pragma unroll
    for (int j = 0; j < 8; ++j) x[j] = gelu_tanh(x[j]);
  }
  if (g.epilogue == GATE_RESIDUAL) {
    load8(g.gate + n, y);
#pragma unroll
    for (int j = 0; j < 8; ++j) x[j] *= y[j];
  }
  if (uses_res(g.epilogue)) {
    load8(static_cast<const Res*>(g.res) + at, y);
#pragma unroll
    for (int j = 0; j < 8; ++j) x[j] += y[j];
  }
  if (g.epilogue == GEGLU) {
    load8(acc + size_t(m) * g.columns() + g.N + n, y);
#pragma unroll
    for (int j = 0; j < 8; ++j) x[j] = gelu_tanh(x[j]) * y[j];
  }
  store8(static_cast<Out*>(g.out) + at, x, inverse_scale<Out>(g.out_scale));
}

template <class Acc, class Res, class Out>
int gemm_epilogue(const GemmArgs& g, const Acc* acc, cudaStream_t stream) {
  const Grid grid{dim3(divide_up(long(g.M) * (g.N / 8), tuning::elementwise_threads)),
                  dim3(tuning::elementwise_threads)};
  return launch("gemm", gemm_epilogue_kernel<Acc, Res, Out>, grid, stream, g, acc);
}

}  // namespace frt
