// Sums over a warp and over a block; every thread gets the result, in a fixed order of additions.
#pragma once

namespace frt {

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(~0u, v, d);
  return v;
}

// blockDim.x is a multiple of 32. May be called again at once: it ends with a barrier-protected read.
__device__ __forceinline__ float block_sum(float v) {
  __shared__ float parts[32];
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  float total = 0;
  const int warps = blockDim.x / 32;
  for (int i = 0; i < warps; ++i) total += parts[i];
  __syncthreads();
  return total;
}

}  // namespace frt
