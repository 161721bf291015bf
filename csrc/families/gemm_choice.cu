// The library's algorithm for a GEMM shape as bytes, so that a tuned choice can be kept on disk and taken again.
#include <cstring>

#include "../gemm/lt_plan.h"

namespace {

// The library's plan of a shape, null when something else runs it.
frt::LtPlan* library_plan(frt::GemmArgs& g, int M, int N, int K, int epilogue, int a_dtype, int res_dtype, int out_dtype) {
  const char* route = frt_gemm_route(M, N, K, epilogue, a_dtype, res_dtype, out_dtype);
  if (strncmp(route, "cublasLt", 8) != 0) return nullptr;
  g.M = M, g.N = N, g.K = K, g.epilogue = epilogue, g.a_dtype = a_dtype, g.res_dtype = res_dtype, g.out_dtype = out_dtype;
  return frt::lt_plan(frt::Check("gemm", "M=%d, N=%d, K=%d, epilogue=%d", M, N, K, epilogue), g);
}

}  // namespace

extern "C" size_t frt_gemm_choice(int M, int N, int K, int epilogue, int a_dtype, int res_dtype, int out_dtype, void* choice,
                                  size_t room) {
  frt::GemmArgs g{};
  const frt::LtPlan* plan = library_plan(g, M, N, K, epilogue, a_dtype, res_dtype, out_dtype);
  if (!plan || room < sizeof plan->algo) return 0;
  memcpy(choice, &plan->algo, sizeof plan->algo);  // documented as plain data for one version of the library
  return sizeof plan->algo;
}

extern "C" int frt_gemm_choose(int M, int N, int K, int epilogue, int a_dtype, int res_dtype, int out_dtype,
                               const void* choice, size_t bytes) {
  frt::GemmArgs g{};
  frt::LtPlan* plan = library_plan(g, M, N, K, epilogue, a_dtype, res_dtype, out_dtype);
  if (!plan || bytes != sizeof plan->algo) return 0;
  cublasLtMatmulAlgo_t algo;
  memcpy(&algo, choice, sizeof algo);
  cublasLtMatmulHeuristicResult_t found{};
  const cublasStatus_t s =
      cublasLtMatmulAlgoCheck(frt::context().blas, plan->desc, plan->w, plan->a, plan->c, plan->d, &algo, &found);
  if (s != CUBLAS_STATUS_SUCCESS || found.state != CUBLAS_STATUS_SUCCESS || found.workspaceSize > frt::BLAS_WORKSPACE) return 0;
  plan->algo = algo;
  plan->tuned = true;
  return 1;
}

extern "C" size_t frt_blas_version(void) { return cublasLtGetVersion(); }
