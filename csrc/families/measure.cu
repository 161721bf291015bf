// amax, column_sum, count_saturated: what calibration measures.
#include "../ops/column_sum.cuh"
#include "../ops/count_saturated.cuh"

namespace {
frt::Check check(const char* op, const void* x, const float* out, int n, int x_dtype) {
  frt::Check c(op, "n=%d, x_dtype=%s", n, frt::name_of(x_dtype));
  c.range("n", n, 1, 1 << 30);
  c.code("x_dtype", x_dtype, frt::FLOATS);
  c.ptr("x", x);
  c.ptr("out", out, true, 4);
  return c;
}
}  // namespace

extern "C" int frt_amax(const void* x, float* out, int n, int x_dtype, cudaStream_t stream) {
  frt::Check c = check("amax", x, out, n, x_dtype);
  if (c.rc) return c.rc;
  return frt::by_wide(c, "x_dtype", x_dtype, [&](auto tag) {
    return frt::amax(static_cast<const typename decltype(tag)::type*>(x), out, n, stream);
  });
}

extern "C" int frt_column_sum(const void* x, float* out, int M, int D, int x_dtype, cudaStream_t stream) {
  frt::Check c("column_sum", "M=%d, D=%d, x_dtype=%s", M, D, frt::name_of(x_dtype));
  c.range("M", M, 1, 1 << 20);
  c.range("D", D, 8, 1 << 16, 8);
  c.code("x_dtype", x_dtype, frt::FLOATS);
  c.ptr("x", x);
  c.ptr("out", out);
  if (c.rc) return c.rc;
  return frt::by_wide(c, "x_dtype", x_dtype, [&](auto tag) {
    return frt::column_sum(static_cast<const typename decltype(tag)::type*>(x), out, M, D, stream);
  });
}

extern "C" int frt_count_saturated(const void* x, const float* scale, float* out, int n, int x_dtype,
                                   cudaStream_t stream) {
  frt::Check c = check("count_saturated", x, out, n, x_dtype);
  c.ptr("scale", scale, true, 4);
  if (c.rc) return c.rc;
  return frt::by_wide(c, "x_dtype", x_dtype, [&](auto tag) {
    return frt::count_saturated(static_cast<const typename decltype(tag)::type*>(x), scale, out, n, stream);
  });
}
