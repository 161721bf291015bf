// The C ABI as a Python module: pointers and streams are ints, a failed call raises from flashrt_core.errors.
#include <pybind11/pybind11.h>

#include "flashrt_kernels.h"

namespace py = pybind11;

namespace {

[[noreturn]] void raise(int status) {
  const frt_error& e = *frt_last_error();
  const py::module_ errors = py::module_::import("flashrt_core.errors");
  py::object error;
  if (status == FRT_BAD_ARGUMENT)
    error = errors.attr("OpError")(e.op, e.arg, e.value, e.rule, e.shape);
  else
    error = errors.attr(status == FRT_NOT_BUILT ? "NotBuilt" : "DeviceError")(
        std::string(e.op) + " " + e.arg + " (" + e.shape + ")", py::arg("found") = std::string(e.value) + ": " + e.rule);
  PyErr_SetObject(py::type::of(error).ptr(), error.ptr());
  throw py::error_already_set();
}

template <class T>
struct Arg {
  using python = T;
  static T get(T v) { return v; }
};
template <class T>
struct Arg<T*> {
  using python = std::uint64_t;
  static T* get(std::uint64_t v) { return reinterpret_cast<T*>(v); }
};

template <class... A>
void op(py::module_& m, const char* name, int (*f)(A...)) {
  m.def(name, [f](typename Arg<A>::python... v) {
    if (int status = f(Arg<A>::get(v)...)) raise(status);
  });
}

}  // namespace

PYBIND11_MODULE(_kernels, m) {
  m.attr("archs") = frt_built_archs();
  op(m, "resize_pad", frt_resize_pad);
  op(m, "patchify", frt_patchify);
  op(m, "embed_tokens", frt_embed_tokens);
  op(m, "layer_norm", frt_layer_norm);
  op(m, "rms_norm", frt_rms_norm);
  op(m, "ada_rms_norm", frt_ada_rms_norm);
  op(m, "gemm", frt_gemm);
  op(m, "gemm_tune", frt_gemm_tune);
  op(m, "qkv_rope", frt_qkv_rope);
  op(m, "gemm_qkv_rope", frt_gemm_qkv_rope);
  op(m, "gemm_gate_norm", frt_gemm_gate_norm);
  op(m, "action_step", frt_action_step);
  op(m, "attention", frt_attention);
  op(m, "avg_pool", frt_avg_pool);
  op(m, "amax", frt_amax);
  op(m, "column_sum", frt_column_sum);
  op(m, "count_saturated", frt_count_saturated);
  op(m, "denoise_loop", frt_denoise_loop);
  op(m, "prepare", frt_prepare);
  op(m, "reserve", frt_reserve);
  m.def("reserved", frt_reserved);
  m.def("gemm_scratch", frt_gemm_scratch);
  m.def("gemm_route", frt_gemm_route);
  m.def("gemm_choice", [](int M, int N, int K, int epilogue, int a_dtype, int res_dtype, int out_dtype) {
    char choice[256];
    return py::bytes(choice, frt_gemm_choice(M, N, K, epilogue, a_dtype, res_dtype, out_dtype, choice, sizeof choice));
  });
  m.def("gemm_choose", [](int M, int N, int K, int epilogue, int a_dtype, int res_dtype, int out_dtype, const py::bytes& choice) {
    const std::string bytes = choice;
    return frt_gemm_choose(M, N, K, epilogue, a_dtype, res_dtype, out_dtype, bytes.data(), bytes.size()) == 1;
  });
  m.def("blas_version", frt_blas_version);
  op(m, "act_as", frt_act_as);
  m.def("attention_scratch", frt_attention_scratch);
  m.def("expert_rows_fit", frt_expert_rows_fit);
  m.def("denoise_loop_fits", frt_denoise_loop_fits);
  m.def("denoise_loop_scratch", frt_denoise_loop_scratch);
}
