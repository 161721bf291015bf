// A cuBLASLt call that was set up once for its shape: descriptors, layouts, algorithm. Row-major out = a w^T is the
// column-major product D[N,M] = W^T[N,K] A[K,M], the TN form that FP8 needs.
#pragma once
#include <memory>

#include "../core/context.h"
#include "epilogue.h"

namespace frt {

enum class Route { FUSED, LT_RAW, PLAIN };  // all in the library / raw product, then the epilogue kernel / no library

struct LtPlan {
  Route route = Route::PLAIN;
  int acc_dtype = F32;  // of the raw product in scratch
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t w = nullptr, a = nullptr, c = nullptr, d = nullptr;
  cublasLtMatmulAlgo_t algo{};
  bool tuned = false;
  size_t scratch = 0;
  ~LtPlan();
};

// The plan of this shape, made at the first call (host work only). Null with the error set when the library fails.
LtPlan* lt_plan(const Check& c, const GemmArgs& g);

// Runs the library part of a plan: into `d_out` (out or scratch), adding `c_in` when the epilogue has a residual.
int lt_run(const Check& c, LtPlan& p, const GemmArgs& g, void* d_out, const void* c_in, cudaStream_t stream,
           const cublasLtMatmulAlgo_t* algo = nullptr);

// Times the first `candidates` algorithms into scratch and keeps the fastest.
int lt_tune(const Check& c, LtPlan& p, const GemmArgs& g, int candidates, cudaStream_t stream);

}  // namespace frt
