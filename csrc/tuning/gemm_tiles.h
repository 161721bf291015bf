// Tiles of the SM90 GEMM for many rows, and which of them a shape gets before anything was timed.
#pragma once

namespace frt::tuning {

// A block has `groups` x 64 rows and `columns` accumulator columns (GEGLU: half gate, half up). Blocks of a cluster are
// across_m tiles of rows by across_n tiles of columns; each loads its share of a common operand for all of them.
struct Tile {
  int groups, columns, across_m, across_n;
  int stages = 8;  // at most, of the ring
};
inline constexpr Tile gemm_tiles[] = {
    {1, 64, 1, 1}, {1, 64, 2, 1}, {1, 64, 4, 1}, {1, 64, 1, 2}, {1, 64, 1, 4}, {1, 64, 2, 2}, {1, 64, 1, 1, 4}, {1, 64, 4, 1, 4},
    {1, 128, 1, 1}, {1, 128, 2, 1}, {1, 128, 4, 1}, {1, 128, 2, 2},
    {2, 64, 1, 1}, {2, 64, 2, 1}, {2, 64, 1, 2}, {2, 64, 4, 1}, {2, 64, 2, 2}, {2, 64, 4, 2}, {2, 64, 1, 1, 4}, {2, 64, 2, 1, 4},
    {2, 96, 1, 1}, {2, 96, 2, 1}, {2, 96, 1, 2}, {2, 96, 4, 1}, {2, 96, 2, 2},
    {2, 128, 1, 1}, {2, 128, 2, 1}, {2, 128, 1, 2}, {2, 128, 4, 1}, {2, 128, 2, 2}, {2, 128, 1, 4},
    {2, 160, 1, 1}, {2, 160, 2, 1}, {2, 160, 1, 2}, {2, 160, 4, 1},
    {2, 256, 1, 1}, {2, 256, 2, 1}, {2, 256, 1, 2},
    {3, 64, 1, 1}, {3, 64, 1, 2}, {3, 64, 1, 4}, {3, 64, 1, 1, 4},
    {3, 96, 1, 1}, {3, 96, 1, 2}, {3, 96, 1, 4},
    {3, 128, 1, 1}, {3, 128, 1, 2}, {3, 128, 1, 4},
    {3, 160, 1, 1}, {3, 160, 1, 2},
    {3, 256, 1, 1}, {3, 256, 1, 2}, {3, 256, 1, 4},
};
inline constexpr int tile_count = sizeof gemm_tiles / sizeof *gemm_tiles;

// Estimated clocks of a call: the slower of the tensor cores (a product reads its operands from shared memory at 128 bytes a
// clock) and the L2 cache, for each step of 128 bytes of K, plus filling and emptying a block. C: accumulator columns.
inline float tile_clocks(const Tile& t, int M, int C, long k_bytes, int sms) {
  constexpr float l2_bytes = 3200, round_trip = 2500;  // of the whole device a clock; clocks
  const int blocks = t.across_m * t.across_n, rows = t.groups * 64;
  const int tiles_m = (M + rows * t.across_m - 1) / (rows * t.across_m);
  const int tiles = tiles_m * ((C + t.columns * t.across_n - 1) / (t.columns * t.across_n));
  const int held = blocks > 2 ? sms / blocks - 1 : sms / blocks;  // clusters of 4 leave some multiprocessors of a part unused
  const int rounds = (tiles + held - 1) / held, active = tiles < held ? tiles : held;
  const float product = t.groups * 4 * (t.columns / 2.0f > (64 + t.columns) / 4.0f ? t.columns / 2.0f : (64 + t.columns) / 4.0f);
  const float copies = active * blocks * 128.0f * (rows / float(t.across_n) + t.columns / float(t.across_m)) / l2_bytes;
  return rounds * ((k_bytes + 127) / 128 * (product > copies ? product : copies) + round_trip);
}

}  // namespace frt::tuning
