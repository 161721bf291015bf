// Operands of the denoise loop's products as mma.sync takes them, for BF16 and E4M3.
#pragma once
#include "../core/mma.cuh"
#include "denoise_shape.h"

namespace frt::denoise {

// 16 bytes of K of a weight or activation row per lane, as the instruction takes them. The tensor cores of SM90 have no FP8 for
// mma.sync: E4M3 becomes FP16, which holds every one of its values, and products add up in full fp32.
template <class T>
struct Piece;
template <>
struct Piece<bf16> {
  static constexpr int WORDS = 4;
  unsigned w[WORDS];
  __device__ __forceinline__ void set(const uint4& v) { w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w; }
  // Values from fp32.
  __device__ __forceinline__ void set8(int, const float (&y)[8]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) w[i] = pack_bf16(y[2 * i], y[2 * i + 1]);
  }
};
template <>
struct Piece<e4m3> {
  static constexpr int WORDS = 8;
  unsigned w[WORDS];
  static __device__ __forceinline__ unsigned two(unsigned short pair) {
    unsigned h;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(h) : "h"(pair));
    return h;
  }
  __device__ __forceinline__ void set(const uint4& v) {
    const unsigned u[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) w[2 * i] = two(u[i] & 0xffff), w[2 * i + 1] = two(u[i] >> 16);
  }
  // Values half * 8.. from fp32: only weights are E4M3, so activations that come as floats stay FP16.
  __device__ __forceinline__ void set8(int half, const float (&y)[8]) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(w[half * 4 + i]) : "f"(y[2 * i + 1]), "f"(y[2 * i]));
  }
};

__device__ __forceinline__ void mma_f16(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Words w and w + 1 of pieces. Callers alternate between sums: an instruction that needs the one before waits for it.
template <class T>
__device__ __forceinline__ void mma_words(float (&c)[4], const Piece<T>& low, const Piece<T>& high, const Piece<T>& b, int w) {
  const unsigned a[4] = {low.w[w], high.w[w], low.w[w + 1], high.w[w + 1]};
  if constexpr (sizeof(T) == 1) mma_f16(c, a, b.w[w], b.w[w + 1]);
  else mma(c, a, b.w[w], b.w[w + 1]);
}

// x / (1 + e^(-2 z)), z = sqrt(2/pi) (x + 0.044715 x^3): gelu_tanh without the branches of tanhf
__device__ __forceinline__ float gelu(float x) {
  return __fdividef(x, 1.0f + __expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
}

}  // namespace frt::denoise
