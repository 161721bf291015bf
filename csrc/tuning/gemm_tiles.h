// Tiles of the SM90 GEMM for many rows, and how long a shape takes in each. The constants are fitted to one H200, with
// bench/kernels/gemm_tiles.cu.
#pragma once

namespace frt::tuning {

struct Tile {
  int groups, columns;  // groups x 64 rows, columns of the accumulator (GEGLU: half gate, half up)
  float slack = 1;  // its measured time of a step over the estimate
};
inline constexpr Tile gemm_tiles[] = {
    {1, 64},         {1, 96, 0.9f},  {1, 192, 0.78f}, {2, 64, 0.8f},  {2, 112, 1.05f}, {2, 128, 1.4f},
    {2, 144, 1.1f},  {2, 160, 1.05f}, {3, 64, 0.83f}, {3, 128},       {3, 256},
};
inline constexpr int tile_count = sizeof gemm_tiles / sizeof *gemm_tiles;
inline constexpr int library_k = 16384;  // from so many bytes of K on cuBLASLt is faster

// Estimated clocks of a call: for each step of 128 bytes of K the slowest of the tensor cores, shared memory (128 bytes a clock)
// and the L2 cache, then the epilogue, and once what a kernel costs. C: accumulator columns, parts: 2 for GEGLU.
inline float tile_clocks(const Tile& t, int M, int C, int parts, long k_bytes, int sms) {
  constexpr float l2_bytes = 6500, kernel = 5300, tensor_slack = 1.2f, per_value = 0.1f;
  const int rows = t.groups * 64, tiles = ((M + rows - 1) / rows) * ((C + t.columns - 1) / t.columns);
  const int rounds = (tiles + sms - 1) / sms, active = tiles < sms ? tiles : sms;
  const float tensor = tensor_slack * t.groups * 2 * t.columns;
  const float shared = t.groups * (64 * parts + t.columns) + rows + t.columns;  // reads of the products, writes of the copies
  const float cache = active * 128.0f * (rows + t.columns) / l2_bytes;
  const float slowest = tensor > shared ? (tensor > cache ? tensor : cache) : shared > cache ? shared : cache;
  return rounds * ((k_bytes + 127) / 128 * t.slack * slowest + per_value * rows * t.columns) + kernel;
}

}  // namespace frt::tuning
