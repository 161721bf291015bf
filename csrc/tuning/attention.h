// Tile sizes of the tensor-core attention. 64 rows = 4 warps of 16.
#pragma once

namespace frt::tuning {
struct Attention {
  int rows, keys;     // of one tile
  int min_split_keys; // fewest keys of a split
};
inline constexpr Attention attention{64, 64, 64};
}  // namespace frt::tuning
