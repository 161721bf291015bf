// layer_norm, rms_norm, ada_rms_norm.
#include "../ops/ada_rms_norm.cuh"
#include "../ops/layer_norm.cuh"

namespace {

frt::Check check_norm(const char* op, const void* x, const void* out, const float* out_scale, int M, int D, float eps,
                      int x_dtype, int out_dtype) {
  frt::Check c(op, "M=%d, D=%d, x_dtype=%s, out_dtype=%s", M, D, frt::name_of(x_dtype), frt::name_of(out_dtype));
  c.range("M", M, 1, 1 << 20);
  c.range("D", D, 8, 1 << 16, 8);
  c.real("eps", eps, 0, 1);
  c.code("x_dtype", x_dtype, frt::FLOATS);
  c.code("out_dtype", out_dtype, frt::ACTS);
  c.ptr("x", x);
  c.ptr("out", out);
  c.ptr("out_scale", out_scale, out_dtype == frt::E4M3, 4);
  return c;
}

// f(const T* x, Out* out) for the two dtypes.
template <class F>
int typed(frt::Check& c, const void* x, void* out, int x_dtype, int out_dtype, F&& f) {
  if (c.rc) return c.rc;
  return frt::by_wide(c, "x_dtype", x_dtype, [&](auto in) {
    return frt::by_act(c, "out_dtype", out_dtype, [&](auto to) {
      return f(static_cast<const typename decltype(in)::type*>(x), static_cast<typename decltype(to)::type*>(out));
    });
  });
}

}  // namespace

extern "C" int frt_layer_norm(const void* x, const float* w, const float* b, void* out, const float* out_scale, int M,
                              int D, float eps, int x_dtype, int out_dtype, cudaStream_t stream) {
  frt::Check c = check_norm("layer_norm", x, out, out_scale, M, D, eps, x_dtype, out_dtype);
  c.ptr("w", w);
  c.ptr("b", b);
  return typed(c, x, out, x_dtype, out_dtype,
               [&](auto* in, auto* to) { return frt::layer_norm(in, w, b, to, out_scale, M, D, eps, stream); });
}

extern "C" int frt_rms_norm(const void* x, void* out, const float* out_scale, int M, int D, float eps, int x_dtype,
                            int out_dtype, cudaStream_t stream) {
  frt::Check c = check_norm("rms_norm", x, out, out_scale, M, D, eps, x_dtype, out_dtype);
  return typed(c, x, out, x_dtype, out_dtype,
               [&](auto* in, auto* to) { return frt::rms_norm(in, to, out_scale, M, D, eps, stream); });
}

extern "C" int frt_ada_rms_norm(const void* x, const float* style, void* out, const float* out_scale, int M, int D,
                                float eps, int x_dtype, int out_dtype, cudaStream_t stream) {
  frt::Check c = check_norm("ada_rms_norm", x, out, out_scale, M, D, eps, x_dtype, out_dtype);
  c.ptr("style", style);
  return typed(c, x, out, x_dtype, out_dtype,
               [&](auto* in, auto* to) { return frt::ada_rms_norm(in, style, to, out_scale, M, D, eps, stream); });
}
