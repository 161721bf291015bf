// softmax(q k^T * scale) v on SM90 for a few hundred query rows of one kv head of size 256 (the action expert with a long chunk):
// rows of all heads are packed, row r = m * H + h. A cluster of 8 blocks takes 64 rows and shares out the keys; block k of it gets
// everyone's weighted values of columns 32k.. (rounded to BF16, unnormalised), maxima and sums, and joins them in a fixed order.
// With kv_extra > 0 the keys before *kv_len are the prefix's: a block that has no others asks for them before the kernel in front
// has finished, so they, and *kv_len, must be older than that kernel.
#pragma once
#include "../core/cluster.cuh"
#include "../core/sm90.cuh"
#include "../core/tensor_map.h"
#include "../core/wgmma.cuh"
#include "attention_plain.cuh"
#include "columns.cuh"

namespace frt {

// KEYS: of one block at most.
template <int KEYS>
struct RowsHead {
  static constexpr int rows = 64, size = 256, boxes = size / 64, shares = 8, columns = size / shares;
  static constexpr int q_box = rows * 128, kv_box = KEYS * 128, values = 4 * columns / 8;  // values: of a thread, for one block
  static constexpr int parts = shares * 128 * values * 2, tops = shares * 32 * 16;
  static constexpr int shared = boxes * (q_box + 2 * kv_box) + parts + tops + 1024;
};

// a, b of two packed BF16.

template <int KEYS, class Out>
__global__ void __launch_bounds__(160, 1)
    attention_rows_kernel(const __grid_constant__ CUtensorMap map_q, const __grid_constant__ CUtensorMap map_k,
                          const __grid_constant__ CUtensorMap map_v, AttentionArgs a, Out* out) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Tile = RowsHead<KEYS>;
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t q_full, k_full, v_full, joined;
  uint8_t *const qs = raw + (-shared_address(raw) & 1023), *const ks = qs + Tile::boxes * Tile::q_box;
  uint8_t *const vs = ks + Tile::boxes * Tile::kv_box;
  uint4 *const parts = reinterpret_cast<uint4*>(vs + Tile::boxes * Tile::kv_box);  // [share][two halves][thread]
  uint4 *const tops = parts + Tile::parts / 16;                                   // [share][row / 2] max, sum of rows r, r + 8
  const int warp = sm90::warp_index(), lane = threadIdx.x % 32, first_row = blockIdx.x / Tile::shares * Tile::rows;
  const int share = sm90::cluster_rank();
  if (threadIdx.x == 0) {
    for (uint64_t* bar : {&q_full, &k_full, &v_full, &joined}) sm90::barrier_init(bar, 1);
    sm90::barrier_init_done();
    sm90::barrier_expect(&joined, Tile::parts + Tile::tops);
  }
  __syncthreads();
  sm90::cluster_arrive();
  const bool prefix = a.kv_len && a.kv_extra > 0;
  if (!prefix) inputs_ready();
  const int n = valid_keys(a), each = (n + 8 * Tile::shares - 1) / (8 * Tile::shares) * 8, begin = min(share * each, n);
  const int valid = min(each, n - begin);

  if (warp == 4) {  // copies
    if (lane == 0) {
      const bool early = prefix && begin + valid <= min(*a.kv_len, a.KV - a.kv_extra);
      auto load = [&](uint8_t* to, const CUtensorMap* map, uint64_t* bar) {
        sm90::barrier_expect(bar, Tile::boxes * Tile::kv_box);
        for (int box = 0; box < Tile::boxes; ++box) sm90::copy_box(to + box * Tile::kv_box, map, bar, box * 64, begin);
      };
      if (valid > 0 && early) load(ks, &map_k, &k_full), load(vs, &map_v, &v_full);
      inputs_ready();
      if (valid > 0) {
        sm90::barrier_expect(&q_full, Tile::boxes * Tile::q_box);
        for (int box = 0; box < Tile::boxes; ++box)
          sm90::copy_box(qs + box * Tile::q_box, &map_q, &q_full, box * 64, first_row);
        if (!early) load(ks, &map_k, &k_full), load(vs, &map_v, &v_full);
      }
    }
    __syncwarp();
    sm90::cluster_wait();
    return;
  }
  inputs_ready();
  const float scale = a.scale * LOG2_E, inverse = inverse_scale<Out>(a.out_scale);  // scale: to powers of two
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, o[128] = {};
  if (valid > 0) {
    float s[KEYS / 2];
    sm90::barrier_wait(&q_full, 0);
    sm90::barrier_wait(&k_full, 0);
    sm90::wgmma_fence();
#pragma unroll
    for (int k = 0; k < Tile::size / 16; ++k)
      sm90::wgmma(s, sm90::k_major(qs + k / 4 * Tile::q_box) + k % 4 * 2, sm90::k_major(ks + k / 4 * Tile::kv_box) + k % 4 * 2,
                  k, bf16{});
    sm90::wgmma_commit();
    sm90::barrier_wait(&v_full, 0);
    if (valid < KEYS) {  // no weight times whatever lies past the valid keys must be nothing: it may be no number
      for (int i = threadIdx.x; i < (KEYS - valid) * Tile::boxes * 8; i += 128) {
        const int unit = i % 8, box = i / 8 % Tile::boxes, row = valid + i / (8 * Tile::boxes);
        *reinterpret_cast<uint4*>(vs + box * Tile::kv_box + row * 128 + unit * 16) = make_uint4(0, 0, 0, 0);
      }
      sm90::writes_for_copies();
      sm90::group_sync(0);
    }
    sm90::wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < KEYS / 2; ++i) {
      if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= valid) s[i] = -INFINITY;
      top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s[i]);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
      top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2)) * scale;
    }
    unsigned w[KEYS / 16][4];
#pragma unroll
    for (int i = 0; i < KEYS / 4; ++i) {
      const float p0 = exp2_fast(s[2 * i] * scale - top[i % 2]), p1 = exp2_fast(s[2 * i + 1] * scale - top[i % 2]);
      sum[i % 2] += p0 + p1;
      w[i / 4][i % 4] = pack_bf16(p0, p1);
    }
    sm90::wgmma_fence();
#pragma unroll
    for (int k = 0; k < KEYS / 16; ++k) sm90::wgmma_values(o, w[k], sm90::n_major(vs + k * 16 * 128, Tile::kv_box));
    sm90::wgmma_commit();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
      sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    }
    sm90::wgmma_wait<0>();
  }
  sm90::cluster_wait();
#pragma unroll
  for (int j = 0; j < Tile::shares; ++j) {
    const unsigned bar = sm90::peer_address(&joined, j);
    const float* v = o + j * Tile::values;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* u = v + half * 8;
      sm90::send16(sm90::peer_address(&parts[(share * 2 + half) * 128 + threadIdx.x], j), bar,
                 make_uint4(pack_bf16(u[0], u[1]), pack_bf16(u[2], u[3]), pack_bf16(u[4], u[5]), pack_bf16(u[6], u[7])));
    }
    if (lane % 4 == 0)
      sm90::send16(sm90::peer_address(&tops[share * 32 + threadIdx.x / 4], j), bar,
                 make_uint4(__float_as_uint(top[0]), __float_as_uint(sum[0]), __float_as_uint(top[1]), __float_as_uint(sum[1])));
  }
  sm90::barrier_wait(&joined, 0);
  float all[2] = {0, 0}, most[2] = {-INFINITY, -INFINITY}, v[16] = {};
  float4 their[Tile::shares];
#pragma unroll
  for (int j = 0; j < Tile::shares; ++j) {
    their[j] = *reinterpret_cast<const float4*>(&tops[j * 32 + threadIdx.x / 4]);
    most[0] = fmaxf(most[0], their[j].x), most[1] = fmaxf(most[1], their[j].z);
  }
#pragma unroll
  for (int j = 0; j < Tile::shares; ++j) {
    const float weight[2] = {exp2_fast(their[j].x - most[0]), exp2_fast(their[j].z - most[1])};
    all[0] += weight[0] * their[j].y, all[1] += weight[1] * their[j].w;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 p = parts[(j * 2 + half) * 128 + threadIdx.x];
      const unsigned words[4] = {p.x, p.y, p.z, p.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 two = unpack_bf16(words[i]);
        v[half * 8 + 2 * i] += weight[i % 2] * two.x, v[half * 8 + 2 * i + 1] += weight[i % 2] * two.y;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) v[i] /= all[i / 2 % 2];
  const int row = first_row + warp * 16 + lane / 4, rows = a.M * a.H;
  Out* to = out + size_t(row) * Tile::size + share * Tile::columns + lane % 4 * 8;
  store_columns(to, size_t(8) * Tile::size, row < rows, row + 8 < rows, v, inverse);
#endif
}

// 17 and more rows of q, one kv head of 256, up to 1,024 keys.
inline bool attention_rows_takes(const AttentionArgs& a, int sm) {
  return sm == 90 && a.B == 1 && a.KVH == 1 && a.HD == 256 && a.q_stride == a.H * a.HD && a.M > 16 && long(a.M) * a.H < 1024 &&
         a.KV <= 1024;
}

template <int KEYS, class Out>
int attention_rows_of(const Check& c, const AttentionArgs& a, const bf16* q, const bf16* k, const bf16* v, Out* out,
                      cudaStream_t stream) {
  using Tile = RowsHead<KEYS>;
  const int rows = a.M * a.H;
  CUtensorMap maps[3];
  if (int rc = tensor_map(c, &maps[0], q, BF16, rows, Tile::size, Tile::size, Tile::rows, 64)) return rc;
  if (int rc = tensor_map(c, &maps[1], k, BF16, a.KV, Tile::size, a.kv_stride, KEYS, 64)) return rc;
  if (int rc = tensor_map(c, &maps[2], v, BF16, a.KV, Tile::size, a.kv_stride, KEYS, 64)) return rc;
  const Grid grid{dim3(divide_up(rows, Tile::rows) * Tile::shares), dim3(160), Tile::shared, Tile::shares};
  return launch("attention", attention_rows_kernel<KEYS, Out>, grid, stream, maps[0], maps[1], maps[2], a, out);
}

template <class Out>
int attention_rows(const Check& c, const AttentionArgs& a, const bf16* q, const bf16* k, const bf16* v, Out* out,
                   cudaStream_t stream) {
  return a.KV <= 8 * 80 ? attention_rows_of<80>(c, a, q, k, v, out, stream) : attention_rows_of<128>(c, a, q, k, v, out, stream);
}

}  // namespace frt
