// attention: BF16 tensor cores for head sizes up to 80 and for 256, with a kernel each for the vision tower's, the prefix's and the
// action expert's shapes; the plain kernel for everything else.
#include "../core/context.h"
#include "../ops/attention_mma.cuh"
#include "../ops/attention_rows.cuh"
#include "../ops/attention_wgmma.cuh"
#include "../ops/attention_tower.cuh"

namespace {

// Tensor cores round the weights to BF16, so only outputs that are rounded as much take that path.
bool on_tensor_cores(int HD, int dtype, int out_dtype) {
  return dtype == frt::BF16 && (out_dtype == frt::BF16 || out_dtype == frt::E4M3) && (HD <= 80 || HD == 256);
}

enum class Kernel { TOWER, WGMMA, ROWS, SPLIT };

Kernel kernel_of(const frt::AttentionArgs& a) {
  const int sm = frt::context().sm;
  if (frt::tower_takes(a, sm)) return Kernel::TOWER;
  if (frt::wgmma_takes(a, sm)) return Kernel::WGMMA;
  return frt::attention_rows_takes(a, sm) ? Kernel::ROWS : Kernel::SPLIT;
}

template <class Out>
int run_mma(const frt::Check& c, const frt::AttentionArgs& a, const void* q, const void* k, const void* v, Out* out,
            cudaStream_t stream) {
  using frt::bf16;
  const auto *qs = static_cast<const bf16*>(q), *ks = static_cast<const bf16*>(k), *vs = static_cast<const bf16*>(v);
  const Kernel kernel = kernel_of(a);
  if (kernel == Kernel::TOWER) return frt::attention_tower(c, a, qs, ks, vs, out, stream);
  if (kernel == Kernel::WGMMA) return frt::attention_wgmma(c, a, qs, ks, vs, out, stream);
  if (kernel == Kernel::ROWS) return frt::attention_rows(c, a, qs, ks, vs, out, stream);
  const auto split = frt::attention_split(a.B, a.M, a.KV, a.H, a.KVH, a.HD, frt::context().sm_count);
  auto* parts = static_cast<float*>(split.scratch ? frt::scratch(c, split.scratch) : nullptr);
  if (split.scratch && !parts) return FRT_BAD_ARGUMENT;
  auto call = [&](auto f) { return f(a, qs, ks, vs, out, parts, split, stream); };
  if (a.HD <= 16) return call(frt::attention_mma<16, Out>);
  if (a.HD <= 32) return call(frt::attention_mma<32, Out>);
  if (a.HD <= 64) return call(frt::attention_mma<64, Out>);
  if (a.HD <= 80) return call(frt::attention_mma<80, Out>);
  return call(frt::attention_mma<256, Out>);
}

}  // namespace

extern "C" size_t frt_attention_scratch(int B, int M, int KV, int H, int KVH, int HD, int dtype, int out_dtype) {
  if (!on_tensor_cores(HD, dtype, out_dtype)) return 0;
  return frt::attention_split(B, M, KV, H, KVH, HD, frt::context().sm_count).scratch;
}

extern "C" int frt_attention(const void* q, const void* k, const void* v, const int32_t* kv_len, void* out,
                             const float* out_scale, int B, int M, int KV, int kv_extra, int H, int KVH, int HD,
                             int q_stride, int kv_stride, float scale, int dtype, int out_dtype, cudaStream_t stream) {
  frt::Check c("attention", "B=%d, M=%d, KV=%d, kv_extra=%d, H=%d, KVH=%d, HD=%d, q_stride=%d, kv_stride=%d, dtype=%s",
               B, M, KV, kv_extra, H, KVH, HD, q_stride, kv_stride, frt::name_of(dtype));
  c.range("B", B, 1, 64);
  c.range("M", M, 1, 1 << 16);
  c.range("KV", KV, 1, 1 << 16);
  c.range("kv_extra", kv_extra, 0, 1 << 16);
  c.range("H", H, 1, 256);
  c.range("KVH", KVH, 1, 256);
  c.range("HD", HD, 8, 512, 8);
  c.range("q_stride", q_stride, 8, 1 << 20, 8);
  c.range("kv_stride", kv_stride, 8, 1 << 20, 8);
  c.real("scale", scale, 0, 1e3f);
  c.code("dtype", dtype, frt::FLOATS);
  c.code("out_dtype", out_dtype, frt::ACTS);
  c.rule("H", H, KVH > 0 && H % KVH == 0, "must be a multiple of KVH");
  c.rule("q_stride", q_stride, q_stride >= H * HD, "must be at least H*HD");
  c.rule("kv_stride", kv_stride, kv_stride >= KVH * HD, "must be at least KVH*HD");
  c.rule("kv_extra", kv_extra, kv_extra <= KV, "must be at most KV");
  c.ptr("q", q);
  c.ptr("k", k);
  c.ptr("v", v);
  c.ptr("kv_len", kv_len, false, 4);
  c.ptr("out", out);
  c.ptr("out_scale", out_scale, out_dtype == frt::E4M3, 4);
  if (c.rc) return c.rc;
  const frt::AttentionArgs a{kv_len, out_scale, B, M, KV, kv_extra, H, KVH, HD, q_stride, kv_stride, scale};
  if (on_tensor_cores(HD, dtype, out_dtype)) {
    if (out_dtype == frt::BF16) return run_mma(c, a, q, k, v, static_cast<frt::bf16*>(out), stream);
    return run_mma(c, a, q, k, v, static_cast<frt::e4m3*>(out), stream);
  }
  return frt::by_wide(c, "dtype", dtype, [&](auto in) {
    using T = typename decltype(in)::type;
    return frt::by_act(c, "out_dtype", out_dtype, [&](auto to) {
      return frt::attention_plain(a, static_cast<const T*>(q), static_cast<const T*>(k), static_cast<const T*>(v),
                                  static_cast<typename decltype(to)::type*>(out), stream);
    });
  });
}
