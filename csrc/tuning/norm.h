// Thread counts of the row kernels. One row per SM family; SM90 is the one that was measured.
#pragma once

namespace frt::tuning {
struct Rows {
  int max_threads;
};
inline constexpr Rows norm{1024};
inline constexpr int elementwise_threads = 256;
}  // namespace frt::tuning
