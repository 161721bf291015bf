// softmax(q k^T * scale) v on BF16 tensor cores with an online softmax (Dao et al., FlashAttention-2, 2023).
// Query rows of all heads that share a kv head are packed: row r = m * G + g, G = H / KVH, so that MQA reads K and V once.
// A block takes 64 rows, one kv head and one split of the keys; with several splits the unnormalised parts (acc, max, sum)
// go to scratch and `attention_combine_kernel` joins them in a fixed order. HDP: head size rounded up to 16.
#pragma once
#include "../core/mma.cuh"
#include "../tuning/attention.h"
#include "attention_plain.cuh"

namespace frt {

template <int HDP, bool SPLIT>
struct AttentionTile {
  static constexpr int rows = tuning::attention.rows;
  static constexpr int keys = SPLIT ? tuning::attention.split_keys : tuning::attention.keys;
  static constexpr int stride = HDP + 8;  // an odd number of 16-byte units: ldmatrix without bank conflicts
  static constexpr size_t shared = size_t(rows + 2 * keys) * stride * sizeof(bf16);
};

// row / G: a shift where G is a power of two, as it is in every model here (a division is some 40 instructions).
struct GroupSize {
  int G, shift;
  __device__ __forceinline__ explicit GroupSize(int G) : G(G) { shift = (G & (G - 1)) == 0 ? 31 - __clz(G) : -1; }
  __device__ __forceinline__ int divide(int row) const { return shift >= 0 ? row >> shift : row / G; }
};

// Rows first..first+count-1 of a strided matrix into shared memory, zeros past `limit` rows and past HD columns.
template <class Tile, int HDP>
__device__ __forceinline__ void load_rows(bf16* tile, const bf16* base, int stride, int first, int limit, int HD) {
  constexpr int units = HDP / 8, count = Tile::keys * units;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const int row = i / units, unit = i % units;
    const bool valid = first + row < limit && unit * 8 < HD;
    copy16(tile + row * Tile::stride + unit * 8,
           valid ? base + size_t(first + row) * stride + unit * 8 : base, valid);
  }
  copy_commit();
}

template <int HDP, bool SPLIT, class Out>
__global__ void __launch_bounds__(128) attention_mma_kernel(AttentionArgs a, const bf16* q, const bf16* k,
                                                            const bf16* v, Out* out, float* parts, int split_keys) {
  inputs_ready();
  using Tile = AttentionTile<HDP, SPLIT>;
  constexpr int KT = Tile::keys / 8, DT = HDP / 8;
  extern __shared__ __align__(16) bf16 smem[];
  bf16 *qs = smem, *ks = qs + Tile::rows * Tile::stride, *vs = ks + Tile::keys * Tile::stride;
  const int G = a.H / a.KVH, rows = a.M * G, b = blockIdx.y / a.KVH, kvh = blockIdx.y % a.KVH;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first_row = blockIdx.x * Tile::rows;
  const GroupSize group(G);
  const int n = valid_keys(a), begin = blockIdx.z * split_keys, end = min(begin + split_keys, n);
  const bf16* kb = k + size_t(b) * a.KV * a.kv_stride + kvh * a.HD;
  const bf16* vb = v + size_t(b) * a.KV * a.kv_stride + kvh * a.HD;

  float o[DT][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  if (begin < end) {
    for (int i = threadIdx.x; i < Tile::rows * (HDP / 8); i += blockDim.x) {
      const int r = i / (HDP / 8), unit = i % (HDP / 8), row = first_row + r;
      const bool valid = row < rows && unit * 8 < a.HD;
      const int m = group.divide(row);
      const bf16* from = q + (size_t(b) * a.M + m) * a.q_stride + (kvh * G + row - m * G) * a.HD + unit * 8;
      copy16(qs + r * Tile::stride + unit * 8, valid ? from : q, valid);
    }
    load_rows<Tile, HDP>(ks, kb, a.kv_stride, begin, end, a.HD);  // commits Q and K together
    load_rows<Tile, HDP>(vs, vb, a.kv_stride, begin, end, a.HD);
    const float scale = a.scale * LOG2_E;  // to powers of two
    const bf16* q_row = qs + (warp * 16 + lane % 16) * Tile::stride + lane / 16 * 8;
    const bf16* k_row = ks + (lane / 16 * 8 + lane % 8) * Tile::stride + lane / 8 % 2 * 8;
    const bf16* v_row = vs + lane % 16 * Tile::stride + lane / 16 * 8;

    for (int key = begin; key < end; key += Tile::keys) {
      const bool more = key + Tile::keys < end;
      float s[KT][4] = {};
      copy_wait<1>();
      __syncthreads();
#pragma unroll 4
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
      __syncthreads();  // K is read; the next tile may land while this one's softmax and values run
      if (more) load_rows<Tile, HDP>(ks, kb, a.kv_stride, key + Tile::keys, end, a.HD);
      float next[2] = {top[0], top[1]};
#pragma unroll
      for (int t = 0; t < KT; ++t)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (key + t * 8 + lane % 4 * 2 + i % 2 >= end) s[t][i] = -INFINITY;
          next[i / 2] = fmaxf(next[i / 2], s[t][i]);
        }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        next[r] = fmaxf(next[r], __shfl_xor_sync(~0u, next[r], 1));
        next[r] = fmaxf(next[r], __shfl_xor_sync(~0u, next[r], 2));
        const float keep = exp2f((top[r] - next[r]) * scale);
        top[r] = next[r];
        sum[r] *= keep;
#pragma unroll
        for (int d = 0; d < DT; ++d) o[d][2 * r] *= keep, o[d][2 * r + 1] *= keep;
      }
#pragma unroll
      for (int t = 0; t < KT; ++t)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          s[t][i] = exp2f((s[t][i] - top[i / 2]) * scale);
          sum[i / 2] += s[t][i];
        }
      if (more) copy_wait<1>(); else copy_wait<0>();
      __syncthreads();
#pragma unroll
      for (int t = 0; t < KT; t += 2) {
        const unsigned p[4] = {pack_bf16(s[t][0], s[t][1]), pack_bf16(s[t][2], s[t][3]),
                               pack_bf16(s[t + 1][0], s[t + 1][1]), pack_bf16(s[t + 1][2], s[t + 1][3])};
#pragma unroll
        for (int d = 0; d < DT; d += 2) {
          unsigned vf[4];
          load_matrix_transposed(vf, v_row + t * 8 * Tile::stride + d * 8);
          mma(o[d], p, vf[0], vf[1]);
          mma(o[d + 1], p, vf[2], vf[3]);
        }
      }
      __syncthreads();
      if (more) load_rows<Tile, HDP>(vs, vb, a.kv_stride, key + Tile::keys, end, a.HD);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
    sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    const int row = first_row + warp * 16 + lane / 4 + 8 * r;
    if (row >= rows) continue;
    if (SPLIT) {
      const size_t part = (size_t(blockIdx.z) * gridDim.y + blockIdx.y) * rows + row;
      float* to = parts + part * (a.HD + 2);
      if (lane % 4 == 0) store2(to, sum[r] > 0 ? top[r] * a.scale : -INFINITY, sum[r], 1.0f);  // no key: no weight
#pragma unroll
      for (int d = 0; d < DT; ++d)
        if (d * 8 < a.HD) store2(to + 2 + d * 8 + lane % 4 * 2, o[d][2 * r], o[d][2 * r + 1], 1.0f);
    } else {
      Out* to = out + (size_t(b) * a.M + row / G) * a.H * a.HD + (kvh * G + row % G) * a.HD;
      const float out_scale = inverse_scale<Out>(a.out_scale), one = 1.0f / sum[r];
#pragma unroll
      for (int d = 0; d < DT; ++d)
        if (d * 8 < a.HD)
          store2(to + d * 8 + lane % 4 * 2, o[d][2 * r] * one, o[d][2 * r + 1] * one, out_scale);
    }
  }
}

// out row = sum_z e^(max_z - max) acc_z / sum_z e^(max_z - max) sum_z   parts: [splits][B*KVH][rows] of (max, sum, acc[HD])
template <class Out>
__global__ void attention_combine_kernel(AttentionArgs a, const float* parts, Out* out, int splits) {
  inputs_ready();
  const int G = a.H / a.KVH, rows = a.M * G, row = blockIdx.x, b = blockIdx.y / a.KVH, kvh = blockIdx.y % a.KVH;
  const size_t step = size_t(gridDim.y) * rows * (a.HD + 2);
  const float* mine = parts + (size_t(blockIdx.y) * rows + row) * (a.HD + 2);
  // lane z holds the weight of split z; there are at most 32
  const int lane = threadIdx.x % 32;
  const float2 part = lane < splits ? *reinterpret_cast<const float2*>(mine + lane * step) : make_float2(-INFINITY, 0);
  float top = part.x;
#pragma unroll
  for (int d = 16; d; d >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
  float weight = expf(part.x - top);
  weight /= warp_sum(weight * part.y);
  Out* to = out + (size_t(b) * a.M + row / G) * a.H * a.HD + (kvh * G + row % G) * a.HD;
  const float out_scale = inverse_scale<Out>(a.out_scale);
  for (int first = 0; first < a.HD; first += blockDim.x * 2) {  // whole warps: the shuffles below need every lane
    const int d = first + threadIdx.x * 2;
    float x = 0, y = 0;
#pragma unroll 18
    for (int z = 0; z < splits; ++z) {
      const float w = __shfl_sync(~0u, weight, z);
      const float2 v = d < a.HD ? *reinterpret_cast<const float2*>(mine + z * step + 2 + d) : make_float2(0, 0);
      x += w * v.x, y += w * v.y;
    }
    if (d < a.HD) store2(to + d, x, y, out_scale);
  }
}

struct AttentionSplit {
  int splits, keys;  // keys: of one split, a multiple of the tile
  size_t scratch;
};

// Splits by shape alone (the valid length is data): enough blocks for the device, each with at least one tile of keys.
inline AttentionSplit attention_split(int B, int M, int KV, int H, int KVH, int HD, int sms) {
  constexpr tuning::Attention t = tuning::attention;
  const int blocks = divide_up(long(M) * (H / KVH), t.rows) * B * KVH;
  int splits = sms / blocks;
  const int most = min(divide_up(KV, t.split_keys), 32);  // the combine kernel holds one weight per lane
  splits = splits < 1 ? 1 : splits > most ? most : splits;
  const int keys = divide_up(divide_up(KV, splits), t.split_keys) * t.split_keys;
  splits = divide_up(KV, keys);
  return {splits, keys, splits == 1 ? 0 : size_t(splits) * B * M * H * (HD + 2) * sizeof(float)};
}

template <int HDP, class Out>
int attention_mma(const AttentionArgs& a, const bf16* q, const bf16* k, const bf16* v, Out* out, float* parts,
                  const AttentionSplit& split, cudaStream_t stream) {
  const int rows = a.M * (a.H / a.KVH);
  const size_t shared = split.splits == 1 ? AttentionTile<HDP, false>::shared : AttentionTile<HDP, true>::shared;
  const Grid grid{dim3(divide_up(rows, tuning::attention.rows), a.B * a.KVH, split.splits), dim3(128), shared};
  auto* kernel = split.splits == 1 ? attention_mma_kernel<HDP, false, Out> : attention_mma_kernel<HDP, true, Out>;
  if (int rc = launch("attention", kernel, grid, stream, a, q, k, v, out, parts, split.keys)) return rc;
  if (split.splits == 1) return FRT_OK;
  const Grid join{dim3(rows, a.B * a.KVH), dim3(a.HD >= 256 ? 128 : 64)};
  return launch("attention", attention_combine_kernel<Out>, join, stream, a, parts, out, split.splits);
}

}  // namespace frt
