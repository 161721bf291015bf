// softmax(q k^T * scale) v on SM90 for one kv head of size 256 (Gemma's prefix): query rows of all heads are packed, row
// r = m * H + h, so that they share K and V. A block takes 64 rows. Two groups of four warps take alternating tiles of 96 keys,
// so that one group's softmax runs under the other's products, and join their parts at the end; two more warps copy.
#pragma once
#include "../core/sm90.cuh"
#include "../core/tensor_map.h"
#include "../core/wgmma.cuh"
#include "attention_plain.cuh"
#include "columns.cuh"

namespace frt {

struct WideHead {
  static constexpr int rows = 64, keys = 96, size = 256, boxes = size / 64;  // a box: 64 columns, 128 bytes a row
  static constexpr int q_box = rows * 128, kv_box = keys * 128, kv_tile = boxes * kv_box;
  static constexpr int shared = boxes * q_box + 4 * kv_tile + 1024;
};

// One group's share of the keys: exponents relative to `top` (of scores before scaling), `sum` of them, o = sum of p v.
struct AttentionPart {
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  float o[128] = {};

  // Takes a tile's scores: s becomes their weights, what was summed so far is rescaled. valid: keys of this tile that count.
  __device__ __forceinline__ void weigh(float (&s)[WideHead::keys / 2], int valid, float scale) {
    const int lane = threadIdx.x % 32;
    float next[2] = {top[0], top[1]};
#pragma unroll
    for (int i = 0; i < WideHead::keys / 2; ++i) {
      if (valid < WideHead::keys && i / 4 * 8 + lane % 4 * 2 + i % 2 >= valid) s[i] = -INFINITY;
      next[i / 2 % 2] = fmaxf(next[i / 2 % 2], s[i]);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      next[r] = fmaxf(next[r], __shfl_xor_sync(~0u, next[r], 1));
      next[r] = fmaxf(next[r], __shfl_xor_sync(~0u, next[r], 2));
      const float keep = exp2_fast((top[r] - next[r]) * scale);
      top[r] = next[r];
      sum[r] *= keep;
#pragma unroll
      for (int d = 0; d < 32; ++d) o[4 * d + 2 * r] *= keep, o[4 * d + 2 * r + 1] *= keep;
    }
    const float shift[2] = {top[0] * scale, top[1] * scale};
#pragma unroll
    for (int i = 0; i < WideHead::keys / 2; ++i) {
      s[i] = exp2_fast(s[i] * scale - shift[i / 2 % 2]);
      sum[i / 2 % 2] += s[i];
    }
  }
};

// Columns HALF * 128.. of both groups' parts, joined and stored; `theirs` is what the other group left: [64][128 threads].
template <int HALF, class Out>
__device__ __forceinline__ void join_parts(const AttentionPart& p, const float (&mine)[2], const float (&other)[2],
                                           const float* theirs, Out* out, bool low, bool high, float inverse) {
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    float v[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const int r = i / 2 % 2;
      v[i] = p.o[HALF * 64 + part * 16 + i] * mine[r] + theirs[(part * 16 + i) * 128] * other[r];
    }
    store_columns(out + HALF * 128 + part * 32, size_t(8) * WideHead::size, low, high, v, inverse);
  }
}

template <class Out>
__global__ void __launch_bounds__(384, 1)
    attention_wgmma_kernel(const __grid_constant__ CUtensorMap map_q, const __grid_constant__ CUtensorMap map_k,
                           const __grid_constant__ CUtensorMap map_v, AttentionArgs a, Out* out) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Tile = WideHead;
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t q_full, full[4], empty[4], left_there;  // slots: K of the two groups, V of the two groups
  uint8_t *const qs = raw + (-shared_address(raw) & 1023), *const kv = qs + Tile::boxes * Tile::q_box;
  const int warp = sm90::warp_index(), lane = threadIdx.x % 32, group = warp / 4, first_row = blockIdx.x * Tile::rows;
  if (threadIdx.x == 0) {
    sm90::barrier_init(&q_full, 1);
    sm90::barrier_init(&left_there, 256);
    for (int s = 0; s < 4; ++s) {
      sm90::barrier_init(&full[s], 1);
      sm90::barrier_init(&empty[s], 4);
    }
    sm90::barrier_init_done();
  }
  __syncthreads();
  inputs_ready();
  const int n = valid_keys(a), tiles = (n + Tile::keys - 1) / Tile::keys;

  if (group == 2) {  // copies: warp 8 for the first group, warp 9 for the second
    sm90::keep_registers<24>();
    const int side = warp - 8;
    if (side < 2 && lane == 0) {
      auto load = [&](int slot, const CUtensorMap* map, int tile) {
        sm90::barrier_wait(&empty[slot], (tile / 2 & 1) ^ 1);
        sm90::barrier_expect(&full[slot], Tile::kv_tile);
        for (int box = 0; box < Tile::boxes; ++box)
          sm90::copy_box(kv + slot * Tile::kv_tile + box * Tile::kv_box, map, &full[slot], box * 64, tile * Tile::keys);
      };
      if (side == 0) {
        sm90::barrier_expect(&q_full, Tile::boxes * Tile::q_box);
        for (int box = 0; box < Tile::boxes; ++box)
          sm90::copy_box(qs + box * Tile::q_box, &map_q, &q_full, box * 64, first_row);
      }
      for (int tile = side; tile < tiles; tile += 2) {
        load(side, &map_k, tile);
        load(2 + side, &map_v, tile);
      }
    }
  } else {
    sm90::take_registers<240>();
    uint8_t *const ks = kv + group * Tile::kv_tile, *const vs = ks + 2 * Tile::kv_tile;
    const float scale = a.scale * 1.4426950408889634f;  // to powers of two
    AttentionPart p;
    sm90::barrier_wait(&q_full, 0);
    for (int tile = group; tile < tiles; tile += 2) {
      const int parity = tile / 2 & 1, valid = n - tile * Tile::keys;
      float s[Tile::keys / 2];
      sm90::barrier_wait(&full[group], parity);
      sm90::wgmma_fence();
#pragma unroll
      for (int k = 0; k < Tile::size / 16; ++k)
        sm90::wgmma(s, sm90::k_major(qs + k / 4 * Tile::q_box) + k % 4 * 2,
                    sm90::k_major(ks + k / 4 * Tile::kv_box) + k % 4 * 2, k, bf16{});
      sm90::wgmma_commit();
      sm90::wgmma_wait<0>();
      if (lane == 0) sm90::barrier_arrive(&empty[group]);
      p.weigh(s, valid, scale);
      sm90::barrier_wait(&full[2 + group], parity);
      if (valid < Tile::keys) {  // no weight times whatever lies past the valid keys must be nothing: it may be no number
        for (int i = threadIdx.x % 128; i < (Tile::keys - valid) * Tile::boxes * 8; i += 128) {
          const int unit = i % 8, box = i / 8 % Tile::boxes, row = valid + i / (8 * Tile::boxes);
          *reinterpret_cast<uint4*>(vs + box * Tile::kv_box + row * 128 + unit * 16) = make_uint4(0, 0, 0, 0);
        }
        sm90::writes_for_copies();
        sm90::group_sync(group);
      }
      unsigned w[Tile::keys / 16][4];
#pragma unroll
      for (int i = 0; i < Tile::keys / 4; ++i) w[i / 4][i % 4] = pack_bf16(s[2 * i], s[2 * i + 1]);
      sm90::wgmma_fence();
#pragma unroll
      for (int k = 0; k < Tile::keys / 16; ++k) sm90::wgmma_values(p.o, w[k], sm90::n_major(vs + k * 16 * 128, Tile::kv_box));
      sm90::wgmma_commit();
      sm90::wgmma_wait<0>();
      if (lane == 0) sm90::barrier_arrive(&empty[2 + group]);
    }
    // each group keeps half of the columns and leaves the other half, its maxima and its sums in its own K slot
    const int thread = threadIdx.x % 128;
    float *const left = reinterpret_cast<float*>(ks), *const theirs = reinterpret_cast<float*>(kv + (1 - group) * Tile::kv_tile);
    const int give = group == 0 ? 64 : 0;
    sm90::group_sync(group);  // all four warps have read K
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      p.sum[r] += __shfl_xor_sync(~0u, p.sum[r], 1);
      p.sum[r] += __shfl_xor_sync(~0u, p.sum[r], 2);
      left[(64 + r) * 128 + thread] = p.top[r], left[(66 + r) * 128 + thread] = p.sum[r];
    }
#pragma unroll
    for (int i = 0; i < 64; ++i) left[i * 128 + thread] = give ? p.o[64 + i] : p.o[i];
    sm90::barrier_arrive(&left_there);
    sm90::barrier_wait(&left_there, 0);
    float mine[2], other[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float top = theirs[(64 + r) * 128 + thread], sum = theirs[(66 + r) * 128 + thread], both = fmaxf(top, p.top[r]);
      mine[r] = exp2f((p.top[r] - both) * scale), other[r] = exp2f((top - both) * scale);
      const float one = 1.0f / (p.sum[r] * mine[r] + sum * other[r]);
      mine[r] *= one, other[r] *= one;
    }
    const int row = first_row + warp % 4 * 16 + lane / 4, rows = a.M * a.H;
    Out* to = out + size_t(row) * Tile::size + lane % 4 * 8;
    const float inverse = inverse_scale<Out>(a.out_scale);
    if (group == 0)
      join_parts<0>(p, mine, other, theirs + thread, to, row < rows, row + 8 < rows, inverse);
    else
      join_parts<1>(p, mine, other, theirs + thread, to, row < rows, row + 8 < rows, inverse);
  }
#endif
}

// Many rows, one kv head of 256, rows of q without a gap between them.
inline bool wgmma_takes(const AttentionArgs& a, int sm) {
  return sm == 90 && a.B == 1 && a.KVH == 1 && a.HD == WideHead::size && a.q_stride == a.H * a.HD && long(a.M) * a.H >= 1024;
}

template <class Out>
int attention_wgmma(const Check& c, const AttentionArgs& a, const bf16* q, const bf16* k, const bf16* v, Out* out,
                    cudaStream_t stream) {
  using Tile = WideHead;
  const int rows = a.M * a.H;
  CUtensorMap maps[3];
  if (int rc = tensor_map(c, &maps[0], q, BF16, rows, Tile::size, Tile::size, Tile::rows, 64)) return rc;
  if (int rc = tensor_map(c, &maps[1], k, BF16, a.KV, Tile::size, a.kv_stride, Tile::keys, 64)) return rc;
  if (int rc = tensor_map(c, &maps[2], v, BF16, a.KV, Tile::size, a.kv_stride, Tile::keys, 64)) return rc;
  const Grid grid{dim3(divide_up(rows, Tile::rows)), dim3(384), Tile::shared};
  return launch("attention", attention_wgmma_kernel<Out>, grid, stream, maps[0], maps[1], maps[2], a, out);
}

}  // namespace frt
