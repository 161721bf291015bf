// patchify, embed_tokens, avg_pool: what turns inputs into token rows.
#include "../ops/avg_pool.cuh"
#include "../ops/embed_tokens.cuh"
#include "../ops/patchify.cuh"

using frt::name_of;

extern "C" int frt_patchify(const void* images, void* out, int V, int S, int P, int K, int in_dtype, int out_dtype,
                            cudaStream_t stream) {
  frt::Check c("patchify", "V=%d, S=%d, P=%d, K=%d, in_dtype=%s, out_dtype=%s", V, S, P, K, name_of(in_dtype),
               name_of(out_dtype));
  c.range("V", V, 1, 8);
  c.range("S", S, 1, 4096);
  c.range("P", P, 1, 64);
  c.range("K", K, 16, 1 << 16, 16);
  c.code("in_dtype", in_dtype, frt::mask({frt::U8, frt::F32}));
  c.code("out_dtype", out_dtype, frt::FLOATS);
  c.rule("S", S, P > 0 && S % P == 0, "must be a multiple of P");
  c.rule("K", K, K >= 3 * P * P, "must be at least 3*P*P");
  c.ptr("images", images, true, 1);
  c.rule("images", 0, in_dtype != frt::F32 || reinterpret_cast<uintptr_t>(images) % 4 == 0, "must be 4-byte aligned");
  c.ptr("out", out);
  if (c.rc) return c.rc;
  return frt::by_wide(c, "out_dtype", out_dtype, [&](auto to) {
    auto* o = static_cast<typename decltype(to)::type*>(out);
    if (in_dtype == frt::U8)
      return frt::patchify(static_cast<const unsigned char*>(images), o, V, S, P, K, stream);
    return frt::patchify(static_cast<const float*>(images), o, V, S, P, K, stream);
  });
}

extern "C" int frt_embed_tokens(const void* table, const int32_t* ids, void* out, int M, int D, int vocab, float scale,
                                int table_dtype, int out_dtype, cudaStream_t stream) {
  frt::Check c("embed_tokens", "M=%d, D=%d, vocab=%d, table_dtype=%s, out_dtype=%s", M, D, vocab, name_of(table_dtype),
               name_of(out_dtype));
  c.range("M", M, 1, 1 << 16);
  c.range("D", D, 8, 1 << 16, 8);
  c.range("vocab", vocab, 1, 1 << 20);
  c.real("scale", scale, -1e6f, 1e6f);
  c.code("table_dtype", table_dtype, frt::FLOATS);
  c.code("out_dtype", out_dtype, frt::FLOATS);
  c.ptr("table", table);
  c.ptr("ids", ids, true, 4);
  c.ptr("out", out);
  if (c.rc) return c.rc;
  return frt::by_wide(c, "table_dtype", table_dtype, [&](auto in) {
    return frt::by_wide(c, "out_dtype", out_dtype, [&](auto to) {
      return frt::embed_tokens(static_cast<const typename decltype(in)::type*>(table), ids,
                               static_cast<typename decltype(to)::type*>(out), M, D, vocab, scale, stream);
    });
  });
}

extern "C" int frt_avg_pool(const void* x, void* out, const float* out_scale, int V, int G, int D, int F, int x_dtype,
                            int out_dtype, cudaStream_t stream) {
  frt::Check c("avg_pool", "V=%d, G=%d, D=%d, F=%d, x_dtype=%s, out_dtype=%s", V, G, D, F, name_of(x_dtype),
               name_of(out_dtype));
  c.range("V", V, 1, 8);
  c.range("G", G, 1, 256);
  c.range("D", D, 8, 1 << 16, 8);
  c.range("F", F, 1, 4);
  c.code("x_dtype", x_dtype, frt::FLOATS);
  c.code("out_dtype", out_dtype, frt::ACTS);
  c.rule("F", F, F > 0 && G % F == 0, "must divide G");
  c.ptr("x", x);
  c.ptr("out", out);
  c.ptr("out_scale", out_scale, out_dtype == frt::E4M3, 4);
  if (c.rc) return c.rc;
  return frt::by_wide(c, "x_dtype", x_dtype, [&](auto in) {
    return frt::by_act(c, "out_dtype", out_dtype, [&](auto to) {
      return frt::avg_pool(static_cast<const typename decltype(in)::type*>(x),
                           static_cast<typename decltype(to)::type*>(out), out_scale, V, G, D, F, stream);
    });
  });
}
