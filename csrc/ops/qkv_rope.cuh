// qkv: [M, (H+2*KVH)*HD] -> q: [M, H*HD], k, v: cache rows *pos0 + m of [rows, KVH*HD]; pairs (x0, x1) of Q and K turn by
// rope[*pos0 + m] = (cos, sin) pairs, fp32. *pos0 outside 0..rows-M is clamped: no write past the cache.
#pragma once
#include "../core/launch.h"
#include "../tuning/norm.h"

namespace frt {

template <class T>
__global__ void qkv_rope_kernel(const T* qkv, const float* rope, const int32_t* pos0, T* q, T* k, T* v, int M, int H,
                                int KVH, int HD, int rows) {
  inputs_ready();
  const int width = (H + 2 * KVH) * HD, chunk = (blockIdx.y * blockDim.x + threadIdx.x) * 8, m = blockIdx.x;
  if (chunk >= width) return;
  const int start = pos0 ? min(max(*pos0, 0), rows - M) : 0;
  const int head = chunk / HD, d = chunk % HD, at = start + m;
  float x[8], y[8];
  load8(qkv + size_t(m) * width + chunk, x);
  if (head < H + KVH) {
    float turn[8];
    load8(rope + size_t(at) * HD + d, turn);
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      y[i] = x[i] * turn[i] - x[i + 1] * turn[i + 1];
      y[i + 1] = x[i + 1] * turn[i] + x[i] * turn[i + 1];
    }
    T* to = head < H ? q + (size_t(m) * H + head) * HD + d : k + (size_t(at) * KVH + head - H) * HD + d;
    store8(to, y, 1.0f);
  } else {
    store8(v + (size_t(at) * KVH + head - H - KVH) * HD + d, x, 1.0f);
  }
}

template <class T>
int qkv_rope(const T* qkv, const float* rope, const int32_t* pos0, T* q, T* k, T* v, int M, int H, int KVH, int HD,
             int rows, cudaStream_t stream) {
  const int chunks = (H + 2 * KVH) * HD / 8, threads = chunks < 128 ? 64 : 128;
  const Grid grid{dim3(M, divide_up(chunks, threads)), dim3(threads)};
  return launch("qkv_rope", qkv_rope_kernel<T>, grid, stream, qkv, rope, pos0, q, k, v, M, H, KVH, HD, rows);
}

}  // namespace frt
