// Argument checks of an op: the first broken rule is kept with op, argument, value, rule and shape, for frt_last_error.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>

#include "../flashrt_kernels.h"
#include "dtype.h"

namespace frt {

frt_error& last_error();

// Fills the thread's error and returns `status`.
inline int fail(int status, const char* op, const char* arg, const char* value, const char* rule, const char* shape) {
  frt_error& e = last_error();
  e.status = status;
  snprintf(e.op, sizeof e.op, "%s", op);
  snprintf(e.arg, sizeof e.arg, "%s", arg);
  snprintf(e.value, sizeof e.value, "%s", value);
  snprintf(e.rule, sizeof e.rule, "%s", rule);
  snprintf(e.shape, sizeof e.shape, "%s", shape);
  return status;
}

inline int cuda_failed(const char* op, const char* call, cudaError_t error) {
  return fail(FRT_CUDA, op, call, cudaGetErrorName(error), cudaGetErrorString(error), "");
}

inline constexpr unsigned mask(std::initializer_list<int> codes) {
  unsigned m = 0;
  for (int c : codes) m |= 1u << c;
  return m;
}
inline constexpr unsigned FLOATS = 1u << F32 | 1u << BF16 | 1u << F16;
inline constexpr unsigned ACTS = FLOATS | 1u << E4M3;

class Check {
 public:
  const char* const op;
  int rc = FRT_OK;

  // The format and its numbers are the shape that an error shows.
  __attribute__((format(printf, 3, 4))) Check(const char* op, const char* format, ...) : op(op) {
    va_list args;
    va_start(args, format);
    vsnprintf(shape_, sizeof shape_, format, args);
    va_end(args);
  }

  void range(const char* arg, long v, long lo, long hi, int multiple = 1) {
    if (rc) return;
    char words[96];
    if (v < lo || v > hi) {
      snprintf(words, sizeof words, "must be within %ld..%ld", lo, hi);
      broken(arg, v, words);
    } else if (v % multiple) {
      snprintf(words, sizeof words, "must be a multiple of %d", multiple);
      broken(arg, v, words);
    }
  }
  void real(const char* arg, float v, float lo, float hi) {
    if (rc || (v >= lo && v <= hi)) return;
    char value[32], words[96];
    snprintf(value, sizeof value, "%g", v);
    snprintf(words, sizeof words, "must be within %g..%g", lo, hi);
    rc = fail(FRT_BAD_ARGUMENT, op, arg, value, words, shape_);
  }
  void code(const char* arg, int v, unsigned allowed) {
    if (!rc && (v < 0 || v > 31 || !(allowed >> v & 1))) broken(arg, v, "must be one of the op table's codes");
  }
  void rule(const char* arg, long v, bool ok, const char* words) {
    if (!rc && !ok) broken(arg, v, words);
  }
  void ptr(const char* arg, const void* p, bool required = true, unsigned align = 16) {
    if (rc) return;
    char value[32];
    snprintf(value, sizeof value, "%p", p);
    if (!p && required) rc = fail(FRT_BAD_ARGUMENT, op, arg, "0", "must not be null", shape_);
    if (reinterpret_cast<uintptr_t>(p) % align) {
      char words[48];
      snprintf(words, sizeof words, "must be %u-byte aligned", align);
      rc = fail(FRT_BAD_ARGUMENT, op, arg, value, words, shape_);
    }
  }
  int not_built(const char* arg, int v) {
    char words[96];
    snprintf(words, sizeof words, "%s is not compiled for this op on these GPUs", name_of(v));
    char value[16];
    snprintf(value, sizeof value, "%d", v);
    return rc = fail(FRT_NOT_BUILT, op, arg, value, words, shape_);
  }
  const char* shape() const { return shape_; }

 private:
  void broken(const char* arg, long v, const char* words) {
    char value[32];
    snprintf(value, sizeof value, "%ld", v);
    rc = fail(FRT_BAD_ARGUMENT, op, arg, value, words, shape_);
  }
  char shape_[192];
};

// Calls f(Tag<T>) for the code's element type, or reports NotBuilt.
template <class F>
int by_wide(Check& c, const char* arg, int code, F&& f) {
  switch (code) {
    case F32: return f(Tag<float>{});
    case BF16: return f(Tag<bf16>{});
    default: return c.not_built(arg, code);
  }
}
template <class F>
int by_act(Check& c, const char* arg, int code, F&& f) {
  return code == E4M3 ? f(Tag<e4m3>{}) : by_wide(c, arg, code, f);
}

}  // namespace frt
