// Eight-element vector loads to fp32, and stores that round to the element type.
#pragma once
#include "dtype.h"

namespace frt {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(e4m3 x) { return float(x); }

// The two values of a packed pair.
__device__ __forceinline__ float2 unpack_bf16(unsigned pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

// v[0..7] = p[0..7]; p is 16-byte aligned (8-byte for e4m3).
__device__ __forceinline__ void load8(const float* p, float (&v)[8]) {
  float4 a = reinterpret_cast<const float4*>(p)[0], b = reinterpret_cast<const float4*>(p)[1];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
__device__ __forceinline__ void load8(const bf16* p, float (&v)[8]) {
  uint4 raw = *reinterpret_cast<const uint4*>(p);
  const unsigned w[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 two = unpack_bf16(w[i]);
    v[2 * i] = two.x, v[2 * i + 1] = two.y;
  }
}

inline constexpr float LOG2_E = 1.4426950408889634f;  // e^x = 2^(x LOG2_E)
// 2^x by the instruction alone: 2^-22 of the value, results below 2^-126 are 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two floats to one packed pair, saturating: e4m3 clips to +-448 and keeps NaN.
__device__ __forceinline__ unsigned pack_bf16(float a, float b) {
  __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<unsigned*>(&pair);
}
__device__ __forceinline__ unsigned short pack_e4m3(float a, float b) {
  return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
}

// p[0..7] = v[0..7]; `inverse` (see inverse_scale) is read for e4m3 only: a stored q stands for q / inverse.
__device__ __forceinline__ void store8(float* p, const float (&v)[8], float) {
  reinterpret_cast<float4*>(p)[0] = make_float4(v[0], v[1], v[2], v[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
__device__ __forceinline__ void store8(bf16* p, const float (&v)[8], float) {
  *reinterpret_cast<uint4*>(p) =
      make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
}
__device__ __forceinline__ void store8(e4m3* p, const float (&v)[8], float inverse) {
  unsigned short h[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) h[i] = pack_e4m3(v[2 * i] * inverse, v[2 * i + 1] * inverse);
  *reinterpret_cast<uint2*>(p) = make_uint2(h[0] | unsigned(h[1]) << 16, h[2] | unsigned(h[3]) << 16);
}

// p[0..1] = a, b.
__device__ __forceinline__ void store2(float* p, float a, float b, float) {
  *reinterpret_cast<float2*>(p) = make_float2(a, b);
}
__device__ __forceinline__ void store2(bf16* p, float a, float b, float) {
  *reinterpret_cast<unsigned*>(p) = pack_bf16(a, b);
}
__device__ __forceinline__ void store2(e4m3* p, float a, float b, float inverse) {
  *reinterpret_cast<unsigned short*>(p) = pack_e4m3(a * inverse, b * inverse);
}

// 1 / *p for a quantised output: one division per thread, products after that.
template <class T>
__device__ __forceinline__ float inverse_scale(const float* p) {
  return sizeof(T) == 1 ? 1.0f / *p : 1.0f;
}

}  // namespace frt
