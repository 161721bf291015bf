// gemm: our own kernels with every epilogue fused, for few rows and, on SM90, for many; what they do not take by cuBLASLt with
// its epilogues where it has them, else the raw product and one epilogue kernel.
#include "../gemm/lt_plan.h"
#include "../gemm/tiles.h"
#include "../ops/gemm_epilogue.cuh"
#include "../ops/gemm_plain.cuh"
#include "../ops/gemm_rows.cuh"
#include "../ops/gemm_skinny.cuh"
#include "../tuning/gemm_tiles.h"

namespace {

using frt::GemmArgs;

frt::Check check(const GemmArgs& g) {
  frt::Check c("gemm", "M=%d, N=%d, K=%d, epilogue=%d, a_dtype=%s, res_dtype=%s, out_dtype=%s", g.M, g.N, g.K,
               g.epilogue, frt::name_of(g.a_dtype), frt::name_of(g.res_dtype), frt::name_of(g.out_dtype));
  const bool quantised = g.a_dtype == frt::E4M3;
  c.range("M", g.M, 1, 1 << 20);
  c.range("N", g.N, 8, 1 << 20, 8);
  c.range("K", g.K, 16, 1 << 20, 16);
  c.range("epilogue", g.epilogue, 0, frt::GEGLU);
  c.code("a_dtype", g.a_dtype, frt::ACTS);
  c.code("res_dtype", g.res_dtype, frt::FLOATS);
  c.code("out_dtype", g.out_dtype, frt::ACTS);
  c.ptr("a", g.a);
  c.ptr("w", g.w);
  c.ptr("bias", g.bias, frt::uses_bias(g.epilogue));
  c.ptr("res", g.res, frt::uses_res(g.epilogue));
  c.ptr("gate", g.gate, g.epilogue == frt::GATE_RESIDUAL);
  c.ptr("out", g.out);
  c.ptr("a_scale", g.a_scale, quantised, 16);  // cuBLASLt's rule
  c.ptr("w_scale", g.w_scale, quantised, 16);
  c.ptr("out_scale", g.out_scale, g.out_dtype == frt::E4M3, 4);
  if (c.rc) return c;
  if (g.a_dtype == frt::F16) c.not_built("a_dtype", g.a_dtype);
  if (!c.rc && g.out_dtype == frt::F16) c.not_built("out_dtype", g.out_dtype);
  if (!c.rc && frt::uses_res(g.epilogue) && g.res_dtype == frt::F16) c.not_built("res_dtype", g.res_dtype);
  return c;
}

int finish(frt::Check& c, const GemmArgs& g, int acc_dtype, const void* acc, cudaStream_t stream) {
  const int res = frt::uses_res(g.epilogue) ? g.res_dtype : int(frt::F32);
  return frt::by_wide(c, "acc", acc_dtype, [&](auto from) {
    return frt::by_wide(c, "res_dtype", res, [&](auto add) {
      return frt::by_act(c, "out_dtype", g.out_dtype, [&](auto to) {
        using Acc = typename decltype(from)::type;
        return frt::gemm_epilogue<Acc, typename decltype(add)::type, typename decltype(to)::type>(
            g, static_cast<const Acc*>(acc), stream);
      });
    });
  });
}

int skinny(frt::Check& c, const GemmArgs& g, cudaStream_t stream) {
  return frt::by_act(c, "out_dtype", g.out_dtype, [&](auto to) {
    using Out = typename decltype(to)::type;
    return g.a_dtype == frt::E4M3 ? frt::gemm_skinny<frt::e4m3, Out>(g, stream)
                                  : frt::gemm_skinny<frt::bf16, Out>(g, stream);
  });
}

bool ours(const GemmArgs& g) {
  return frt::rows_take(g, frt::context().sm) || frt::skinny_fits(g, frt::context().sm) || frt::tile_of(g) >= 0;
}

int run_rows(frt::Check& c, const GemmArgs& g, cudaStream_t stream) {
  if (g.a_dtype == frt::BF16) return frt::gemm_rows_geglu<frt::bf16, frt::bf16>(c, g, stream);
  return g.out_dtype == frt::BF16 ? frt::gemm_rows_geglu<frt::e4m3, frt::bf16>(c, g, stream)
                                  : frt::gemm_rows_geglu<frt::e4m3, frt::e4m3>(c, g, stream);
}

int run(const GemmArgs& g, cudaStream_t stream) {
  frt::Check c = check(g);
  if (c.rc) return c.rc;
  if (frt::rows_take(g, frt::context().sm)) return run_rows(c, g, stream);
  if (frt::skinny_fits(g, frt::context().sm)) return skinny(c, g, stream);
  if (const int tile = frt::tile_of(g); tile >= 0) return frt::run_tile(c, g, tile, stream);
  frt::LtPlan* plan = frt::lt_plan(c, g);
  if (!plan) return FRT_BAD_ARGUMENT;
  if (plan->route == frt::Route::FUSED)
    return frt::lt_run(c, *plan, g, g.out, frt::uses_res(g.epilogue) ? g.res : nullptr, stream);
  void* acc = frt::scratch(c, plan->scratch);
  if (!acc) return FRT_BAD_ARGUMENT;
  int rc;
  if (plan->route == frt::Route::LT_RAW)
    rc = frt::lt_run(c, *plan, g, acc, nullptr, stream);
  else
    rc = frt::by_act(c, "a_dtype", g.a_dtype, [&](auto tag) {
      return frt::gemm_plain<typename decltype(tag)::type>(g, static_cast<float*>(acc), stream);
    });
  return rc ? rc : finish(c, g, plan->acc_dtype, acc, stream);
}

GemmArgs shape_of(int M, int N, int K, int epilogue, int a_dtype, int res_dtype, int out_dtype) {
  GemmArgs g{};
  g.M = M, g.N = N, g.K = K, g.epilogue = epilogue, g.a_dtype = a_dtype, g.res_dtype = res_dtype;
  g.out_dtype = out_dtype;
  return g;
}

// The library's plan of a shape; null for one that it does not run.
frt::LtPlan* plan_of(const GemmArgs& g) {
  frt::Check c("gemm", "M=%d, N=%d, K=%d, epilogue=%d", g.M, g.N, g.K, g.epilogue);
  if (g.a_dtype == frt::F16 || g.out_dtype == frt::F16 || ours(g)) return nullptr;
  return frt::lt_plan(c, g);
}

}  // namespace

extern "C" int frt_gemm(const void* a, const void* w, const float* bias, const void* res, const float* gate, void* out,
                        const float* a_scale, const float* w_scale, const float* out_scale, int M, int N, int K,
                        int epilogue, int a_dtype, int res_dtype, int out_dtype, cudaStream_t stream) {
  return run({a, w, bias, res, gate, out, a_scale, w_scale, out_scale, M, N, K, epilogue, a_dtype, res_dtype,
              out_dtype},
             stream);
}

extern "C" int frt_gemm_tune(const void* a, const void* w, const float* bias, const void* res, const float* gate,
                             void* out, const float* a_scale, const float* w_scale, const float* out_scale, int M,
                             int N, int K, int epilogue, int a_dtype, int res_dtype, int out_dtype, int candidates,
                             cudaStream_t stream) {
  const GemmArgs g{a,       w,         bias,      res, gate, out, a_scale,  w_scale, out_scale,
                   M,       N,         K,         epilogue, a_dtype, res_dtype, out_dtype};
  frt::Check c = check(g);
  if (c.rc || ours(g)) return c.rc;
  frt::LtPlan* plan = frt::lt_plan(c, g);
  return plan ? frt::lt_tune(c, *plan, g, candidates, stream) : FRT_BAD_ARGUMENT;
}

extern "C" size_t frt_gemm_scratch(int M, int N, int K, int epilogue, int a_dtype, int res_dtype, int out_dtype) {
  frt::LtPlan* plan = plan_of(shape_of(M, N, K, epilogue, a_dtype, res_dtype, out_dtype));
  return plan ? plan->scratch : 0;
}

extern "C" const char* frt_gemm_route(int M, int N, int K, int epilogue, int a_dtype, int res_dtype, int out_dtype) {
  const GemmArgs g = shape_of(M, N, K, epilogue, a_dtype, res_dtype, out_dtype);
  if (frt::rows_take(g, frt::context().sm)) return "up to 64 rows, fused";
  if (frt::skinny_fits(g, frt::context().sm)) return "few rows, fused";
  if (const int tile = frt::tile_of(g); tile >= 0) {
    const frt::tuning::Tile& t = frt::tuning::gemm_tiles[tile];
    thread_local char words[48];
    snprintf(words, sizeof words, "tiles %dx%d, fused", t.groups * 64, t.columns);
    return words;
  }
  frt::LtPlan* plan = plan_of(g);
  if (!plan) return "none";
  if (plan->route == frt::Route::PLAIN) return "plain + epilogue";
  return plan->route == frt::Route::FUSED ? "cublasLt fused" : "cublasLt + epilogue";
}
