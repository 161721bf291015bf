// out[m,n] = epilogue(a[m,:] . w[n,:]) for few rows (M <= 64), where reading the weights once is all the work.
// a: [M,K], w: [N,K] (GEGLU: [2N,K]) row-major, both BF16 or both E4M3; every epilogue is fused.
// A block has 8 columns; its warps take alternating pieces of K and are summed in a fixed order. Each lane loads 16 bytes of a
// weight row and of activation rows and feeds them to mma.sync as they lie: the k index inside an instruction is permuted
// equally for both operands, which changes the order of the sum and nothing else. No shared memory before the reduction.
#pragma once
#include "../core/mma.cuh"
#include "../tuning/gemm_skinny.h"
#include "attention_plain.cuh"
#include "gemm_epilogue.cuh"

namespace frt {

__device__ __forceinline__ void mma_step(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, bf16) {
  mma(c, a, b0, b1);
}
__device__ __forceinline__ void mma_step(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, e4m3) {
#if __CUDA_ARCH__ >= 890  // below, skinny_fits keeps FP8 away
  asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// c += two instructions over one 16-byte chunk per lane of the rows l/4 (low) and l/4+8 (high) of a, and of row l/4 of w.
template <class T>
__device__ __forceinline__ void mma_chunk(float (&c)[4], const uint4& low, const uint4& high, const uint4& w) {
  mma_step(c, {low.x, high.x, low.y, high.y}, w.x, w.y, T{});
  mma_step(c, {low.z, high.z, low.w, high.w}, w.z, w.w, T{});
}

__device__ __forceinline__ float2 load_pair(const void* p, int dtype, size_t at) {
  if (dtype == F32) return *reinterpret_cast<const float2*>(static_cast<const float*>(p) + at);
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(static_cast<const bf16*>(p) + at));
}

template <class T, int MT, bool GATED, class Out>
__global__ void __launch_bounds__(tuning::gemm_skinny.warps * 32) gemm_skinny_kernel(GemmArgs g) {
  inputs_ready();
  constexpr tuning::Skinny tune = tuning::gemm_skinny;
  constexpr int CHUNK = 16 / sizeof(T), STEP = tune.warps * 4 * CHUNK, PARTS = GATED ? 2 : 1;
  constexpr int FLIGHT = GATED ? tune.in_flight_gated : tune.in_flight;
  __shared__ float sums[tune.warps][PARTS][MT * 16 * 8];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = lane / 4, first = blockIdx.x * tune.columns;
  const T* w = static_cast<const T*>(g.w) + size_t(first + row) * g.K;
  const T* a = static_cast<const T*>(g.a);
  const uint4 none = make_uint4(0, 0, 0, 0);
  float acc[PARTS][MT][4] = {};
  for (int base = (warp * 4 + lane % 4) * CHUNK; base < g.K; base += FLIGHT * STEP) {
    uint4 wf[PARTS][FLIGHT];
#pragma unroll
    for (int u = 0; u < FLIGHT; ++u)
#pragma unroll
      for (int part = 0; part < PARTS; ++part) {
        const int k = base + u * STEP;
        wf[part][u] = k < g.K ? __ldg(reinterpret_cast<const uint4*>(w + size_t(part) * g.N * g.K + k)) : none;
      }
#pragma unroll
    for (int u = 0; u < FLIGHT; ++u) {
      const int k = base + u * STEP;
      if (k >= g.K) break;  // the same for a whole warp: K is a multiple of its 4 chunks
#pragma unroll
      for (int mt = 0; mt < MT; ++mt) {
        const int low = mt * 16 + row, high = low + 8;
        const uint4 x = low < g.M ? __ldg(reinterpret_cast<const uint4*>(a + size_t(low) * g.K + k)) : none;
        const uint4 y = high < g.M ? __ldg(reinterpret_cast<const uint4*>(a + size_t(high) * g.K + k)) : none;
#pragma unroll
        for (int part = 0; part < PARTS; ++part) mma_chunk<T>(acc[part][mt], x, y, wf[part][u]);
      }
    }
  }
#pragma unroll
  for (int part = 0; part < PARTS; ++part)
#pragma unroll
    for (int mt = 0; mt < MT; ++mt)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        sums[warp][part][(mt * 16 + row + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = acc[part][mt][i];
  __syncthreads();
  const float scale = sizeof(T) == 1 ? *g.a_scale * *g.w_scale : 1.0f, out_scale = inverse_scale<Out>(g.out_scale);
  for (int pair = threadIdx.x; pair < MT * 64; pair += blockDim.x) {
    const int m = pair / 4, n = first + pair % 4 * 2;
    if (m >= g.M) continue;
    float2 v[PARTS];
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
      v[part] = make_float2(0, 0);
#pragma unroll
      for (int i = 0; i < tune.warps; ++i) {
        const float2 s = *reinterpret_cast<const float2*>(&sums[i][part][pair * 2]);
        v[part].x += s.x, v[part].y += s.y;
      }
      v[part].x *= scale, v[part].y *= scale;
    }
    float2 y = v[0];
    const size_t at = size_t(m) * g.N + n;
    if (GATED) y = make_float2(gelu_tanh(y.x) * v[PARTS - 1].x, gelu_tanh(y.y) * v[PARTS - 1].y);
    if (uses_bias(g.epilogue)) y.x += g.bias[n], y.y += g.bias[n + 1];
    if (g.epilogue == BIAS_GELU) y = make_float2(gelu_tanh(y.x), gelu_tanh(y.y));
    if (g.epilogue == GATE_RESIDUAL) y.x *= g.gate[n], y.y *= g.gate[n + 1];
    if (uses_res(g.epilogue)) {
      const float2 r = load_pair(g.res, g.res_dtype, at);
      y.x += r.x, y.y += r.y;
    }
    store2(static_cast<Out*>(g.out) + at, y.x, y.y, out_scale);
  }
}

// Whether this kernel takes the call on a GPU of compute capability `sm` (90 for 9.0): FP8 instructions start at 8.9.
inline bool skinny_fits(const GemmArgs& g, int sm) {
  return g.M <= tuning::gemm_skinny.max_rows && (g.a_dtype == BF16 || (g.a_dtype == E4M3 && sm >= 89)) &&
         g.K % (g.a_dtype == BF16 ? 32 : 64) == 0;
}

template <class T, class Out>
int gemm_skinny(const GemmArgs& g, cudaStream_t stream) {
  const Grid grid{dim3(g.N / tuning::gemm_skinny.columns), dim3(tuning::gemm_skinny.warps * 32)};
  const bool gated = g.epilogue == GEGLU;
  auto* kernel = g.M <= 16 ? (gated ? gemm_skinny_kernel<T, 1, true, Out> : gemm_skinny_kernel<T, 1, false, Out>)
                           : (gated ? gemm_skinny_kernel<T, 4, true, Out> : gemm_skinny_kernel<T, 4, false, Out>);
  return launch("gemm", kernel, grid, stream, g);
}

}  // namespace frt
