// softmax(q k^T * scale) v in fp32, one warp per query row and head, keys in order: any head size, any dtype. The slow path
// for shapes and dtypes without a tensor-core kernel, and the exact one for fp32.
#pragma once
#include "../core/launch.h"
#include "../core/reduce.h"
#include "attention_args.h"

namespace frt {

__device__ __forceinline__ int valid_keys(const AttentionArgs& a) {
  if (!a.kv_len) return a.KV;
  return min(max(*a.kv_len + a.kv_extra, 1), a.KV);  // clamped: no read past the cache
}

__device__ __forceinline__ void put1(float* p, float v, float) { *p = v; }
__device__ __forceinline__ void put1(bf16* p, float v, float) { *p = __float2bfloat16(v); }
__device__ __forceinline__ void put1(e4m3* p, float v, float inverse) {
  p->__x = __nv_cvt_float_to_fp8(v * inverse, __NV_SATFINITE, __NV_E4M3);
}

template <int PER_LANE, class T, class Out>
__global__ void attention_plain_kernel(AttentionArgs a, const T* q, const T* k, const T* v, Out* out) {
  inputs_ready();
  const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= a.B * a.M * a.H) return;
  const int h = row % a.H, m = row / a.H % a.M, b = row / (a.H * a.M), kvh = h / (a.H / a.KVH);
  const T* qr = q + (size_t(b) * a.M + m) * a.q_stride + h * a.HD;
  const T* kr = k + size_t(b) * a.KV * a.kv_stride + kvh * a.HD;
  const T* vr = v + size_t(b) * a.KV * a.kv_stride + kvh * a.HD;
  float x[PER_LANE], acc[PER_LANE] = {}, top = -INFINITY, sum = 0;
#pragma unroll
  for (int i = 0; i < PER_LANE; ++i) x[i] = lane + 32 * i < a.HD ? to_float(qr[lane + 32 * i]) * a.scale : 0.0f;
  const int n = valid_keys(a);
  for (int j = 0; j < n; ++j, kr += a.kv_stride, vr += a.kv_stride) {
    float dot = 0;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i)
      if (lane + 32 * i < a.HD) dot += x[i] * to_float(kr[lane + 32 * i]);
    dot = warp_sum(dot);
    const float next = fmaxf(top, dot), keep = expf(top - next), p = expf(dot - next);
    top = next;
    sum = sum * keep + p;
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i)
      if (lane + 32 * i < a.HD) acc[i] = acc[i] * keep + p * to_float(vr[lane + 32 * i]);
  }
  Out* to = out + (size_t(b) * a.M + m) * a.H * a.HD + h * a.HD;
  const float scale = inverse_scale<Out>(a.out_scale);
#pragma unroll
  for (int i = 0; i < PER_LANE; ++i)
    if (lane + 32 * i < a.HD) put1(to + lane + 32 * i, acc[i] / sum, scale);
}

template <class T, class Out>
int attention_plain(const AttentionArgs& a, const T* q, const T* k, const T* v, Out* out, cudaStream_t stream) {
  const Grid grid{dim3(divide_up(long(a.B) * a.M * a.H, 4)), dim3(128)};
  auto* kernel = a.HD <= 64    ? attention_plain_kernel<2, T, Out>
                 : a.HD <= 128 ? attention_plain_kernel<4, T, Out>
                 : a.HD <= 256 ? attention_plain_kernel<8, T, Out>
                               : attention_plain_kernel<16, T, Out>;
  return launch("attention", kernel, grid, stream, a, q, k, v, out);
}

}  // namespace frt
