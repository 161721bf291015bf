// Tiles of the SM90 GEMM for many rows, and which of them a shape gets before anything was timed.
#pragma once

namespace frt::tuning {

// A block has `groups` x 64 rows and `columns` accumulator columns (GEGLU: half gate, half up). Blocks of a cluster are
// across_m tiles of rows by across_n tiles of columns, each of which loads its share of a common operand for all of them, by
// across_k shares of K.
struct Tile {
  int groups, columns, across_m = 1, across_n = 1, across_k = 1;
  int from_k = 0;  // bytes of K from which the row is taken for few columns; 0: where its estimate is the least
  int stages = 8;  // at most, of the ring
};
inline constexpr int few_columns = 1536, library_k = 16384;  // from so many bytes of K on cuBLASLt is faster
inline constexpr int NEVER = 1 << 30;
inline constexpr Tile gemm_tiles[] = {
    {1, 64}, {2, 64}, {2, 128}, {2, 160}, {3, 64}, {3, 128}, {3, 256}, {2, 64, 2, 2, 1, 4200},
    {2, 96, 1, 1, 1, NEVER}, {2, 64, 4, 1, 1, NEVER}, {2, 64, 4, 2, 1, NEVER}, {2, 96, 2, 1, 2, NEVER}, {2, 96, 1, 1, 2, NEVER},
    {2, 96, 4, 1, 2, NEVER}, {2, 128, 1, 1, 3, NEVER}, {2, 128, 2, 1, 3, NEVER}, {2, 128, 4, 1, 2, NEVER}, {2, 96, 4, 1, 1, NEVER},
    {2, 64, 2, 1, 2, NEVER}, {1, 128, 4, 1, 1, NEVER}, {1, 64, 2, 2, 1, NEVER}, {2, 64, 1, 1, 2, NEVER},
    {3, 128, 1, 1, 2, NEVER}, {3, 64, 1, 1, 1, NEVER, 5},
};
inline constexpr int tile_count = sizeof gemm_tiles / sizeof *gemm_tiles;

// Estimated clocks of a call: for each step of 128 bytes of K the slowest of the tensor cores, shared memory (128 bytes a clock)
// and the L2 cache, then the epilogue, and once what a kernel costs. C: accumulator columns, parts: 2 for GEGLU.
inline float tile_clocks(const Tile& t, int M, int C, int parts, long k_bytes, int sms) {
  constexpr float l2_bytes = 5200, round_trip = 5300;
  const int blocks = t.across_m * t.across_n * t.across_k, rows = t.groups * 64;
  const int tiles_m = (M + rows * t.across_m - 1) / (rows * t.across_m);
  const int tiles = tiles_m * ((C + t.columns * t.across_n - 1) / (t.columns * t.across_n));
  const int held = blocks > 2 ? sms / blocks - 1 : sms / blocks;  // clusters of 4 leave some multiprocessors of a part unused
  const int rounds = (tiles + held - 1) / held, active = tiles < held ? tiles : held;
  const float tensor = 1.2f * t.groups * 2 * t.columns;  // clocks a step; shared memory: reads of the products, writes of the copies
  const float memory = t.groups * (64 * parts + t.columns) + rows + t.columns, product = tensor > memory ? tensor : memory;
  const float copies = active * blocks * 128.0f * (rows / float(t.across_n) + t.columns / float(t.across_m)) / l2_bytes;
  return rounds * ((k_bytes + 127) / 128 * (product > copies ? product : copies) + 0.1f * rows * t.columns) + round_trip;
}

}  // namespace frt::tuning
