// Tile sizes of the tensor-core attention. 64 rows = 4 warps of 16.
#pragma once

namespace frt::tuning {
struct Attention {
  int rows, keys;  // of one tile
  int split_keys;  // keys of a tile where the keys are split over blocks: few rows, latency counts
};
inline constexpr Attention attention{64, 64, 32};
}  // namespace frt::tuning
