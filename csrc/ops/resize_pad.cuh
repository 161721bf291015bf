// out[v] = images[v] scaled to fit a square, centred on black   images: [V,H,W,3] u8, out: [V,S,S,3] u8. One block per output
// row. Pillow's BILINEAR (libImaging/Resample.c): triangle filter of half width max(scale, 1), weights rounded to 2^-22,
// columns first, rounded to u8, then rows. Weights are made once per block, in double without fused multiply-adds, so that
// their last bit is Pillow's.
#pragma once
#include "../core/launch.h"
#include "../tuning/norm.h"

namespace frt {

struct Resample {
  int old, fresh, taps;  // taps: an upper bound of the inputs that one output reads
  double scale, support;
};

inline Resample resample(int old, int fresh) {
  const double scale = double(old) / fresh, support = scale > 1 ? scale : 1.0;
  return {old, fresh, 2 * int(support + 1) + 1, scale, support};
}
struct Fit {
  Resample x, y;
  int S, top, left;
};

// Largest picture of this aspect ratio in the square (openpi-client image_tools.py).
inline Fit fit(int H, int W, int S) {
  const double by_width = double(W) / S, by_height = double(H) / S, ratio = by_width > by_height ? by_width : by_height;
  int height = int(H / ratio), width = int(W / ratio);
  height = height > 1 ? height : 1, width = width > 1 ? width : 1;
  return {resample(W, width), resample(H, height), S, (S - height) / 2, (S - width) / 2};
}

inline constexpr int WEIGHT_BITS = 22;

// Weights of output `i` into w[0..count), in units of 2^-22; returns the first input.
__device__ __forceinline__ int resize_weights(const Resample& r, int i, int* w, int& count) {
  const double center = __dmul_rn(__dadd_rn(double(i), 0.5), r.scale);
  int first = int(__dadd_rn(__dadd_rn(center, -r.support), 0.5)), last = int(__dadd_rn(__dadd_rn(center, r.support), 0.5));
  first = first > 0 ? first : 0, last = last < r.old ? last : r.old;
  count = last - first;
  double sum = 0;
  for (int k = 0; k < count; ++k) {
    const double t = 1.0 - fabs(__ddiv_rn(__dadd_rn(__dadd_rn(double(first + k), -center), 0.5), r.support));
    sum = __dadd_rn(sum, t > 0 ? t : 0);
  }
  for (int k = 0; k < count; ++k) {
    const double t = 1.0 - fabs(__ddiv_rn(__dadd_rn(__dadd_rn(double(first + k), -center), 0.5), r.support));
    w[k] = int(floor(__dadd_rn(__dmul_rn(__ddiv_rn(t > 0 ? t : 0, sum), double(1 << WEIGHT_BITS)), 0.5)));
  }
  return first;
}

__device__ __forceinline__ int to_level(int sum) {
  const int v = sum >> WEIGHT_BITS;
  return v < 0 ? 0 : v > 255 ? 255 : v;
}

__global__ void resize_pad_kernel(const unsigned char* images, unsigned char* out, Fit f) {
  inputs_ready();
  extern __shared__ int weights[];  // [x.fresh][x.taps + 2] = first, count, weights; then the row's own [y.taps + 2]
  const int row = int(blockIdx.x) - f.top, view = blockIdx.y, stride = f.x.taps + 2;
  unsigned char* line = out + (size_t(view) * f.S + blockIdx.x) * f.S * 3;
  if (row < 0 || row >= f.y.fresh) {
    for (int i = threadIdx.x; i < f.S * 3; i += blockDim.x) line[i] = 0;
    return;
  }
  for (int i = threadIdx.x; i <= f.x.fresh; i += blockDim.x) {
    int* at = weights + i * stride;
    at[0] = i < f.x.fresh ? resize_weights(f.x, i, at + 2, at[1]) : resize_weights(f.y, row, at + 2, at[1]);
  }
  __syncthreads();
  const int* rows = weights + f.x.fresh * stride;
  const size_t pitch = size_t(f.x.old) * 3;
  const unsigned char* image = images + (size_t(view) * f.y.old + rows[0]) * pitch;
  for (int i = threadIdx.x; i < f.S * 3; i += blockDim.x) {
    const int x = i / 3 - f.left, channel = i % 3;
    if (x < 0 || x >= f.x.fresh) {
      line[i] = 0;
      continue;
    }
    const int* columns = weights + x * stride;
    const unsigned char* corner = image + size_t(columns[0]) * 3 + channel;
    int total = 1 << (WEIGHT_BITS - 1);
    for (int k = 0; k < rows[1]; ++k, corner += pitch) {
      int sum = 1 << (WEIGHT_BITS - 1);
      for (int j = 0; j < columns[1]; ++j) sum += corner[j * 3] * columns[2 + j];
      total += to_level(sum) * rows[2 + k];
    }
    line[i] = to_level(total);
  }
}

inline int resize_pad(const unsigned char* images, unsigned char* out, int V, int H, int W, int S, cudaStream_t stream) {
  const Fit f = fit(H, W, S);
  const size_t shared = (size_t(f.x.fresh) * (f.x.taps + 2) + f.y.taps + 2) * sizeof(int);
  const Grid grid{dim3(S, V), dim3(tuning::elementwise_threads), shared};
  return launch("resize_pad", resize_pad_kernel, grid, stream, images, out, f);
}

}  // namespace frt
