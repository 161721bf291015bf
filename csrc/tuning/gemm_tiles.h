// Tiles of the SM90 GEMM for many rows, and which of them a product runs in. The constants are fitted to one H200
// (bench/kernels/gemm_tiles.cu); test/csrc/test_tile_choice.py compares the choice with what was measured there.
#pragma once

namespace frt::tuning {

struct Tile {
  int groups, columns;  // groups x 64 rows, columns of the accumulator (GEGLU: half gate, half up)
  float slack = 1;      // its measured time of a step over the estimate
};
inline constexpr Tile gemm_tiles[] = {
    {1, 64},        {1, 96, 0.9f},   {1, 192, 0.78f}, {2, 64, 0.8f}, {2, 112, 1.05f}, {2, 128, 1.4f},
    {2, 144, 1.1f}, {2, 160, 1.05f}, {3, 64, 0.83f},  {3, 128},      {3, 256},
};
inline constexpr int tile_count = sizeof gemm_tiles / sizeof *gemm_tiles;
inline constexpr int library_k = 16384;  // from so many bytes of K on cuBLASLt is faster

struct Product {
  int rows, columns;  // columns of the accumulator: twice the output's for GEGLU
  long k_bytes;
  bool geglu, e4m3, residual;
};

// GEGLU's halves are whole parts of 32 columns. 192 x 256 is for GEGLU alone, whose two products need fewer registers than one of
// twice the width; 64 x 192 for E4M3 without a residual, whose 96 values a thread take longer than the tile saves.
inline bool tile_takes(const Tile& t, const Product& p) {
  if (p.geglu) return t.columns % 64 == 0 && (t.columns == 64 || t.groups > 1);
  return t.columns < 192 || (t.columns == 192 && p.e4m3 && !p.residual);
}

// Estimated clocks of a call: for each step of 128 bytes of K the slowest of the tensor cores, shared memory (128 bytes a clock)
// and the L2 cache, then the epilogue, and once what a kernel costs.
inline float tile_clocks(const Tile& t, const Product& p, int sms) {
  constexpr float l2_bytes = 6500, kernel = 5300, tensor_slack = 1.2f, per_value = 0.1f;
  const int rows = t.groups * 64, tiles = ((p.rows + rows - 1) / rows) * ((p.columns + t.columns - 1) / t.columns);
  const int rounds = (tiles + sms - 1) / sms, active = tiles < sms ? tiles : sms, parts = p.geglu ? 2 : 1;
  const float tensor = tensor_slack * t.groups * 2 * t.columns;
  const float shared = t.groups * (64 * parts + t.columns) + rows + t.columns;  // reads of the products, writes of the copies
  const float cache = active * 128.0f * (rows + t.columns) / l2_bytes;
  const float slowest = tensor > shared ? (tensor > cache ? tensor : cache) : shared > cache ? shared : cache;
  return rounds * ((p.k_bytes + 127) / 128 * t.slack * slowest + per_value * rows * t.columns) + kernel;
}

// The row of gemm_tiles that takes least; -1: none takes the product.
inline int fastest_tile(const Product& p, int sms) {
  int best = -1;
  for (int i = 0; i < tile_count; ++i)
    if (tile_takes(gemm_tiles[i], p) &&
        (best < 0 || tile_clocks(gemm_tiles[i], p, sms) < tile_clocks(gemm_tiles[best], p, sms)))
      best = i;
  return best;
}

}  // namespace frt::tuning
