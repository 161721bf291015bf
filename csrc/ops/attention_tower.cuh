// softmax(q k^T * scale) v on SM90 for the vision tower: heads of 72, as many kv heads as heads, at most 256 keys. All keys of
// a head are in shared memory at once, so there is no loop over keys: one round of loads, one of scores, one of values.
// A block takes 64 query rows of one head, each of its two groups of four warps half of the keys; they join their parts at the
// end. The first 64 columns of a head lie as the copy engine swizzles rows of 128 bytes, the last 8 as rows of 16 bytes; scores
// are over 80 columns, of which the last 8 are zeros.
#pragma once
#include "../core/sm90.cuh"
#include "../core/tensor_map.h"
#include "../core/wgmma.cuh"
#include "attention_plain.cuh"
#include "columns.cuh"

namespace frt {

struct Tower {
  static constexpr int rows = 64, keys = 256, half = keys / 2, size = 72, main = 64, tail = size - main;
  static constexpr int row_bytes = main * 2, tail_bytes = tail * 2;  // of a row in shared memory
  static constexpr int k_at = rows * row_bytes, v_at = k_at + keys * row_bytes;
  static constexpr int q_tail = v_at + keys * row_bytes, q_zero = q_tail + rows * tail_bytes;  // and as many zeros
  static constexpr int k_tail = q_zero + rows * tail_bytes, k_zero = k_tail + keys * tail_bytes;
  static constexpr int v_tail = k_zero + keys * tail_bytes, left_at = v_tail + keys * tail_bytes;
  static constexpr int left_floats = 24;  // what a group leaves for the other
  static constexpr int shared = left_at + 2 * left_floats * 128 * 4 + 1024;
};
struct TowerMaps {
  CUtensorMap q, q_tail, k, k_tail, v, v_tail;
};

template <class Out>
__global__ void __launch_bounds__(256, 1)
    attention_tower_kernel(const __grid_constant__ TowerMaps maps, AttentionArgs a, Out* out) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Tile = Tower;
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t q_full, k_full[2], v_full[2];
  uint8_t* const base = raw + (-shared_address(raw) & 1023);
  const int group = sm90::warp_index() / 4, thread = threadIdx.x % 128, lane = threadIdx.x % 32;
  const int b = blockIdx.y / a.H, head = blockIdx.y % a.H, first_row = blockIdx.x * Tile::rows, first_key = group * Tile::half;
  if (threadIdx.x == 0) {
    sm90::barrier_init(&q_full, 1);
    for (int i = 0; i < 2; ++i) sm90::barrier_init(&k_full[i], 1), sm90::barrier_init(&v_full[i], 1);
    sm90::barrier_init_done();
  }
  if (threadIdx.x < 6) sm90::prefetch_map(&maps.q + threadIdx.x);
  const uint4 zero = make_uint4(0, 0, 0, 0);
  if (threadIdx.x < Tile::rows) *reinterpret_cast<uint4*>(base + Tile::q_zero + threadIdx.x * 16) = zero;
  *reinterpret_cast<uint4*>(base + Tile::k_zero + threadIdx.x * 16) = zero;
  sm90::writes_for_copies();
  __syncthreads();
  inputs_ready();
  uint8_t* const k = base + Tile::k_at + first_key * Tile::row_bytes;
  uint8_t* const v = base + Tile::v_at + first_key * Tile::row_bytes;
  uint8_t *const k_tail = base + Tile::k_tail + first_key * 16, *const v_tail = base + Tile::v_tail + first_key * 16;
  if (thread == 0) {
    const int x = head * Tile::size, row = b * a.KV + first_key;
    auto load = [&](uint8_t* to, uint8_t* to_tail, const CUtensorMap* pair, uint64_t* full, int rows, int y) {
      sm90::barrier_expect(full, rows * Tile::size * 2);
      sm90::copy_box(to, pair, full, x, y);
      sm90::copy_box(to_tail, pair + 1, full, x + Tile::main, y);
    };
    if (group == 0) load(base, base + Tile::q_tail, &maps.q, &q_full, Tile::rows, b * a.M + first_row);
    load(k, k_tail, &maps.k, &k_full[group], Tile::half, row);
    load(v, v_tail, &maps.v, &v_full[group], Tile::half, row);
  }
  const int n = valid_keys(a);
  sm90::barrier_wait(&q_full, 0);
  sm90::barrier_wait(&k_full[group], 0);
  float s[Tile::half / 2];
  sm90::wgmma_fence();
#pragma unroll
  for (int d = 0; d < Tile::main / 16; ++d) sm90::wgmma(s, sm90::k_major(base) + 2 * d, sm90::k_major(k) + 2 * d, d, bf16{});
  sm90::wgmma(s, sm90::plain(base + Tile::q_tail, Tile::q_zero - Tile::q_tail, 128),
              sm90::plain(k_tail, Tile::k_zero - Tile::k_tail, 128), 1, bf16{});
  sm90::wgmma_commit();
  sm90::wgmma_wait<0>();
  sm90::wgmma_done(s);

  const float scale = a.scale * LOG2_E;  // to powers of two
  const int valid = n - first_key;
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  if (valid < Tile::half)
#pragma unroll
    for (int i = 0; i < Tile::half / 2; ++i)
      if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= valid) s[i] = -INFINITY;
#pragma unroll
  for (int i = 0; i < Tile::half / 2; ++i) top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s[i]);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
    top[r] = valid > 0 ? fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2)) * scale : -1e30f;  // no keys: no weight
  }
  unsigned w[Tile::half / 16][4];
#pragma unroll
  for (int i = 0; i < Tile::half / 4; ++i) {
    const int r = i % 2;
    const float x = exp2_fast(s[2 * i] * scale - top[r]), y = exp2_fast(s[2 * i + 1] * scale - top[r]);
    sum[r] += x + y;
    w[i / 4][i % 4] = pack_bf16(x, y);
  }
  sm90::barrier_wait(&v_full[group], 0);
  if (valid < Tile::half) {  // no weight times whatever lies past the valid keys must be nothing: it may be no number
    for (int i = max(valid, 0) * 9 + thread; i < Tile::half * 9; i += 128)
      *reinterpret_cast<uint4*>(i % 9 < 8 ? v + i / 9 * Tile::row_bytes + i % 9 * 16 : v_tail + i / 9 * 16) = zero;
    sm90::writes_for_copies();
    sm90::group_sync(group);
  }
  float o[Tile::main / 2], o_tail[4];
  sm90::wgmma_fence();
#pragma unroll
  for (int key = 0; key < Tile::half / 16; ++key) {
    sm90::wgmma_values(o, w[key], sm90::n_major(v + key * 16 * Tile::row_bytes, 0), key);
    sm90::wgmma_values(o_tail, w[key], sm90::plain(v_tail + key * 256, 128, 0), key);
  }
  sm90::wgmma_commit();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
    sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
  }
  sm90::wgmma_wait<0>();
  sm90::wgmma_done(o);
  sm90::wgmma_done(o_tail);

  // the first group finishes columns 0..31 and 64..71, the second one 32..63
  float* const left = reinterpret_cast<float*>(base + Tile::left_at) + group * Tile::left_floats * 128 + thread;
  const float* const theirs = reinterpret_cast<float*>(base + Tile::left_at) + (1 - group) * Tile::left_floats * 128 + thread;
#pragma unroll
  for (int r = 0; r < 2; ++r) left[r * 128] = top[r], left[(2 + r) * 128] = sum[r];
#pragma unroll
  for (int i = 0; i < 16; ++i) left[(4 + i) * 128] = group ? o[i] : o[16 + i];
  if (group)
#pragma unroll
    for (int i = 0; i < 4; ++i) left[(20 + i) * 128] = o_tail[i];
  __syncthreads();
  float mine[2], other[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float their_top = theirs[r * 128], both = fmaxf(top[r], their_top);
    mine[r] = exp2_fast(top[r] - both), other[r] = exp2_fast(their_top - both);
    const float one = 1.0f / (sum[r] * mine[r] + theirs[(2 + r) * 128] * other[r]);
    mine[r] *= one, other[r] *= one;
  }
  const float inverse = inverse_scale<Out>(a.out_scale);
  const int row = first_row + thread / 32 * 16 + lane / 4;
  const bool low = row < a.M, high = row + 8 < a.M;
  const size_t step = size_t(8) * a.H * Tile::size;
  Out* to = out + (size_t(b) * a.M + row) * a.H * Tile::size + head * Tile::size;
  float y[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) y[i] = (group ? o[16 + i] : o[i]) * mine[i / 2 % 2] + theirs[(4 + i) * 128] * other[i / 2 % 2];
  store_columns(to + group * 32 + lane % 4 * 8, step, low, high, y, inverse);
  if (group == 0) {
#pragma unroll
    for (int r = 0; r < 2; ++r)
      if (r ? high : low)
        store2(to + r * step + 64 + lane % 4 * 2, o_tail[2 * r] * mine[r] + theirs[(20 + 2 * r) * 128] * other[r],
               o_tail[2 * r + 1] * mine[r] + theirs[(21 + 2 * r) * 128] * other[r], inverse);
  }
#endif
}

inline bool tower_takes(const AttentionArgs& a, int sm) {
  return sm == 90 && a.HD == Tower::size && a.H == a.KVH && a.KV <= Tower::keys && a.M >= Tower::rows;
}

template <class Out>
int attention_tower(const Check& c, const AttentionArgs& a, const bf16* q, const bf16* k, const bf16* v, Out* out,
                    cudaStream_t stream) {
  using Tile = Tower;
  TowerMaps maps;
  auto pair = [&](CUtensorMap* main, CUtensorMap* tail, const bf16* p, int rows, int stride, int box) {
    if (int rc = tensor_map(c, main, p, BF16, rows, a.H * Tile::size, stride, box, Tile::main)) return rc;
    return tensor_map(c, tail, p, BF16, rows, a.H * Tile::size, stride, box, Tile::tail, false);
  };
  if (int rc = pair(&maps.q, &maps.q_tail, q, a.B * a.M, a.q_stride, Tile::rows)) return rc;
  if (int rc = pair(&maps.k, &maps.k_tail, k, a.B * a.KV, a.kv_stride, Tile::half)) return rc;
  if (int rc = pair(&maps.v, &maps.v_tail, v, a.B * a.KV, a.kv_stride, Tile::half)) return rc;
  const Grid grid{dim3(divide_up(a.M, Tile::rows), a.B * a.H), dim3(256), Tile::shared};
  return launch("attention", attention_tower_kernel<Out>, grid, stream, maps, a, out);
}

}  // namespace frt
