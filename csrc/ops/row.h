// Row access shared by the norms: a row by a block (few rows, or long ones), or by one warp that holds all of it.
#pragma once
#include "../core/vector.cuh"
#include "../core/launch.h"
#include "../core/reduce.h"
#include "../tuning/norm.h"

namespace frt {

// each(f): f(chunk values, first column) for the 8-element chunks c = tid, tid + threads, ... of this block's row; the first one
// is loaded once into `first`.
template <class T>
struct Row {
  const T* x;
  int D;
  float first[8];

  static __device__ int index() { return blockIdx.x; }
  static __device__ float sum(float v) { return block_sum(v); }

  __device__ Row(const T* matrix, int D) : x(matrix + size_t(index()) * D), D(D) {
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

// The same of this warp's row, D <= CHUNKS * 256: loaded at once, no barrier of the block.
template <class T, int CHUNKS>
struct WarpRow {
  int D;
  float values[CHUNKS][8];

  static __device__ int index() { return blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }
  static __device__ float sum(float v) { return warp_sum(v); }

  __device__ WarpRow(const T* matrix, int D) : D(D) { hold(matrix + size_t(index()) * D, D, values); }
  static __device__ int column(int i) { return (i * 32 + int(threadIdx.x) % 32) * 8; }
  // This lane's chunks of another row.
  template <class U>
  static __device__ void hold(const U* row, int D, float (&to)[CHUNKS][8]) {
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
      if (column(i) < D) load8(row + column(i), to[i]);
  }
  template <class F>
  __device__ void each(F&& f) const {
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
      if (column(i) < D) f(values[i], column(i));
  }
};

// Whether a matrix is normalised a warp to a row; then with `warp_row_grid`.
inline bool by_warps(int M, int D) { return M >= tuning::norm.warp_rows && D <= 2048; }
inline Grid warp_row_grid(int M) { return {dim3(divide_up(M, tuning::norm.warps)), dim3(tuning::norm.warps * 32)}; }

inline Grid row_grid(int M, int D) {
  const int threads = (D / 8 + 31) / 32 * 32;
  return {dim3(M), dim3(threads < tuning::norm.max_threads ? threads : tuning::norm.max_threads)};
}

}  // namespace frt
