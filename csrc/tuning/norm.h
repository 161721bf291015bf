// Thread counts of the row kernels. One row per SM family; SM90 is the one that was measured.
#pragma once

namespace frt::tuning {
struct Rows {
  int max_threads;
  int warp_rows, warps;  // from so many rows on a warp takes a row, and a block so many of them
};
inline constexpr Rows norm{1024, 128, 4};
inline constexpr int elementwise_threads = 256;
}  // namespace frt::tuning
