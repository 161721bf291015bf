// denoise_loop: the action expert's whole denoise loop, for the published sizes.
#include <cstring>
#include <utility>

#include "../core/context.h"
#include "../ops/denoise_loop.cuh"

namespace {

namespace dn = frt::denoise;

constexpr int PER_LAYER = 10;  // addresses of one layer in the table
static_assert(sizeof(dn::Layer) == PER_LAYER * sizeof(void*), "the table is copied as it is");

bool published_sizes(int D, int mlp, int H, int KVH, int HD, int A) {
  return D == dn::D && mlp == dn::MLP && H == dn::H && KVH == 1 && HD == dn::HD && A == dn::A;
}

// Blocks that are resident at once with this kernel's shared memory.
template <class T>
int resident(int cache_rows) {
  auto* kernel = dn::denoise_loop_kernel<T, dn::NoProbe>;
  const int keys = dn::keys_for(cache_rows);
  const size_t shared = dn::shared_bytes(keys, dn::slots_for(keys));
  int per_sm = 0;
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)) != cudaSuccess ||
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, kernel, dn::THREADS, shared) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return per_sm * frt::context().sm_count;
}

}  // namespace

extern "C" size_t frt_denoise_loop_scratch(void) { return dn::Exchange::BYTES; }

extern "C" int frt_denoise_loop_fits(int M, int L, int D, int mlp, int H, int KVH, int HD, int A, int cache_rows,
                                     int act_dtype) {
  if (!published_sizes(D, mlp, H, KVH, HD, A) || frt::context().sm < 90) return 0;
  if (M < 1 || M > dn::ROWS || L < 1 || L > dn::MAX_LAYERS) return 0;
  if (cache_rows < M || dn::keys_for(cache_rows) > dn::MAX_KEYS) return 0;
  if (act_dtype == frt::E4M3) return resident<frt::e4m3>(cache_rows) >= dn::BLOCKS;
  return act_dtype == frt::BF16 && resident<frt::bf16>(cache_rows) >= dn::BLOCKS;
}

extern "C" int frt_denoise_loop(const void* layers, const float* in_w, const float* in_b, const float* out_w,
                                const float* out_b, const float* styles, const float* shifts, const float* scales,
                                const float* rope, const int32_t* prefix_len, float* actions, int M, int L, int steps, int D,
                                int mlp, int H, int KVH, int HD, int A, int cache_rows, float eps, int act_dtype,
                                cudaStream_t stream) {
  frt::Check c("denoise_loop", "M=%d, L=%d, steps=%d, D=%d, mlp=%d, H=%d, KVH=%d, HD=%d, A=%d, cache_rows=%d, act_dtype=%s", M,
               L, steps, D, mlp, H, KVH, HD, A, cache_rows, frt::name_of(act_dtype));
  const bool quantised = act_dtype == frt::E4M3;
  c.range("M", M, 1, dn::ROWS);
  c.range("L", L, 1, dn::MAX_LAYERS);
  c.range("steps", steps, 1, 1000);
  c.rule("D", D, published_sizes(D, mlp, H, KVH, HD, A), "is compiled for D=1024, mlp=4096, H=8, KVH=1, HD=256, A=32 only");
  c.range("cache_rows", cache_rows, M, dn::MAX_KEYS * dn::SPLITS);
  c.real("eps", eps, 0, 1);
  c.code("act_dtype", act_dtype, 1u << frt::BF16 | 1u << frt::E4M3);
  c.ptr("layers", layers, true, 8);
  using Named = std::pair<const char*, const void*>;
  for (auto [name, p] : {Named{"in_w", in_w}, Named{"in_b", in_b}, Named{"out_w", out_w}, Named{"out_b", out_b},
                         Named{"styles", styles}, Named{"shifts", shifts}, Named{"rope", rope}, Named{"actions", actions}})
    c.ptr(name, p);
  c.ptr("scales", scales, quantised);
  c.ptr("prefix_len", prefix_len, true, 4);
  if (c.rc) return c.rc;
  dn::Args a{};
  memcpy(a.layers, layers, size_t(L) * sizeof(dn::Layer));
  for (int i = 0; i < L; ++i) {
    const dn::Layer& l = a.layers[i];
    for (const void* p : {l.qkv, l.o, l.gate_up, l.down, static_cast<const void*>(l.k), static_cast<const void*>(l.v)})
      c.ptr("layers", p);
    for (const float* p : {l.qkv_scale, l.o_scale, l.gate_up_scale, l.down_scale}) c.ptr("layers", p, quantised, 4);
  }
  if (c.rc) return c.rc;
  a.in_w = in_w, a.in_b = in_b, a.out_w = out_w, a.out_b = out_b;
  a.styles = styles, a.shifts = shifts, a.scales = scales, a.rope = rope;
  a.prefix_len = prefix_len, a.actions = actions, a.M = M, a.L = L, a.steps = steps, a.cache_rows = cache_rows, a.eps = eps;
  a.exchange = static_cast<char*>(frt::scratch(c, dn::Exchange::BYTES));
  if (!a.exchange) return FRT_BAD_ARGUMENT;
  if (frt::context().sm < 90) return c.not_built("act_dtype", act_dtype);
  if (quantised) return dn::denoise_loop<frt::e4m3>(a, dn::NoProbe{}, stream);
  return dn::denoise_loop<frt::bf16>(a, dn::NoProbe{}, stream);
}
