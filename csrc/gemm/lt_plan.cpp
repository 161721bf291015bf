// Setting up, running and timing cuBLASLt calls.
#include "lt_plan.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

namespace frt {

namespace {

using Key = std::tuple<int, int, int, int, int, int, int, int>;
std::map<Key, std::unique_ptr<LtPlan>> plans;
std::mutex guard;

cudaDataType_t cuda_type(int code) {
  return code == BF16 ? CUDA_R_16BF : code == E4M3 ? CUDA_R_8F_E4M3 : CUDA_R_32F;
}

int blas_failed(const Check& c, const char* call, cublasStatus_t s) {
  return fail(FRT_BLAS, c.op, call, cublasLtGetStatusName(s), cublasLtGetStatusString(s), c.shape());
}

template <class T>
void set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t what, const T& value) {
  cublasLtMatmulDescSetAttribute(desc, what, &value, sizeof value);
}

// Candidate algorithms for a plan, best first.
std::vector<cublasLtMatmulHeuristicResult_t> candidates(const LtPlan& p, int count) {
  cublasLtMatmulPreference_t preference;
  cublasLtMatmulPreferenceCreate(&preference);
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &BLAS_WORKSPACE,
                                       sizeof BLAS_WORKSPACE);
  std::vector<cublasLtMatmulHeuristicResult_t> found(count);
  int n = 0;
  const cublasStatus_t s = cublasLtMatmulAlgoGetHeuristic(context().blas, p.desc, p.w, p.a, p.c, p.d, preference,
                                                          count, found.data(), &n);
  cublasLtMatmulPreferenceDestroy(preference);
  found.resize(s == CUBLAS_STATUS_SUCCESS ? n : 0);
  return found;
}

// Descriptors for one way of running `g`; false when the library has no algorithm for it.
bool set_up(LtPlan& p, const GemmArgs& g, Route route, int d_dtype) {
  const int C = g.columns();
  p.route = route;
  cublasLtMatmulDescCreate(&p.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);  // fp32 products of fp32: no TF32
  set(p.desc, CUBLASLT_MATMUL_DESC_TRANSA, int32_t(CUBLAS_OP_T));
  set(p.desc, CUBLASLT_MATMUL_DESC_TRANSB, int32_t(CUBLAS_OP_N));
  const void* some = &p;  // any non-null address: the real ones are set at each call
  if (g.a_dtype == E4M3) {
    set(p.desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, some);
    set(p.desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, some);
  }
  if (route == Route::FUSED && uses_bias(g.epilogue)) {
    set(p.desc, CUBLASLT_MATMUL_DESC_EPILOGUE,
        g.epilogue == BIAS_GELU ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS);
    set(p.desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32_t(CUDA_R_32F));
    set(p.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, some);
  }
  cublasLtMatrixLayoutCreate(&p.w, cuda_type(g.a_dtype), g.K, C, g.K);
  cublasLtMatrixLayoutCreate(&p.a, cuda_type(g.a_dtype), g.K, g.M, g.K);
  cublasLtMatrixLayoutCreate(&p.c, cuda_type(d_dtype), C, g.M, C);
  cublasLtMatrixLayoutCreate(&p.d, cuda_type(d_dtype), C, g.M, C);
  const auto found = candidates(p, 1);
  if (found.empty()) return false;
  p.algo = found[0].algo;
  return true;
}

// Whether the library's own epilogues give the whole op: no gate, no GEGLU, no quantised output.
bool fusable(const GemmArgs& g) {
  if (g.epilogue == GATE_RESIDUAL || g.epilogue == GEGLU || g.out_dtype == E4M3) return false;
  return !uses_res(g.epilogue) || g.res_dtype == g.out_dtype;
}

}  // namespace

LtPlan::~LtPlan() {
  if (desc) cublasLtMatmulDescDestroy(desc);
  for (cublasLtMatrixLayout_t layout : {w, a, c, d})
    if (layout) cublasLtMatrixLayoutDestroy(layout);
}

LtPlan* lt_plan(const Check& c, const GemmArgs& g) {
  if (!context().blas) {
    fail(FRT_BAD_ARGUMENT, c.op, "handle", "0", "call frt_prepare before the first gemm", c.shape());
    return nullptr;
  }
  int device = 0;
  cudaGetDevice(&device);
  const int res = uses_res(g.epilogue) ? g.res_dtype : -1;
  std::lock_guard<std::mutex> lock(guard);
  auto& slot = plans[{device, g.M, g.N, g.K, g.epilogue, g.a_dtype, res, g.out_dtype}];
  if (slot) return slot.get();
  if (fusable(g)) {
    slot = std::make_unique<LtPlan>();
    if (set_up(*slot, g, Route::FUSED, g.out_dtype)) return slot.get();
  }
  // fp32 products where they are cheap or asked for; BF16 ones where M is large (what a BF16 framework would hold)
  const int acc = g.a_dtype == F32 || g.out_dtype == F32 || g.M <= 64 ? F32 : BF16;
  slot = std::make_unique<LtPlan>();
  if (!set_up(*slot, g, Route::LT_RAW, acc)) {
    slot = std::make_unique<LtPlan>();
    slot->route = Route::PLAIN;
  }
  slot->acc_dtype = slot->route == Route::PLAIN ? F32 : acc;
  slot->scratch = size_t(g.M) * g.columns() * bytes_of(slot->acc_dtype);
  return slot.get();
}

int lt_run(const Check& c, LtPlan& p, const GemmArgs& g, void* d_out, const void* c_in, cudaStream_t stream,
           const cublasLtMatmulAlgo_t* algo) {
  std::lock_guard<std::mutex> lock(guard);  // the descriptor is shared by calls of one shape
  if (g.a_dtype == E4M3) {
    set(p.desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, g.w_scale);
    set(p.desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, g.a_scale);
  }
  if (p.route == Route::FUSED && uses_bias(g.epilogue)) set(p.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias);
  const float one = 1.0f, beta = c_in ? 1.0f : 0.0f;
  const Context& shared = context();
  const cublasStatus_t s =
      cublasLtMatmul(shared.blas, p.desc, &one, g.w, p.w, g.a, p.a, &beta, c_in ? c_in : d_out, p.c, d_out, p.d,
                     algo ? algo : &p.algo, shared.blas_workspace, BLAS_WORKSPACE, stream);
  return s == CUBLAS_STATUS_SUCCESS ? FRT_OK : blas_failed(c, "cublasLtMatmul", s);
}

int lt_tune(const Check& c, LtPlan& p, const GemmArgs& g, int count, cudaStream_t stream) {
  if (p.route == Route::PLAIN || p.tuned || count < 2) return FRT_OK;
  const size_t bytes = size_t(g.M) * g.columns() * 4;
  void* out = scratch(c, bytes);  // never the real output: an in-place residual would be added again and again
  if (!out) return FRT_BAD_ARGUMENT;
  const void* c_in = p.route == Route::FUSED && uses_res(g.epilogue) ? out : nullptr;
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  float best = 0;
  for (const auto& candidate : candidates(p, count)) {
    constexpr int ROUNDS = 5, CALLS = 8;
    std::vector<float> times;
    for (int round = 0; round <= ROUNDS; ++round) {  // the first is the warm-up
      cudaEventRecord(begin, stream);
      for (int i = 0; i < CALLS; ++i)
        if (lt_run(c, p, g, out, c_in, stream, &candidate.algo)) break;
      cudaEventRecord(end, stream);
      if (cudaEventSynchronize(end) != cudaSuccess) break;
      float ms = 0;
      cudaEventElapsedTime(&ms, begin, end);
      if (round) times.push_back(ms);
    }
    if (times.empty()) continue;
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    const float median = times[times.size() / 2];
    if (best == 0 || median < best * 0.98f) {  // a tie keeps the library's own order
      best = median;
      p.algo = candidate.algo;
    }
  }
  p.tuned = true;
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return FRT_OK;
}

}  // namespace frt
