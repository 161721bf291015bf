// Element types: the codes of flashrt_core/types.py and the C++ types behind them.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cstdint>

namespace frt {

enum DType : int { F32 = 0, BF16 = 1, F16 = 2, E4M3 = 3, I8 = 4, U8 = 5, I32 = 6 };
using bf16 = __nv_bfloat16;
using e4m3 = __nv_fp8_e4m3;

template <class T>
struct Tag {
  using type = T;
};

inline int bytes_of(int code) { return code == F32 || code == I32 ? 4 : code == BF16 || code == F16 ? 2 : 1; }
inline const char* name_of(int code) {
  static const char* const names[] = {"f32", "bf16", "f16", "e4m3", "i8", "u8", "i32"};
  return code >= 0 && code <= I32 ? names[code] : "?";
}

}  // namespace frt
