// out[m,n] = epilogue(a[m,:] . w[n,:]) for many rows on SM90: tiles move by the tensor copy engine through a ring of shared
// memory, one warp issues the copies, groups of four warps multiply (wgmma) and apply the epilogue to their registers.
// a: [M,K], w: [N,K] (GEGLU: [2N,K], a block takes the same columns of gate and up), both BF16 or both E4M3.
// Blocks of a cluster that share rows or columns each load a part of the common operand and send it to all of them. Where a tile
// is shared out along K, its blocks send each other their sums, always added in the same order. Blocks are persistent: cluster
// i takes tiles i, i + clusters, ... with rows fastest, so that weights are read from memory once.
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

// How one call is cut up; everything that is not in the tile's template arguments.
struct TileGrid {
  int across_m, across_n, across_k, stages;
  int tiles_m, tiles;  // of clusters: along the rows, in all
};

// Float4s of one group of warps for the sums that other blocks of its tile send: [from block][part][4][128 threads].
template <int BN>
__host__ __device__ constexpr int sums_at(int from, int part, int across_k) {
  return (from * ((BN / 32 + across_k - 1) / across_k) + part) * 4 * 128;
}

inline constexpr int ROW_BYTES = 128;  // of K in one stage
inline constexpr int MAX_STAGES = 8;

// 0.5 x (1 + tanh(u)) for an output type: for BF16 as x / (1 + e^(-2u)), 1e-6 of the value; for E4M3, which keeps 3 bits, with
// the tanh instruction (2^-11), half the special-function work.
__device__ __forceinline__ float gelu_for(float x, bf16) {
  float e, r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(-2.302208198f * (x + 0.044715f * x * x * x)));  // 2 sqrt(2/pi) / ln 2
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(1.0f + e));
  return x * r;
}
__device__ __forceinline__ float gelu_for(float x, e4m3) {
  float t;
  const float half = 0.5f * x;
  asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(x * (0.7978845608f + 0.0356774081f * x * x)));
  return half + half * t;
}

// The part of an output tile that one group of warps holds: 64 rows from `row0` on, BN columns from `col0` on, in parts of 32
// columns. Where the K of a tile is spread over blocks, block `k` of `across_k` finishes the parts k, k + across_k, ...
template <int BN, bool GATED, class Out>
struct TileEnd {
  const GemmArgs& g;
  const float scale, inverse;  // of the sums, of the output
  const int row, col0, quad = threadIdx.x % 4;
  static constexpr bool EARLY = !GATED && sizeof(Out) == 2 && BN <= 128;  // room for the residual in registers
  uint4 res[EARLY ? BN / 32 : 1][2];

  __device__ __forceinline__ TileEnd(const GemmArgs& g, float scale, float inverse, int row0, int col0)
      : g(g), scale(scale), inverse(inverse), row(row0 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4), col0(col0) {}

  // Asks for the residual; called while the last products run. Before the first ones it cost more than it gave.
  __device__ __forceinline__ void ask() {
    if constexpr (EARLY)
      if (uses_res(g.epilogue))
#pragma unroll
        for (int part = 0; part < BN / 32; ++part) read(res[part], part);
  }

  __device__ __forceinline__ void store(const float (&acc)[GATED ? 2 : 1][BN / 2], const float* bias, int k, int across_k,
                                        const float4* sums) const {
#pragma unroll
    for (int part = 0; part < BN / 32; ++part) {
      float v[16];
      if (!GATED && across_k > 1) {
        if (part % across_k != k) continue;
        add_parts(v, acc[0], part, k, across_k, sums);
      } else {
#pragma unroll
        for (int i = 0; i < 16; ++i) v[i] = acc[0][part * 16 + i];
      }
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        v[i] *= scale;
        if (GATED) v[i] = gelu_for(v[i], Out{}) * (acc[GATED][part * 16 + i] * scale);
      }
      finish(v, part, bias);
    }
  }

 private:
  __device__ __forceinline__ void read(uint4 (&to)[2], int part) const {
    const int mine = col0 + part * 32 + quad * 8;
#pragma unroll
    for (int r = 0; r < 2; ++r)
      to[r] = row + 8 * r < g.M && mine < g.N
                  ? *reinterpret_cast<const uint4*>(static_cast<const bf16*>(g.res) + size_t(row + 8 * r) * g.N + mine)
                  : make_uint4(0, 0, 0, 0);
  }
  __device__ __forceinline__ void finish(float (&v)[16], int part, const float* bias) const {
    const int mine = col0 + part * 32 + quad * 8;  // the eight columns that this lane reads and writes
    const bool low = row < g.M && mine < g.N, high = row + 8 < g.M && mine < g.N;
    const size_t at = size_t(row) * g.N + mine, step = size_t(8) * g.N;
    if (!GATED && uses_bias(g.epilogue)) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
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
    } else if constexpr (!GATED && sizeof(Out) == 2) {
      uint4 late[2];
      if (uses_res(g.epilogue)) read(late, part), add_columns(late, v);
    }
    store_columns(static_cast<Out*>(g.out) + at, step, low, high, v, inverse);
  }
  // v = the sums of all blocks for a part, added in the order of the blocks.
  __device__ __forceinline__ void add_parts(float (&v)[16], const float (&acc)[BN / 2], int part, int k, int across_k,
                                            const float4* sums) const {
#pragma unroll
    for (int i = 0; i < 16; ++i) v[i] = 0;
    for (int from = 0; from < across_k; ++from) {
      const float4* theirs = sums + sums_at<BN>(from - (from > k), part / across_k, across_k);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float4 x = from == k ? make_float4(acc[part * 16 + 4 * i], acc[part * 16 + 4 * i + 1], acc[part * 16 + 4 * i + 2],
                                                 acc[part * 16 + 4 * i + 3])
                                   : theirs[i * 128];
        v[4 * i] += x.x, v[4 * i + 1] += x.y, v[4 * i + 2] += x.z, v[4 * i + 3] += x.w;
      }
    }
  }
};

// Threads of a block: the groups and the copying warp. The largest tile needs more registers than that warp leaves over, so
// there it is a group of its own that gives its registers away.
FRT_BOTH constexpr bool gives_registers(int groups, int columns) { return groups * columns >= 3 * 256; }
FRT_BOTH constexpr int tile_threads(int groups, int columns) { return groups * 128 + (gives_registers(groups, columns) ? 128 : 32); }

template <class T, int GROUPS, int BN, bool GATED, class Out>
__global__ void __launch_bounds__(tile_threads(GROUPS, BN), 1)
    gemm_tiles_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_w, GemmArgs g, TileGrid t) {
  constexpr int BM = GROUPS * 64, A_BYTES = BM * ROW_BYTES, STAGE = A_BYTES + BN * ROW_BYTES;
  constexpr int K_STEP = ROW_BYTES / sizeof(T), PARTS = GATED ? 2 : 1;
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t full[MAX_STAGES], empty[MAX_STAGES];
  __shared__ float biases[GATED ? 1 : 2][GROUPS][GATED ? 2 : BN];  // of this tile and the one before
  uint8_t* const ring = raw + (-shared_address(raw) & 1023);
  const int warp = sm90::warp_index(), lane = threadIdx.x % 32, blocks = t.across_m * t.across_n * t.across_k;
  const int rank = sm90::cluster_rank(), mine_m = rank % t.across_m, mine_n = rank / t.across_m % t.across_n;
  const int mine_k = rank / (t.across_m * t.across_n), all_steps = (g.K + K_STEP - 1) / K_STEP, stride = gridDim.x / blocks;
  const int first_step = all_steps * mine_k / t.across_k, steps = all_steps * (mine_k + 1) / t.across_k - first_step;
  if (threadIdx.x == 0) {
    for (int s = 0; s < t.stages; ++s) {
      sm90::barrier_init(&full[s], 1);
      sm90::barrier_init(&empty[s], GROUPS * 4 * (t.across_m + t.across_n - 1));
    }
    sm90::barrier_init_done();
  }
  if (blocks > 1) sm90::cluster_sync(); else __syncthreads();

  if (warp >= GROUPS * 4) {  // copies
    if (gives_registers(GROUPS, BN)) sm90::keep_registers<24>();
    if (warp == GROUPS * 4 && lane == 0) {
      const int a_part = BM / t.across_n, w_part = BN / PARTS / t.across_m;  // rows that this block loads
      const int plane = t.across_m * t.across_n, base = mine_k * plane;  // ranks of the blocks with this part of K
      const uint16_t same_m = uint16_t(((1u << plane) - 1) / ((1u << t.across_m) - 1) << (base + mine_m));
      const uint16_t same_n = uint16_t(((1u << t.across_m) - 1) << (base + mine_n * t.across_m));
      auto load_a = [&](int tile, int step, int s) {
        const int m = ((tile % t.tiles_m) * t.across_m + mine_m) * BM + mine_n * a_part;
        uint8_t* to = ring + s * STAGE + mine_n * a_part * ROW_BYTES;
        if (t.across_n > 1) sm90::copy_box(to, &map_a, &full[s], (first_step + step) * K_STEP, m, same_m);
        else sm90::copy_box(to, &map_a, &full[s], (first_step + step) * K_STEP, m);
      };
      auto load_w = [&](int tile, int step, int s) {
        const int n = (tile / t.tiles_m * t.across_n + mine_n) * (BN / PARTS) + mine_m * w_part;
        uint8_t* to = ring + s * STAGE + A_BYTES + mine_m * w_part * ROW_BYTES;
#pragma unroll
        for (int part = 0; part < PARTS; ++part, to += BN / PARTS * ROW_BYTES) {
          if (t.across_m > 1) sm90::copy_box(to, &map_w, &full[s], (first_step + step) * K_STEP, n + part * g.N, same_n);
          else sm90::copy_box(to, &map_w, &full[s], (first_step + step) * K_STEP, n + part * g.N);
        }
      };
      const int first = blockIdx.x / blocks, early = min(t.stages, steps);
      for (int s = 0; s < early; ++s) {  // weights are constant: they need not wait for the kernel before
        sm90::barrier_expect(&full[s], STAGE);
        load_w(first, s, s);
      }
      inputs_ready();
      for (int s = 0; s < early; ++s) load_a(first, s, s);
      int s = early % t.stages, round = early / t.stages;
      for (int tile = first; tile < t.tiles; tile += stride)
        for (int step = tile == first ? early : 0; step < steps; ++step) {
          sm90::barrier_wait(&empty[s], (round & 1) ^ 1);
          sm90::barrier_expect(&full[s], STAGE);
          load_w(tile, step, s);
          load_a(tile, step, s);
          if (++s == t.stages) s = 0, ++round;
        }
    }
    __syncwarp();
    if (t.across_k > 1) sm90::cluster_sync();  // the sums are sent
  } else {
    if (gives_registers(GROUPS, BN)) sm90::take_registers<160>();
    const float scale = sizeof(T) == 1 ? *g.a_scale * *g.w_scale : 1.0f, inverse = inverse_scale<Out>(g.out_scale);  // constants
    inputs_ready();
    const int group = warp / 4;
    // lane l frees a stage at the l-th block whose copies land in it: this block's column of the cluster, then its row
    const int other = lane - t.across_m, base = mine_k * t.across_m * t.across_n;
    const int target = base + (lane < t.across_m ? mine_n * t.across_m + lane
                                                 : (other + (other >= mine_n)) * t.across_m + mine_m);
    auto release = [&](int s) {
      if (lane < t.across_m + t.across_n - 1) {
        if (t.across_m * t.across_n > 1) sm90::barrier_arrive(&empty[s], target); else sm90::barrier_arrive(&empty[s]);
      }
    };
    int s = 0, round = 0, turn = 0;
    for (int tile = blockIdx.x / blocks; tile < t.tiles; tile += stride, turn ^= 1) {
      const int m = ((tile % t.tiles_m) * t.across_m + mine_m) * BM + group * 64;
      const int n = (tile / t.tiles_m * t.across_n + mine_n) * (BN / PARTS);
      TileEnd<BN / PARTS, GATED, Out> end(g, scale, inverse, m, n);
      float* const bias = biases[GATED ? 0 : turn][group];
      if (!GATED && uses_bias(g.epilogue))
        for (int i = threadIdx.x % 128; i < BN; i += 128) bias[i] = n + i < g.N ? __ldg(g.bias + n + i) : 0.0f;
      float acc[PARTS][BN / PARTS / 2];  // gate and up are two products
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
            sm90::wgmma(acc[part], a + 2 * k, w + (part * (BN / PARTS * ROW_BYTES) >> 4) + 2 * k, step + k, T{});
        sm90::wgmma_commit();
        sm90::wgmma_wait<1>();
        if (step) release(before);
        before = s;
        if (++s == t.stages) s = 0, ++round;
      }
      end.ask();
      sm90::wgmma_wait<0>();
      release(before);
      if (!GATED && uses_bias(g.epilogue)) sm90::group_sync(1 + group, 128);
      float4* const sums = reinterpret_cast<float4*>(ring + t.stages * STAGE) +
                           group * sums_at<BN>(t.across_k - 1, 0, t.across_k) + threadIdx.x % 128;
      if (!GATED && t.across_k > 1) {  // then there is one tile a block
        const int plane = t.across_m * t.across_n;
#pragma unroll
        for (int part = 0; part < BN / 32; ++part) {
          const int to = part % t.across_k;
          if (to == mine_k) continue;
          const uint32_t there = sm90::address_at(sums + sums_at<BN>(mine_k - (mine_k > to), part / t.across_k, t.across_k),
                                                  rank + (to - mine_k) * plane);
#pragma unroll
          for (int i = 0; i < 4; ++i) sm90::store_at(there + i * 128 * 16, &acc[0][(part * 16 + 4 * i) % (BN / PARTS / 2)]);
        }
        sm90::cluster_sync();
      }
      end.store(acc, bias, mine_k, t.across_k, sums);
    }
  }
  if (blocks > 1) sm90::cluster_sync();  // no block leaves while others may still write to it
}

// One way of running a call: tile `index` of the tuning table. Rules: the op's own, BF16 or E4M3 operands and epilogues here.
inline bool tiles_take(const GemmArgs& g, int sm) {
  if (sm != 90 || (g.a_dtype != BF16 && g.a_dtype != E4M3) || g.epilogue == GATE_RESIDUAL) return false;
  if (g.K * bytes_of(g.a_dtype) % 16) return false;  // rows that the copy engine can address
  if (uses_res(g.epilogue)) return g.res_dtype == BF16 && g.out_dtype == BF16;
  return g.out_dtype == BF16 || (g.out_dtype == E4M3 && g.a_dtype == E4M3);
}
inline bool tile_takes(const GemmArgs& g, const tuning::Tile& t) {
  const int part = t.columns / (g.epilogue == GEGLU ? 2 : 1), steps = divide_up(long(g.K) * bytes_of(g.a_dtype), ROW_BYTES);
  if (t.across_k > 1 && (g.epilogue == GEGLU || steps < 2 * t.across_k)) return false;
  return part % 32 == 0 && part / t.across_m % 8 == 0 && t.groups * 64 / t.across_n % 8 == 0 &&
         (g.epilogue == GEGLU || t.groups * t.columns < 3 * 256);
}

template <class T, int GROUPS, int BN, bool GATED, class Out>
int gemm_tile(const Check& c, const GemmArgs& g, const tuning::Tile& tile, int sms, cudaStream_t stream) {
  constexpr int BM = GROUPS * 64, STAGE = (BM + BN) * ROW_BYTES, PARTS = GATED ? 2 : 1, K_STEP = ROW_BYTES / sizeof(T);
  const int blocks = tile.across_m * tile.across_n * tile.across_k, steps = divide_up(g.K, K_STEP);
  const int sums = GATED ? 0 : GROUPS * sums_at<BN>(tile.across_k - 1, 0, tile.across_k) * int(sizeof(float4));
  TileGrid t{tile.across_m, tile.across_n, tile.across_k, 0, 0, 0};
  t.stages = min(min(tile.stages, max(divide_up(steps, tile.across_k), 2)), (220 * 1024 - sums) / STAGE);
  t.tiles_m = divide_up(g.M, BM * tile.across_m);
  t.tiles = t.tiles_m * divide_up(g.N, BN / PARTS * tile.across_n);
  CUtensorMap a, w;
  if (int rc = tensor_map(c, &a, g.a, g.a_dtype, g.M, g.K, g.K, BM / tile.across_n, K_STEP)) return rc;
  if (int rc = tensor_map(c, &w, g.w, g.a_dtype, g.columns(), g.K, g.K, BN / PARTS / tile.across_m, K_STEP)) return rc;
  const int clusters = tile.across_k > 1 ? t.tiles : min(t.tiles, sms / blocks);
  const Grid grid{dim3(clusters * blocks), dim3(tile_threads(GROUPS, BN)), size_t(t.stages) * STAGE + sums + 1024, blocks};
  return launch("gemm", gemm_tiles_kernel<T, GROUPS, BN, GATED, Out>, grid, stream, a, w, g, t);
}

// Runs the call as row `index` of tuning::gemm_tiles.
template <class T, bool GATED, class Out>
int gemm_tiles(const Check& c, const GemmArgs& g, int index, int sms, cudaStream_t stream) {
  const tuning::Tile tile = tuning::gemm_tiles[index];
#define FRT_TILE(GROUPS, BN) \
  if (tile.groups == GROUPS && tile.columns == BN) return gemm_tile<T, GROUPS, BN, GATED, Out>(c, g, tile, sms, stream);
  FRT_TILE(1, 64)
  FRT_TILE(1, 128)
  FRT_TILE(2, 64)
  FRT_TILE(2, 128)
  FRT_TILE(2, 256)
  FRT_TILE(3, 64)
  FRT_TILE(3, 128)
  if constexpr (GATED) {
    FRT_TILE(3, 256)
  } else {
    FRT_TILE(2, 96)
    FRT_TILE(2, 160)
    FRT_TILE(3, 96)
    FRT_TILE(3, 160)
  }
#undef FRT_TILE
  return fail(FRT_BAD_ARGUMENT, c.op, "tile", "?", "is not compiled", c.shape());
}

}  // namespace frt
