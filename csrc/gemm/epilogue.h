// Epilogue codes of the gemm op (flashrt_core/ops/table.py Epilogue) and what each of them reads.
#pragma once
#ifdef __CUDACC__
#define FRT_BOTH __host__ __device__
#else
#define FRT_BOTH
#endif

namespace frt {

enum Epilogue : int { NONE = 0, BIAS = 1, BIAS_GELU = 2, RESIDUAL = 3, BIAS_RESIDUAL = 4, GATE_RESIDUAL = 5, GEGLU = 6 };

FRT_BOTH constexpr bool uses_bias(int e) { return e == BIAS || e == BIAS_GELU || e == BIAS_RESIDUAL; }
FRT_BOTH constexpr bool uses_res(int e) { return e == RESIDUAL || e == BIAS_RESIDUAL || e == GATE_RESIDUAL; }

struct GemmArgs {
  const void *a, *w;
  const float* bias;
  const void* res;
  const float* gate;
  void* out;
  const float *a_scale, *w_scale, *out_scale;
  int M, N, K, epilogue, a_dtype, res_dtype, out_dtype;
  FRT_BOTH int columns() const { return epilogue == GEGLU ? 2 * N : N; }  // of the accumulator
};

}  // namespace frt
