// out[(v,gy,gx), (c,y,x)] = images[v, gy*P+y, gx*P+x, c]   images: [V,S,S,3] u8 (x/255*2-1) or f32, out: [V*(S/P)^2, K], zeros
// from column 3*P*P on. One block per patch.
#pragma once
#include "../core/launch.h"
#include "../tuning/norm.h"

namespace frt {

__device__ __forceinline__ float pixel(unsigned char x) { return x / 255.0f * 2.0f - 1.0f; }
__device__ __forceinline__ float pixel(float x) { return x; }
__device__ __forceinline__ void put(float* p, float v) { *p = v; }
__device__ __forceinline__ void put(bf16* p, float v) { *p = __float2bfloat16(v); }

template <class In, class Out>
__global__ void patchify_kernel(const In* images, Out* out, int S, int P, int K) {
  inputs_ready();
  const int grid = S / P, patch = blockIdx.x;
  const int gx = patch % grid, gy = patch / grid % grid, view = patch / (grid * grid);
  const In* corner = images + ((size_t(view) * S + gy * P) * S + gx * P) * 3;
  for (int k = threadIdx.x; k < K; k += blockDim.x) {
    const int channel = k / (P * P), y = k / P % P, x = k % P;
    const float v = channel < 3 ? pixel(corner[(size_t(y) * S + x) * 3 + channel]) : 0.0f;
    put(out + size_t(patch) * K + k, v);
  }
}

template <class In, class Out>
int patchify(const In* images, Out* out, int V, int S, int P, int K, cudaStream_t stream) {
  const Grid grid{dim3(V * (S / P) * (S / P)), dim3(tuning::elementwise_threads)};
  return launch("patchify", patchify_kernel<In, Out>, grid, stream, images, out, S, P, K);
}

}  // namespace frt
