// softmax(q k^T * scale) v where all keys of a head fit in shared memory (a vision tower: up to 256): no loop over keys, so the
// latency of one round of loads and products. A block takes 64 query rows of one kv head; four teams of four warps take 64 keys
// each and are joined in a fixed order. mma.sync, BF16; head sizes up to HDP, a multiple of 16.
#pragma once
#include "../core/mma.cuh"
#include "attention_mma.cuh"

namespace frt {

template <int HDP>
struct WholeTile {
  static constexpr int rows = 64, keys = 64, teams = 4;
  static constexpr int stride = HDP + 8;  // of a BF16 row: ldmatrix without bank conflicts
  static constexpr int part_stride = HDP + 4;  // of an fp32 row of a team's result
  static constexpr int tile = keys * stride;
  static constexpr size_t shared = (size_t(1 + 2 * teams) * tile) * sizeof(bf16) + 2 * teams * rows * sizeof(float);
  static_assert(teams * rows * part_stride * sizeof(float) <= 2 * teams * tile * sizeof(bf16), "the results take the place of K and V");
};

template <int HDP, class Out>
__global__ void __launch_bounds__(512, 1) attention_whole_kernel(AttentionArgs a, const bf16* q, const bf16* k, const bf16* v, Out* out) {
  using Tile = WholeTile<HDP>;
  constexpr int UNITS = HDP / 8, KT = Tile::keys / 8, DT = HDP / 8;
  extern __shared__ __align__(16) bf16 smem[];
  const int team = threadIdx.x / 128, thread = threadIdx.x % 128, warp = thread / 32, lane = threadIdx.x % 32;
  bf16 *const qs = smem, *const ks = qs + Tile::tile * (1 + team), *const vs = ks + Tile::tile * Tile::teams;
  float* const parts = reinterpret_cast<float*>(qs + Tile::tile);
  float* const stats = reinterpret_cast<float*>(qs + Tile::tile * (1 + 2 * Tile::teams));  // [teams][rows] maxima, then sums
  inputs_ready();
  const int G = a.H / a.KVH, rows = a.M * G, b = blockIdx.y / a.KVH, kvh = blockIdx.y % a.KVH, first_row = blockIdx.x * Tile::rows;
  const GroupSize group(G);
  const int n = valid_keys(a), first_key = team * Tile::keys;
  const size_t kv_base = size_t(b) * a.KV * a.kv_stride + kvh * a.HD;
  for (int i = threadIdx.x; i < Tile::rows * UNITS; i += blockDim.x) {
    const int r = i / UNITS, unit = i % UNITS, row = first_row + r, m = group.divide(row);
    const bool valid = row < rows && unit * 8 < a.HD;
    const bf16* from = q + (size_t(b) * a.M + m) * a.q_stride + (kvh * G + row - m * G) * a.HD + unit * 8;
    copy16(qs + r * Tile::stride + unit * 8, valid ? from : q, valid);
  }
#pragma unroll
  for (int pass = 0; pass < 2; ++pass) {
    const bf16* base = (pass ? v : k) + kv_base;
    for (int i = thread; i < Tile::keys * UNITS; i += 128) {
      const int r = i / UNITS, unit = i % UNITS, key = first_key + r;
      const bool valid = key < n && unit * 8 < a.HD;
      copy16((pass ? vs : ks) + r * Tile::stride + unit * 8, valid ? base + size_t(key) * a.kv_stride + unit * 8 : base, valid);
    }
    copy_commit();  // Q and K together, then V
  }
  const float scale = a.scale * 1.4426950408889634f;  // to powers of two
  float s[KT][4] = {}, o[DT][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  copy_wait<1>();
  __syncthreads();
  const bf16* q_row = qs + (warp * 16 + lane % 16) * Tile::stride + lane / 16 * 8;
  const bf16* k_row = ks + (lane / 16 * 8 + lane % 8) * Tile::stride + lane / 8 % 2 * 8;
  const bf16* v_row = vs + lane % 16 * Tile::stride + lane / 16 * 8;
#pragma unroll
  for (int d = 0; d < HDP; d += 16) {
    unsigned qa[4];
    load_matrix(qa, q_row + d);
#pragma unroll
    for (int t = 0; t < KT; t += 2) {
      unsigned kf[4];
      load_matrix(kf, k_row + t * 8 * Tile::stride + d);
      mma(s[t], qa, kf[0], kf[1]);
      mma(s[t + 1], qa, kf[2], kf[3]);
    }
  }
#pragma unroll
  for (int t = 0; t < KT; ++t)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (first_key + t * 8 + lane % 4 * 2 + i % 2 >= n) s[t][i] = -INFINITY;
      top[i / 2] = fmaxf(top[i / 2], s[t][i]);
    }
  float shift[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
    top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2));
    shift[r] = top[r] == -INFINITY ? 0 : top[r] * scale;  // a team without a valid key: all weights 0
  }
#pragma unroll
  for (int t = 0; t < KT; ++t)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      s[t][i] = exp2f(s[t][i] * scale - shift[i / 2]);
      sum[i / 2] += s[t][i];
    }
  copy_wait<0>();
  __syncthreads();
#pragma unroll
  for (int t = 0; t < KT; t += 2) {
    const unsigned p[4] = {pack_bf16(s[t][0], s[t][1]), pack_bf16(s[t][2], s[t][3]), pack_bf16(s[t + 1][0], s[t + 1][1]),
                           pack_bf16(s[t + 1][2], s[t + 1][3])};
#pragma unroll
    for (int d = 0; d < DT; d += 2) {
      unsigned vf[4];
      load_matrix_transposed(vf, v_row + t * 8 * Tile::stride + d * 8);
      mma(o[d], p, vf[0], vf[1]);
      mma(o[d + 1], p, vf[2], vf[3]);
    }
  }
  __syncthreads();  // K and V are read: the results may take their place
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
    sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    const int row = warp * 16 + lane / 4 + 8 * r;
    if (lane % 4 == 0) {
      stats[team * Tile::rows + row] = top[r];
      stats[(Tile::teams + team) * Tile::rows + row] = sum[r];
    }
#pragma unroll
    for (int d = 0; d < DT; ++d)
      *reinterpret_cast<float2*>(parts + (team * Tile::rows + row) * Tile::part_stride + d * 8 + lane % 4 * 2) =
          make_float2(o[d][2 * r], o[d][2 * r + 1]);
  }
  __syncthreads();
  const float inverse = inverse_scale<Out>(a.out_scale);
  for (int i = threadIdx.x; i < Tile::rows * UNITS; i += blockDim.x) {
    const int r = i / UNITS, d = i % UNITS * 8, row = first_row + r, m = group.divide(row);
    if (row >= rows || d >= a.HD) continue;
    float both = -INFINITY, total = 0, y[8] = {};
#pragma unroll
    for (int p = 0; p < Tile::teams; ++p) both = fmaxf(both, stats[p * Tile::rows + r]);
#pragma unroll
    for (int p = 0; p < Tile::teams; ++p) {
      const float weight = exp2f((stats[p * Tile::rows + r] - both) * scale);
      total += weight * stats[(Tile::teams + p) * Tile::rows + r];
      float part[8];
      load8(parts + (p * Tile::rows + r) * Tile::part_stride + d, part);
#pragma unroll
      for (int j = 0; j < 8; ++j) y[j] += weight * part[j];
    }
    const float one = 1.0f / total;
#pragma unroll
    for (int j = 0; j < 8; ++j) y[j] *= one;
    store8(out + (size_t(b) * a.M + m) * a.H * a.HD + (kvh * G + row - m * G) * a.HD + d, y, inverse);
  }
}

// Few keys, and GPUs with 103 KB of shared memory for a block.
inline bool whole_takes(const AttentionArgs& a, int sm) {
  return a.KV <= WholeTile<80>::keys * WholeTile<80>::teams && a.HD <= 80 && long(a.M) * a.B * a.H >= 1024 &&
         (sm == 80 || sm == 87 || sm == 90 || sm == 110);
}

template <int HDP, class Out>
int attention_whole(const AttentionArgs& a, const bf16* q, const bf16* k, const bf16* v, Out* out, cudaStream_t stream) {
  const Grid grid{dim3(divide_up(long(a.M) * (a.H / a.KVH), WholeTile<HDP>::rows), a.B * a.KVH), dim3(512), WholeTile<HDP>::shared};
  return launch("attention", attention_whole_kernel<HDP, Out>, grid, stream, a, q, k, v, out);
}

}  // namespace frt
