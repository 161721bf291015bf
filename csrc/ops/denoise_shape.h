// Sizes of the published action expert (gemma_300m) that the denoise loop is compiled for, its arguments, its blocks and warps.
#pragma once
#include "../core/dtype.h"

namespace frt::denoise {

inline constexpr int D = 1024, MLP = 4096, H = 8, HD = 256, Q = H * HD, QKV = Q + 2 * HD, A = 32;  // A: action values
inline constexpr int ROWS = 16;  // action rows at most: one tile of mma.sync
inline constexpr int MAX_LAYERS = 24, MAX_KEYS = 64, MAX_SLOTS = 28;

// 128 blocks, all resident: each owns 8 columns of D (the residual stream stays with its owner), 32 of MLP, 2 or 3 groups of
// 8 of QKV, and one head with a 16th of the keys. Warps 0-7 compute, warp 8 empties the exchange, 9 loads keys, 10 weights.
inline constexpr int BLOCKS = 128, SPLITS = BLOCKS / H, WARPS = 8;
inline constexpr int CONSUMERS = WARPS * 32, SWEPT = CONSUMERS + 32;
inline constexpr int SWEEPER = WARPS, KEY_LOADER = WARPS + 1, LOADER = WARPS + 2, THREADS = (LOADER + 1) * 32;  // warp numbers

struct Layer {
  const void *qkv, *o, *gate_up, *down;                                       // [N,K] as in the gemm op
  const float *qkv_scale, *o_scale, *gate_up_scale, *down_scale;              // E4M3 only
  const bf16 *k, *v;                                                          // [cache_rows,HD]
};

struct Args {
  Layer layers[MAX_LAYERS];
  const float *in_w, *in_b, *out_w;  // [D,A] [D] [A,D], fp32; out_w times dt
  const float* styles;               // [steps, 2*L+1, 3, D]: scale, shift (not read: see shifts), gate
  const float* shifts;               // [steps, L, QKV + 2*MLP]: the norms' shifts times the weights of qkv and of gate and up
  const float* out_b;                // [steps, A]: times dt, with the final norm's shift times out_w
  const float* scales;               // [steps, L, 4] activation scales, 4 floats apart; E4M3 only
  const float* rope;                 // [cache_rows, HD] (cos, sin)
  const int32_t* prefix_len;
  float* actions;  // [M,A], in place
  char* exchange;  // Exchange::BYTES, all ones before the launch
  int M, L, steps, cache_rows, keys, slots;
  float eps;
};

// Who has published: one counter per kind and group of producers, for a hint when to look (see denoise_exchange.cuh).
enum Kind { H0, H1, H2, HEADS, HIDDEN, PROJ, PARTS, ACTIONS, KINDS };
inline constexpr int GROUPS = 9;

// What blocks tell each other, in bytes from `exchange`. Rows that feed a product are interleaved every 64 bytes (`spread`), so
// that a warp reads whole lines: 512 bytes of 8 rows at a time. Sizes are those of the widest type.
struct Exchange {
  static constexpr size_t H0 = 0, H1 = H0 + ROWS * D * 2, H2 = H1 + ROWS * D * 2, HEADS = H2 + ROWS * D * 2,
                          HIDDEN = HEADS + ROWS * Q * 2, PROJ = HIDDEN + ROWS * MLP * 2,  // [M][QKV] bf16, not interleaved
                          PARTS = PROJ + ROWS * QKV * 2,                  // [H][HD / 16][ROWS][SPLITS][16] fp32
                          SUMS = PARTS + size_t(BLOCKS) * ROWS * HD * 4,  // [H][ROWS][SPLITS] of (max in log2, sum, 0, 0) fp32
                          ACTIONS = SUMS + BLOCKS * ROWS * 16, COUNTERS = ACTIONS + ROWS * A * 4,
                          BYTES = COUNTERS + KINDS * GROUPS * 128;
};
#ifdef __CUDACC__
__device__ __forceinline__
#endif
constexpr int qkv_tiles(int block) { return block < QKV / 8 - 2 * BLOCKS ? 3 : 2; }  // of 8 columns: b, b + BLOCKS, ..
// Where byte k of row 0 lies; row m is m * 64 bytes on.
#ifdef __CUDACC__
__device__ __forceinline__
#endif
constexpr size_t spread(int k) { return size_t(k) / 64 * (ROWS * 64) + k % 64; }

// Points of the computing warps' program at which a benchmark may read the clock.
enum Point {
  LAYER, ATTEND_QUERIES_RECEIVED, ATTEND_KEYS_THERE, ATTEND_SCORES, ATTEND_WEIGHTS, JOIN_PARTS_RECEIVED, NORM_RECEIVED,
  NORM_SQUARES, NORM_DONE, MULTIPLY_OWN_SHARE, MULTIPLY_ALL_SHARES, ACTION_IN_PUBLISHED,
  QKV_PUBLISHED, CLOSE_RECEIVED, CLOSE_PUBLISHED, GATE_UP_PUBLISHED, ACTION_OUT_PUBLISHED, ATTEND_PUBLISHED, JOIN_PUBLISHED
};

}  // namespace frt::denoise
