// Sizes of the published action expert (gemma_300m) that the denoise loop is compiled for, its arguments, its blocks and warps.
#pragma once
#include "../core/dtype.h"

namespace frt::denoise {

inline constexpr int D = 1024, MLP = 4096, H = 8, HD = 256, Q = H * HD, QKV = Q + 2 * HD, A = 32;  // A: action values
inline constexpr int ROWS = 16;  // action rows at most: one tile of mma.sync
inline constexpr int MAX_LAYERS = 24, MAX_KEYS = 64, MAX_SLOTS = 28;

// 128 blocks, all resident: each owns 8 columns of D (the residual stream stays with its owner), 32 of MLP, 2 or 3 groups of
// 8 of QKV, and one head with a 16th of the keys. Warps 0-7 compute, warp 8 empties the exchange, warp 9 loads weights.
inline constexpr int BLOCKS = 128, SPLITS = BLOCKS / H, WARPS = 8;
inline constexpr int CONSUMERS = WARPS * 32, SWEPT = CONSUMERS + 32, THREADS = SWEPT + 32;
inline constexpr int SWEEPER = WARPS, LOADER = WARPS + 1;  // warp numbers

struct Layer {
  const void *qkv, *o, *gate_up, *down;                                       // [N,K] as in the gemm op
  const float *qkv_scale, *o_scale, *gate_up_scale, *down_scale;              // E4M3 only
  const bf16 *k, *v;                                                          // [cache_rows,HD]
};

struct Args {
  Layer layers[MAX_LAYERS];
  const float *in_w, *in_b, *out_w, *out_b;  // [D,A] [D] [A,D] [A], fp32; out_* times dt
  const float* styles;                       // [steps, 2*L+1, 3, D]
  const float* scales;                       // [steps, L, 4] activation scales, 4 floats apart; E4M3 only
  const float* rope;                         // [cache_rows, HD] (cos, sin)
  const int32_t* prefix_len;
  float* actions;  // [M,A], in place
  char* exchange;  // Exchange::BYTES, all ones before the launch
  int M, L, steps, cache_rows, keys, slots;
  float eps;
};

// What blocks tell each other, in bytes from `exchange`. Rows have the stride of the widest type.
struct Exchange {
  static constexpr int PART = HD + 4;  // floats of one partial attention row: values, max (log2), sum, 2 unused
  static constexpr size_t H0 = 0, H1 = H0 + ROWS * D * 2, H2 = H1 + ROWS * D * 2, PROJ = H2 + ROWS * D * 2,
                          PARTS = PROJ + ROWS * QKV * 2, HEADS = PARTS + size_t(BLOCKS) * ROWS * PART * 4,
                          HIDDEN = HEADS + ROWS * Q * 2, ACTIONS = HIDDEN + ROWS * MLP * 2,
                          BYTES = ACTIONS + ROWS * A * 4;
};

}  // namespace frt::denoise
