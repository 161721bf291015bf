// Row access shared by the norms: each thread holds the 8-element chunks c = tid, tid + threads, ... of one row.
#pragma once
#include "../core/vector.cuh"
#include "../core/launch.h"
#include "../core/reduce.h"
#include "../tuning/norm.h"

namespace frt {

// f(chunk values, first column) for each chunk of this thread; the first one is loaded once into `first`.
template <class T>
struct Row {
  const T* x;
  int D;
  float first[8];

  __device__ Row(const T* x, int D) : x(x), D(D) {
    if (int(threadIdx.x) * 8 < D) load8(x + threadIdx.x * 8, first);
  }
  template <class F>
  __device__ void each(F&& f) const {
    if (int(threadIdx.x) * 8 < D) f(first, int(threadIdx.x) * 8);
    for (int c = (threadIdx.x + blockDim.x) * 8; c < D; c += blockDim.x * 8) {
      float v[8];
      load8(x + c, v);
      f(v, c);
    }
  }
};

inline Grid row_grid(int M, int D) {
  const int threads = (D / 8 + 31) / 32 * 32;
  return {dim3(M), dim3(threads < tuning::norm.max_threads ? threads : tuning::norm.max_threads)};
}

}  // namespace frt
