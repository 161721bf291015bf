// gemm_qkv_rope, gemm_gate_norm, action_step: the action expert's fused products for up to 64 rows, and what lies between its steps.
#include "../core/context.h"
#include "../ops/action_step.cuh"
#include "../ops/gemm_gate_norm.cuh"
#include "../ops/gemm_rows.cuh"

namespace {

using frt::bf16;
using frt::e4m3;
constexpr unsigned OPERANDS = 1u << frt::BF16 | 1u << frt::E4M3;

void check_product(frt::Check& c, const void* a, const void* w, const float* a_scale, const float* w_scale, int M, int K,
                   int a_dtype) {
  const bool quantised = a_dtype == frt::E4M3;
  c.range("M", M, 1, frt::rows::ROWS);
  c.range("K", K, 128, 1 << 16, 128);
  c.code("a_dtype", a_dtype, OPERANDS);
  c.ptr("a", a);
  c.ptr("w", w);
  c.ptr("a_scale", a_scale, quantised);
  c.ptr("w_scale", w_scale, quantised);
}

template <class T>
int gate_norm(frt::Check& c, const frt::rows::GateNormArgs& g, int normed_dtype, cudaStream_t stream) {
  return frt::by_act(c, "normed_dtype", normed_dtype, [&](auto to) {
    using Norm = typename decltype(to)::type;
    if (!frt::rows::rows_together<T, Norm>(g.N, g.K))
      return frt::fail(FRT_NOT_BUILT, c.op, "N", "", "its blocks wait for one another and do not all fit this GPU", c.shape());
    return frt::rows::gemm_gate_norm<T, Norm>(c, g, stream);
  });
}

template <class T>
bool together(int D, int mlp, int q) {
  return frt::rows::rows_together<T, T>(D, mlp) && frt::rows::rows_together<T, T>(D, q) && frt::rows::rows_together<T, float>(D, mlp);
}

}  // namespace

extern "C" int frt_gemm_qkv_rope(const void* a, const void* w, const float* rope, const int32_t* pos0, void* q, void* k, void* v,
                                 const float* a_scale, const float* w_scale, int M, int K, int H, int KVH, int HD, int rows,
                                 int a_dtype, cudaStream_t stream) {
  frt::Check c("gemm_qkv_rope", "M=%d, K=%d, H=%d, KVH=%d, HD=%d, rows=%d, a_dtype=%s", M, K, H, KVH, HD, rows,
               frt::name_of(a_dtype));
  c.range("H", H, 1, 256);
  c.range("KVH", KVH, 1, 256);
  c.range("HD", HD, 64, 1024, 64);
  c.range("rows", rows, 1, 1 << 20);
  check_product(c, a, w, a_scale, w_scale, M, K, a_dtype);
  c.rule("rows", rows, rows >= M, "must hold the M rows");
  c.ptr("rope", rope);
  c.ptr("pos0", pos0, false, 4);
  c.ptr("q", q);
  c.ptr("k", k);
  c.ptr("v", v);
  if (c.rc) return c.rc;
  if (frt::context().sm != 90) return c.not_built("a_dtype", a_dtype);
  auto run = [&](auto tag) {
    using T = typename decltype(tag)::type;
    const frt::rows::QkvRope<T> end{a_scale, w_scale, rope, pos0, static_cast<bf16*>(q), static_cast<bf16*>(k),
                                    static_cast<bf16*>(v), M, H, KVH, HD, rows, 0, 0};
    return frt::rows::gemm_rows<T>(c, a, w, end, M, (H + 2 * KVH) * HD, K, stream);
  };
  return a_dtype == frt::E4M3 ? run(frt::Tag<e4m3>{}) : run(frt::Tag<bf16>{});
}

extern "C" int frt_gemm_gate_norm(const void* a, const void* w, const void* res, const float* gate, void* out, const float* style,
                                  void* normed, const float* a_scale, const float* w_scale, const float* out_scale, int M, int N,
                                  int K, float eps, int a_dtype, int normed_dtype, cudaStream_t stream) {
  frt::Check c("gemm_gate_norm", "M=%d, N=%d, K=%d, a_dtype=%s, normed_dtype=%s", M, N, K, frt::name_of(a_dtype),
               frt::name_of(normed_dtype));
  c.range("N", N, 64, frt::rows::MAX_TILES * frt::rows::TILE, 64);
  c.range("K", K, 1024, 1 << 16, 128);  // a share of at least one piece for each block of a cluster
  check_product(c, a, w, a_scale, w_scale, M, K, a_dtype);
  c.real("eps", eps, 0, 1);
  c.code("normed_dtype", normed_dtype, OPERANDS | 1u << frt::F32);
  c.ptr("res", res);
  c.ptr("gate", gate);
  c.ptr("out", out);
  c.ptr("style", style);
  c.ptr("normed", normed);
  c.ptr("out_scale", out_scale, normed_dtype == frt::E4M3, 4);
  if (c.rc) return c.rc;
  if (frt::context().sm != 90) return c.not_built("a_dtype", a_dtype);
  const frt::rows::GateNormArgs g{a, w, static_cast<const bf16*>(res), gate, style, static_cast<bf16*>(out), normed, a_scale,
                                  w_scale, out_scale, M, N, K, eps};
  return a_dtype == frt::E4M3 ? gate_norm<e4m3>(c, g, normed_dtype, stream) : gate_norm<bf16>(c, g, normed_dtype, stream);
}

extern "C" int frt_action_step(const float* final, const float* out_w, const float* out_b, float* actions, const float* in_w,
                               const float* in_b, void* h, const float* style, void* normed, const float* out_scale, int M, int D,
                               int A, int leave, int enter, float eps, int normed_dtype, cudaStream_t stream) {
  using Args = frt::ActionStepArgs;
  frt::Check c("action_step", "M=%d, D=%d, A=%d, leave=%d, enter=%d, normed_dtype=%s", M, D, A, leave, enter,
               frt::name_of(normed_dtype));
  c.range("M", M, 1, 1 << 16);
  c.range("D", D, 8, Args::max_width, 8);
  c.range("A", A, 4, Args::max_actions, 4);
  c.range("leave", leave, 0, 1);
  c.range("enter", enter, 0, 1);
  c.real("eps", eps, 0, 1);
  c.code("normed_dtype", normed_dtype, OPERANDS | 1u << frt::F32);
  c.ptr("final", final, leave);
  c.ptr("out_w", out_w, leave);
  c.ptr("out_b", out_b, leave, 4);
  c.ptr("actions", actions);
  c.ptr("in_w", in_w, enter);
  c.ptr("in_b", in_b, enter);
  c.ptr("h", h, enter);
  c.ptr("style", style, enter);
  c.ptr("normed", normed, enter);
  c.ptr("out_scale", out_scale, enter && normed_dtype == frt::E4M3, 4);
  if (c.rc) return c.rc;
  const Args g{final, out_w, out_b, actions, in_w, in_b, static_cast<bf16*>(h), style, normed, out_scale, M, D, A, leave, enter, eps};
  return frt::by_act(c, "normed_dtype", normed_dtype,
                     [&](auto to) { return frt::action_step<typename decltype(to)::type>(g, stream); });
}

extern "C" int frt_expert_rows_fit(int M, int D, int mlp, int H, int KVH, int HD, int A, int act_dtype) {
  if (frt::context().sm != 90 || M < frt::tuning::gemm_rows.least_rows || M > frt::rows::ROWS || H < 1 || KVH < 1) return 0;
  if (D < 128 || D % 128 || D > frt::rows::MAX_TILES * frt::rows::TILE || HD < 64 || HD % 64) return 0;
  if (A < 4 || A % 4 || A > frt::ActionStepArgs::max_actions) return 0;
  if (mlp < 1024 || mlp % 128 || H * HD < 1024 || H * HD % 128) return 0;
  return act_dtype == frt::E4M3 ? together<e4m3>(D, mlp, H * HD) : act_dtype == frt::BF16 && together<bf16>(D, mlp, H * HD);
}
