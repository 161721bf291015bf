// The GEMM of few rows: 8 columns per block, K spread over the block's warps, chunks of 16 bytes in flight per lane.
#pragma once

namespace frt::tuning {
struct Skinny {
  int warps, columns, max_rows;
  int in_flight, in_flight_gated;  // 16-byte weight loads a lane issues before it uses the first
};
inline constexpr Skinny gemm_skinny{8, 8, 64, 8, 4};
}  // namespace frt::tuning
