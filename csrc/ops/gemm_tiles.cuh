// out[m,n] = epilogue(a[m,:] . w[n,:]) for many rows on SM90: tiles move by the tensor copy engine through a ring of shared
// memory, one warp issues the copies, groups of four warps multiply (wgmma) and apply the epilogue to their registers.
// a: [M,K], w: [N,K] (GEGLU: [2N,K], a block takes the same columns of gate and up), both BF16 or both E4M3.
// Blocks are persistent: block i takes tiles i, i + blocks, ... with rows fastest, so that weights are read from memory once.
// FP8 sums are the tensor core's own (about 13 bits a step): no second accumulator, which would halve the tile.
#pragma once
#include "../core/launch.h"
#include "../core/sm90.cuh"
#include "../core/tensor_map.h"
#include "../core/wgmma.cuh"
#include "../gemm/epilogue.h"
#include "../tuning/gemm_tiles.h"
#include "columns.cuh"
#include "gemm_epilogue.cuh"

namespace frt {

inline constexpr int ROW_BYTES = 128;  // of K in one stage
inline constexpr int MAX_STAGES = 8;

// 0.5 x (1 + tanh(u)) for an output type: for BF16 as x / (1 + e^(-2u)), 1e-6 of the value; for E4M3, which keeps 3 bits, with
// the tanh instruction (2^-11), half the special-function work.
__device__ __forceinline__ float gelu_for(float x, bf16) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(1.0f + exp2_fast(-2.302208198f * (x + 0.044715f * x * x * x))));
  return x * r;  // 2.302.. = 2 sqrt(2/pi) / ln 2
}
__device__ __forceinline__ float gelu_for(float x, e4m3) {
  float t;
  const float half = 0.5f * x;
  asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(x * (0.7978845608f + 0.0356774081f * x * x)));
  return half + half * t;
}

// The part of an output tile that one group of warps holds: 64 rows from `row0` on, BN columns from `col0` on, finished in parts
// of 32 columns, the last of which may be narrower: its last lanes have nothing to read and write.
template <int BN, bool GATED, class Out>
struct TileEnd {
  static constexpr int COUNT = (BN + 31) / 32;
  static constexpr bool ADDS = !GATED && sizeof(Out) == 2, EARLY = ADDS && BN <= 128;  // room for the residual in registers
  const GemmArgs& g;
  const float scale, inverse;  // of the sums, of the output
  const int row, col0, quad = threadIdx.x % 4;
  uint4 res[EARLY ? COUNT : 1][2];

  __device__ __forceinline__ TileEnd(const GemmArgs& g, float scale, float inverse, int row0, int col0)
      : g(g), scale(scale), inverse(inverse), row(row0 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4), col0(col0) {}

  // Asks for the residual; called while the last products run. Before the first ones it cost more than it gave.
  __device__ __forceinline__ void ask() {
    if constexpr (EARLY)
      if (uses_res(g.epilogue))
#pragma unroll
        for (int part = 0; part < COUNT; ++part) read(res[part], part);
  }

  __device__ __forceinline__ void store(const float (&acc)[GATED ? 2 : 1][BN / 2], const float* bias) const {
#pragma unroll
    for (int part = 0; part < COUNT; ++part) {
      float v[16] = {};
#pragma unroll
      for (int i = 0; i < min(16, BN / 2 - part * 16); ++i) {
        v[i] = acc[0][part * 16 + i] * scale;
        if (GATED) v[i] = gelu_for(v[i], Out{}) * (acc[GATED][part * 16 + i] * scale);
      }
      if (!GATED && uses_bias(g.epilogue)) {
#pragma unroll
        for (int j = 0; j < min(4, BN / 8 - part * 4); ++j) {
          const float2 b = *reinterpret_cast<const float2*>(bias + part * 32 + j * 8 + quad * 2);
          v[4 * j] += b.x, v[4 * j + 1] += b.y, v[4 * j + 2] += b.x, v[4 * j + 3] += b.y;
        }
      }
      if (!GATED && g.epilogue == BIAS_GELU) {
#pragma unroll
        for (int i = 0; i < 16; ++i) v[i] = gelu_for(v[i], Out{});
      }
      if constexpr (EARLY) {
        if (uses_res(g.epilogue)) add_columns(res[part], v);
      } else if constexpr (ADDS) {
        uint4 late[2];
        if (uses_res(g.epilogue)) read(late, part), add_columns(late, v);
      }
      store_columns(static_cast<Out*>(g.out) + at(part, 0), size_t(8) * g.N, inside(part, 0), inside(part, 1), v, inverse);
    }
  }

 private:
  // The eight columns of part `part` that this lane reads and writes, in its upper row (r = 0) or its lower one.
  __device__ __forceinline__ bool inside(int part, int r) const {
    const int column = part * 32 + quad * 8;
    return row + 8 * r < g.M && column < BN && col0 + column < g.N;
  }
  __device__ __forceinline__ size_t at(int part, int r) const { return size_t(row + 8 * r) * g.N + col0 + part * 32 + quad * 8; }
  __device__ __forceinline__ void read(uint4 (&to)[2], int part) const {
#pragma unroll
    for (int r = 0; r < 2; ++r)
      to[r] = inside(part, r) ? *reinterpret_cast<const uint4*>(static_cast<const bf16*>(g.res) + at(part, r))
                              : make_uint4(0, 0, 0, 0);
  }
};

// Threads of a block: the groups and the copying warp. The largest tile needs more registers than that warp leaves over, so
// there it is a group of its own that gives its registers away.
FRT_BOTH constexpr bool gives_registers(int groups, int columns) { return groups * columns >= 3 * 256; }
FRT_BOTH constexpr int tile_threads(int groups, int columns) { return groups * 128 + (gives_registers(groups, columns) ? 128 : 32); }

template <class T, int GROUPS, int BN, bool GATED, class Out>
__global__ void __launch_bounds__(tile_threads(GROUPS, BN), 1)
    gemm_tiles_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_w, GemmArgs g, int stages,
                      int tiles_m, int tiles) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int BM = GROUPS * 64, A_BYTES = BM * ROW_BYTES, STAGE = A_BYTES + BN * ROW_BYTES;
  constexpr int K_STEP = ROW_BYTES / sizeof(T), PARTS = GATED ? 2 : 1, WIDTH = BN / PARTS;  // columns of the output
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t full[MAX_STAGES], empty[MAX_STAGES];
  __shared__ float biases[GATED ? 1 : 2][GROUPS][GATED ? 2 : BN];  // of this tile and the one before
  uint8_t* const ring = raw + (-shared_address(raw) & 1023);
  const int warp = sm90::warp_index(), lane = threadIdx.x % 32, steps = (g.K + K_STEP - 1) / K_STEP;
  if (threadIdx.x == 0) {
    for (int s = 0; s < stages; ++s) {
      sm90::barrier_init(&full[s], 1);
      sm90::barrier_init(&empty[s], GROUPS * 4);
    }
    sm90::barrier_init_done();
  }
  __syncthreads();

  if (warp >= GROUPS * 4) {  // copies
    if (gives_registers(GROUPS, BN)) sm90::keep_registers<24>();
    if (warp == GROUPS * 4 && lane == 0) {
      auto load_a = [&](int tile, int step, int s) {
        sm90::copy_box(ring + s * STAGE, &map_a, &full[s], step * K_STEP, tile % tiles_m * BM);
      };
      auto load_w = [&](int tile, int step, int s) {
        uint8_t* to = ring + s * STAGE + A_BYTES;
#pragma unroll
        for (int part = 0; part < PARTS; ++part, to += WIDTH * ROW_BYTES)
          sm90::copy_box(to, &map_w, &full[s], step * K_STEP, tile / tiles_m * WIDTH + part * g.N);
      };
      const int first = blockIdx.x, early = min(stages, steps);
      for (int s = 0; s < early; ++s) {  // weights are constant: they need not wait for the kernel before
        sm90::barrier_expect(&full[s], STAGE);
        load_w(first, s, s);
      }
      inputs_ready();
      for (int s = 0; s < early; ++s) load_a(first, s, s);
      int s = early % stages, round = early / stages;
      for (int tile = first; tile < tiles; tile += gridDim.x)
        for (int step = tile == first ? early : 0; step < steps; ++step) {
          sm90::barrier_wait(&empty[s], (round & 1) ^ 1);
          sm90::barrier_expect(&full[s], STAGE);
          load_w(tile, step, s);
          load_a(tile, step, s);
          if (++s == stages) s = 0, ++round;
        }
    }
  } else {
    if (gives_registers(GROUPS, BN)) sm90::take_registers<160>();
    const float scale = sizeof(T) == 1 ? *g.a_scale * *g.w_scale : 1.0f, inverse = inverse_scale<Out>(g.out_scale);  // constants
    inputs_ready();
    const int group = warp / 4;
    auto release = [&](int s) {
      if (lane == 0) sm90::barrier_arrive(&empty[s]);
    };
    int s = 0, round = 0, turn = 0;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x, turn ^= 1) {
      const int n = tile / tiles_m * WIDTH;
      TileEnd<WIDTH, GATED, Out> end(g, scale, inverse, tile % tiles_m * BM + group * 64, n);
      float* const bias = biases[GATED ? 0 : turn][group];
      if (!GATED && uses_bias(g.epilogue))
        for (int i = threadIdx.x % 128; i < BN; i += 128) bias[i] = n + i < g.N ? __ldg(g.bias + n + i) : 0.0f;
      float acc[PARTS][WIDTH / 2];  // gate and up are two products
      int before = 0;
      for (int step = 0; step < steps; ++step) {
        sm90::barrier_wait(&full[s], round & 1);
        const uint64_t a = sm90::k_major(ring + s * STAGE + group * 64 * ROW_BYTES);
        const uint64_t w = sm90::k_major(ring + s * STAGE + A_BYTES);
        sm90::wgmma_fence();
#pragma unroll
        for (int k = 0; k < ROW_BYTES / 32; ++k)
#pragma unroll
          for (int part = 0; part < PARTS; ++part)
            sm90::wgmma(acc[part], a + 2 * k, w + (part * (WIDTH * ROW_BYTES) >> 4) + 2 * k, step + k, T{});
        sm90::wgmma_commit();
        sm90::wgmma_wait<1>();
        if (step) release(before);
        before = s;
        if (++s == stages) s = 0, ++round;
      }
      end.ask();
      sm90::wgmma_wait<0>();
      release(before);
      if (!GATED && uses_bias(g.epilogue)) sm90::group_sync(group);
      end.store(acc, bias);
    }
  }
#endif
}

// What these kernels take: BF16 or E4M3 operands whose rows the copy engine can address, and outputs of at most 16 bits.
inline bool tiles_take(const GemmArgs& g, int sm) {
  if (sm != 90 || (g.a_dtype != BF16 && g.a_dtype != E4M3) || g.epilogue == GATE_RESIDUAL) return false;
  if (g.K * bytes_of(g.a_dtype) % 16) return false;
  if (uses_res(g.epilogue)) return g.res_dtype == BF16 && g.out_dtype == BF16;
  return g.out_dtype == BF16 || (g.out_dtype == E4M3 && g.a_dtype == E4M3);
}
// The same call as the choice of a tile sees it.
inline tuning::Product product_of(const GemmArgs& g) {
  return {g.M, g.columns(), long(g.K) * bytes_of(g.a_dtype), g.epilogue == GEGLU, g.a_dtype == E4M3, uses_res(g.epilogue)};
}

template <class T, int GROUPS, int BN, bool GATED, class Out>
int gemm_tile(const Check& c, const GemmArgs& g, int sms, cudaStream_t stream) {
  constexpr int BM = GROUPS * 64, STAGE = (BM + BN) * ROW_BYTES, WIDTH = BN / (GATED ? 2 : 1), K_STEP = ROW_BYTES / sizeof(T);
  const int tiles_m = divide_up(g.M, BM), tiles = tiles_m * divide_up(g.N, WIDTH);
  const int stages = min(min(MAX_STAGES, max(divide_up(g.K, K_STEP), 2)), 220 * 1024 / STAGE);
  CUtensorMap a, w;
  if (int rc = tensor_map(c, &a, g.a, g.a_dtype, g.M, g.K, g.K, BM, K_STEP)) return rc;
  if (int rc = tensor_map(c, &w, g.w, g.a_dtype, g.columns(), g.K, g.K, WIDTH, K_STEP)) return rc;
  const Grid grid{dim3(min(tiles, sms)), dim3(tile_threads(GROUPS, BN)), size_t(stages) * STAGE + 1024};
  return launch("gemm", gemm_tiles_kernel<T, GROUPS, BN, GATED, Out>, grid, stream, a, w, g, stages, tiles_m, tiles);
}

// Runs the call as row `index` of tuning::gemm_tiles.
template <class T, bool GATED, class Out>
int gemm_tiles(const Check& c, const GemmArgs& g, int index, int sms, cudaStream_t stream) {
  const tuning::Tile tile = tuning::gemm_tiles[index];
#define FRT_TILE(GROUPS, BN) \
  if (tile.groups == GROUPS && tile.columns == BN) return gemm_tile<T, GROUPS, BN, GATED, Out>(c, g, sms, stream);
  FRT_TILE(1, 64)
  FRT_TILE(2, 64)
  FRT_TILE(2, 128)
  FRT_TILE(3, 64)
  if constexpr (GATED) {
    FRT_TILE(3, 128)
    FRT_TILE(3, 256)
  } else {
    FRT_TILE(1, 96)
    if constexpr (sizeof(T) == 1) FRT_TILE(1, 192)
    FRT_TILE(2, 112)
    FRT_TILE(2, 144)
    FRT_TILE(2, 160)
    FRT_TILE(3, 128)
  }
#undef FRT_TILE
  return fail(FRT_BAD_ARGUMENT, c.op, "tile", "?", "is not compiled", c.shape());
}

}  // namespace frt
