// softmax(q k^T * scale) v on SM90 for the vision tower: heads of 72, as many kv heads as heads, at most 256 keys. All keys of
// a head are in shared memory at once, so there is no loop over keys: one round of loads, one of scores, one of values.
// A block is one group of four warps and takes 64 query rows of one head. Rows lie in shared memory as units of 16 bytes,
// [unit][row], which wgmma reads without a swizzle; scores are over 80 columns, of which the last 8 are zeros.
#pragma once
#include "../core/sm90.cuh"
#include "../core/wgmma.cuh"
#include "attention_plain.cuh"
#include "columns.cuh"

namespace frt {

struct Tower {
  static constexpr int rows = 64, keys = 256, size = 72, units = size / 8;
  static constexpr int q_unit = rows * 16 + 16, kv_unit = keys * 16 + 16;  // from unit to unit: 16 more, for the banks
  static constexpr int shared = (units + 1) * (q_unit + kv_unit) + units * kv_unit;
};

// Rows `first`.. of a strided matrix, zeros from row `limit` on.
template <int ROWS, int UNIT>
__device__ __forceinline__ void load_units(uint8_t* to, const bf16* from, int stride, int first, int limit) {
  int row = threadIdx.x / Tower::units, unit = threadIdx.x % Tower::units;
#pragma unroll 9
  for (int i = 0; i < ROWS * Tower::units / 128; ++i) {  // 128 threads: 14 rows and 2 units on
    const bool valid = first + row < limit;
    copy16(to + unit * UNIT + row * 16, valid ? from + size_t(first + row) * stride + unit * 8 : from, valid);
    row += 14, unit += 2;
    if (unit >= Tower::units) unit -= Tower::units, ++row;
  }
  static_assert(ROWS * Tower::units % 64 == 0 && Tower::units == 9);
  if (ROWS * Tower::units % 128 && threadIdx.x < 64) {  // what is left
    const bool valid = first + row < limit;
    copy16(to + unit * UNIT + row * 16, valid ? from + size_t(first + row) * stride + unit * 8 : from, valid);
  }
}

template <class Out>
__global__ void __launch_bounds__(128, 1) attention_tower_kernel(AttentionArgs a, const bf16* q, const bf16* k, const bf16* v,
                                                                 Out* out) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Tile = Tower;
  extern __shared__ __align__(16) uint8_t units[];
  uint8_t *const qs = units, *const ks = qs + (Tile::units + 1) * Tile::q_unit;
  uint8_t *const q_zero = ks - Tile::q_unit, *const vs = ks + (Tile::units + 1) * Tile::kv_unit, *const k_zero = vs - Tile::kv_unit;
  const int b = blockIdx.y / a.H, head = blockIdx.y % a.H, first_row = blockIdx.x * Tile::rows, lane = threadIdx.x % 32;
  const uint4 zero = make_uint4(0, 0, 0, 0);
  for (int i = threadIdx.x; i < Tile::rows; i += 128) *reinterpret_cast<uint4*>(q_zero + i * 16) = zero;
  for (int i = threadIdx.x; i < Tile::keys; i += 128) *reinterpret_cast<uint4*>(k_zero + i * 16) = zero;
  inputs_ready();
  const int n = valid_keys(a);
  const size_t kv_base = size_t(b) * a.KV * a.kv_stride + head * Tile::size;
  load_units<Tile::rows, Tile::q_unit>(qs, q + size_t(b) * a.M * a.q_stride + head * Tile::size, a.q_stride, first_row, a.M);
  load_units<Tile::keys, Tile::kv_unit>(ks, k + kv_base, a.kv_stride, 0, n);
  copy_commit();
  load_units<Tile::keys, Tile::kv_unit>(vs, v + kv_base, a.kv_stride, 0, n);
  copy_commit();
  copy_wait<1>();
  sm90::writes_for_copies();
  __syncthreads();
  float s[Tile::keys / 2];
  sm90::wgmma_fence();
#pragma unroll
  for (int d = 0; d < (Tile::units + 1) / 2; ++d)
    sm90::wgmma(s, sm90::plain(qs + 2 * d * Tile::q_unit, Tile::q_unit, 128),
                sm90::plain(ks + 2 * d * Tile::kv_unit, Tile::kv_unit, 128), d, bf16{});
  sm90::wgmma_commit();
  sm90::wgmma_wait<0>();

  const float scale = a.scale * 1.4426950408889634f;  // to powers of two
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < Tile::keys / 2; ++i) {
    if (n < Tile::keys && i / 4 * 8 + lane % 4 * 2 + i % 2 >= n) s[i] = -INFINITY;
    top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s[i]);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
    top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2)) * scale;
  }
  unsigned w[Tile::keys / 16][4];
#pragma unroll
  for (int i = 0; i < Tile::keys / 4; ++i) {
    const int r = i % 2;
    const float x = exp2_fast(s[2 * i] * scale - top[r]), y = exp2_fast(s[2 * i + 1] * scale - top[r]);
    sum[r] += x + y;
    w[i / 4][i % 4] = pack_bf16(x, y);
  }
  copy_wait<0>();
  sm90::writes_for_copies();
  __syncthreads();
  float o[Tile::size / 2] = {};
  sm90::wgmma_fence();
#pragma unroll
  for (int key = 0; key < Tile::keys / 16; ++key)
    sm90::wgmma_values(o, w[key], sm90::plain(vs + key * 256, 128, Tile::kv_unit));
  sm90::wgmma_commit();
  sm90::wgmma_wait<0>();

  const float inverse = inverse_scale<Out>(a.out_scale);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
    sum[r] = 1.0f / (sum[r] + __shfl_xor_sync(~0u, sum[r], 2));
  }
#pragma unroll
  for (int i = 0; i < Tile::size / 2; ++i) o[i] *= sum[i / 2 % 2];
  const int row = first_row + threadIdx.x / 32 * 16 + lane / 4;
  const bool low = row < a.M, high = row + 8 < a.M;
  const size_t step = size_t(8) * a.H * Tile::size;
  Out* to = out + (size_t(b) * a.M + row) * a.H * Tile::size + head * Tile::size;
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    float y[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) y[i] = o[part * 16 + i];
    store_columns(to + part * 32 + lane % 4 * 8, step, low, high, y, inverse);
  }
  if (low) store2(to + 64 + lane % 4 * 2, o[32], o[33], inverse);
  if (high) store2(to + step + 64 + lane % 4 * 2, o[34], o[35], inverse);
#endif
}

inline bool tower_takes(const AttentionArgs& a, int sm) {
  return sm == 90 && a.HD == Tower::size && a.H == a.KVH && a.KV <= Tower::keys && a.M >= Tower::rows;
}

template <class Out>
int attention_tower(const AttentionArgs& a, const bf16* q, const bf16* k, const bf16* v, Out* out, cudaStream_t stream) {
  const Grid grid{dim3(divide_up(a.M, Tower::rows), a.B * a.H), dim3(128), Tower::shared};
  return launch("attention", attention_tower_kernel<Out>, grid, stream, a, q, k, v, out);
}

}  // namespace frt
