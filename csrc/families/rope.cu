// qkv_rope.
#include "../ops/qkv_rope.cuh"

extern "C" int frt_qkv_rope(const void* qkv, const float* rope, const int32_t* pos0, void* q, void* k, void* v, int M,
                            int H, int KVH, int HD, int rows, int dtype, cudaStream_t stream) {
  frt::Check c("qkv_rope", "M=%d, H=%d, KVH=%d, HD=%d, rows=%d, dtype=%s", M, H, KVH, HD, rows, frt::name_of(dtype));
  c.range("M", M, 1, 1 << 16);
  c.range("H", H, 0, 256);
  c.range("KVH", KVH, 1, 256);
  c.range("HD", HD, 8, 1024, 8);
  c.range("rows", rows, 1, 1 << 20);
  c.code("dtype", dtype, frt::FLOATS);
  c.rule("rows", rows, rows >= M, "must hold the M rows");
  c.ptr("qkv", qkv);
  c.ptr("rope", rope);
  c.ptr("pos0", pos0, false, 4);
  c.ptr("q", q, H > 0);
  c.ptr("k", k);
  c.ptr("v", v);
  if (c.rc) return c.rc;
  return frt::by_wide(c, "dtype", dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return frt::qkv_rope(static_cast<const T*>(qkv), rope, pos0, static_cast<T*>(q), static_cast<T*>(k),
                         static_cast<T*>(v), M, H, KVH, HD, rows, stream);
  });
}
