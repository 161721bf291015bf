// One denoise step's end and the next one's beginning, a block a row: actions += final . out_w^T + out_b, h = actions . in_w^T + in_b,
// normed = rms(h) * (1 + style[0]) + style[1]; either half may be left out. All weights and actions fp32: final [M,D], out_w [A,D],
// in_w [D,A], actions [M,A]; h: [M,D] BF16, normed: [M,D]. Each block asks the L2 cache for its share of the weights early.
#pragma once
#include "../core/launch.h"
#include "../core/reduce.h"

namespace frt {

struct ActionStepArgs {
  const float *final, *out_w, *out_b;
  float* actions;
  const float *in_w, *in_b;
  bf16* h;
  const float* style;
  void* normed;
  const float* out_scale;
  int M, D, A, leave, enter;
  float eps;
  static constexpr int threads = 256, max_width = 4 * threads, max_actions = 64;
};

__device__ __forceinline__ float dot4(const float4& a, const float4& b) { return a.x * b.x + a.y * b.y + (a.z * b.z + a.w * b.w); }

__device__ __forceinline__ void load4(const float* p, float (&v)[4]) {
  const float4 a = *reinterpret_cast<const float4*>(p);
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
}

// Asks the L2 cache for this block's share of `floats` values at p, lines of 32.
__device__ __forceinline__ void ask_for(const float* p, int floats) {
  for (int i = (threadIdx.x * gridDim.x + blockIdx.x) * 32; i < floats; i += blockDim.x * gridDim.x * 32)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p + i));
}

template <class Out>
__global__ void __launch_bounds__(ActionStepArgs::threads) action_step_kernel(ActionStepArgs g) {
  __shared__ __align__(16) float row[ActionStepArgs::max_width], action[ActionStepArgs::max_actions];
  const int m = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = ActionStepArgs::threads / 32;
  if (g.leave) ask_for(g.out_w, g.A * g.D);
  if (g.enter) ask_for(g.in_w, g.A * g.D);
  inputs_ready();
  if (threadIdx.x < g.A) action[threadIdx.x] = g.actions[m * g.A + threadIdx.x];
  if (g.leave) {
    const int k = threadIdx.x * 4;
    if (k < g.D) *reinterpret_cast<float4*>(row + k) = *reinterpret_cast<const float4*>(g.final + size_t(m) * g.D + k);
    __syncthreads();
    for (int first = warp; first < g.A; first += 4 * warps) {
      float sum[4] = {};
#pragma unroll 4
      for (int i = lane * 4; i < g.D; i += 128)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          if (first + j * warps < g.A)
            sum[j] += dot4(*reinterpret_cast<const float4*>(row + i),
                           __ldg(reinterpret_cast<const float4*>(g.out_w + size_t(first + j * warps) * g.D + i)));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int a = first + j * warps;
        sum[j] = warp_sum(sum[j]);
        if (a < g.A && lane == 0) g.actions[m * g.A + a] = action[a] += sum[j] + g.out_b[a];
      }
    }
  }
  if (!g.enter) return;
  __syncthreads();
  const int n = threadIdx.x * 4;
  float v[4] = {}, square = 0;
  if (n < g.D) {
    load4(g.in_b + n, v);
#pragma unroll 2
    for (int a = 0; a < g.A; a += 4)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        v[j] += dot4(*reinterpret_cast<const float4*>(action + a),
                     __ldg(reinterpret_cast<const float4*>(g.in_w + size_t(n + j) * g.A + a)));
#pragma unroll
    for (int j = 0; j < 4; ++j) square += v[j] * v[j];
  }
  const float one = rsqrtf(block_sum(square) / g.D + g.eps), inverse = inverse_scale<Out>(g.out_scale);
  if (n >= g.D) return;
  float factor[4], shift[4];
  load4(g.style + n, factor), load4(g.style + g.D + n, shift);
  bf16* h = g.h + size_t(m) * g.D + n;
  Out* to = static_cast<Out*>(g.normed) + size_t(m) * g.D + n;
#pragma unroll
  for (int j = 0; j < 4; j += 2) {
    store2(h + j, v[j], v[j + 1], 1.0f);
    store2(to + j, v[j] * one * (1.0f + factor[j]) + shift[j], v[j + 1] * one * (1.0f + factor[j + 1]) + shift[j + 1], inverse);
  }
}

template <class Out>
int action_step(const ActionStepArgs& g, cudaStream_t stream) {
  return launch("action_step", action_step_kernel<Out>, Grid{dim3(g.M), dim3(ActionStepArgs::threads)}, stream, g);
}

}  // namespace frt
