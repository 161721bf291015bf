// Between the wgmma accumulator layout and memory: four neighbouring lanes trade words, so that each reads and writes eight
// neighbouring columns at once.
#pragma once
#include "../core/vector.cuh"

namespace frt {

// Transposes the 4 x 4 words that four neighbouring lanes hold: afterwards w[i] of lane q is what w[q] of lane i was.
__device__ __forceinline__ void quad_transpose(unsigned (&w)[4]) {
  const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const unsigned got = __shfl_xor_sync(~0u, odd ? w[i] : w[i + 1], 1);
    (odd ? w[i] : w[i + 1]) = got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const unsigned got = __shfl_xor_sync(~0u, high ? w[i] : w[i + 2], 2);
    (high ? w[i] : w[i + 2]) = got;
  }
}

// 32 columns of two rows (r and r + 8), the wgmma layout v[4 j + i], to memory: each lane writes 8 columns of both.
__device__ __forceinline__ void store_columns(bf16* out, size_t step, bool low, bool high, const float (&v)[16], float) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    unsigned w[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) w[j] = pack_bf16(v[4 * j + 2 * r], v[4 * j + 2 * r + 1]);
    quad_transpose(w);
    if (r ? high : low) *reinterpret_cast<uint4*>(out + r * step) = make_uint4(w[0], w[1], w[2], w[3]);
  }
}
__device__ __forceinline__ void store_columns(e4m3* out, size_t step, bool low, bool high, const float (&v)[16], float inverse) {
  unsigned w[4];
#pragma unroll
  for (int j = 0; j < 4; ++j)
    w[j] = pack_e4m3(v[4 * j] * inverse, v[4 * j + 1] * inverse) |
           unsigned(pack_e4m3(v[4 * j + 2] * inverse, v[4 * j + 3] * inverse)) << 16;
  quad_transpose(w);
  if (low)
    *reinterpret_cast<uint2*>(out) = make_uint2(__byte_perm(w[0], w[1], 0x5410), __byte_perm(w[2], w[3], 0x5410));
  if (high)
    *reinterpret_cast<uint2*>(out + step) = make_uint2(__byte_perm(w[0], w[1], 0x7632), __byte_perm(w[2], w[3], 0x7632));
}

// v += 32 columns of two rows that were read as store_columns writes.
__device__ __forceinline__ void add_columns(const uint4 (&res)[2], float (&v)[16]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    unsigned w[4] = {res[r].x, res[r].y, res[r].z, res[r].w};
    quad_transpose(w);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 two = unpack_bf16(w[j]);
      v[4 * j + 2 * r] += two.x, v[4 * j + 2 * r + 1] += two.y;
    }
  }
}

}  // namespace frt
