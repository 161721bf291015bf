// What the ops of one device share: the cuBLASLt handle with its workspace, and one scratch area that only grows.
#pragma once
#include <cublasLt.h>

#include "check.h"

namespace frt {

struct Context {
  cublasLtHandle_t blas = nullptr;
  void* blas_workspace = nullptr;
  void* scratch = nullptr;
  size_t scratch_bytes = 0;
  int sm_count = 0;
  int sm = 0;  // compute capability, 90 for 9.0
};
inline constexpr size_t BLAS_WORKSPACE = size_t(32) << 20;

// The current device's context; `blas` is null before frt_prepare.
Context& context();

// The scratch area, or null with the error set when it is smaller than `bytes`.
void* scratch(const Check& c, size_t bytes);

}  // namespace frt
