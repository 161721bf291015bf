// softmax(q k^T * scale) v on SM90 for one kv head of size 256 (Gemma's prefix): query rows of all heads are packed, row
// r = m * H + h, so that they share K and V. A cluster takes 128 rows, each of its blocks 192 keys of them: two groups of four
// warps with 64 rows each, the second one's scores under the first one's softmax. The blocks join their parts through one
// another's shared memory: of each 64 rows, the parts of 32 columns go around the blocks, which send what is not theirs as BF16.
#pragma once
#include "../core/cluster.cuh"
#include "../core/sm90.cuh"
#include "../core/tensor_map.h"
#include "../core/wgmma.cuh"
#include "attention_plain.cuh"
#include "columns.cuh"

namespace frt {

struct WideHead {
  static constexpr int rows = 128, keys = 192, tile = 96, size = 256, boxes = size / 64;  // a box: 64 columns, 128 bytes a row
  static constexpr int q_box = 64 * 128, q_bytes = boxes * q_box, kv_box = tile * 128, kv_tile = boxes * kv_box;
  static constexpr int q_at = 2 * kv_tile, k1_at = q_at + 2 * q_bytes;  // first K tile (then second V), first V, Q, second K
  static constexpr int shared = 3 * kv_tile + 2 * q_bytes + 1024, max_blocks = 6;
  // What the others send lies where Q and the second K tile were.
  static constexpr int parts = size / 32, part_bytes = 8 * 128 * 4, logs_at = 2 * q_bytes + kv_tile - max_blocks * rows * 4;
};

// This thread's two rows over the keys of its block: o = weighted mean of v, log of the sum of weights, to base 2.
struct AttentionPart {
  float o[128] = {}, log_sum[2];
};

// Scores of `valid` keys to packed weights; what belongs to their sum.
__device__ __forceinline__ void weigh_keys(float (&s)[2][WideHead::tile / 2], int valid, float scale,
                                           unsigned (&w)[WideHead::keys / 16][4], float (&top)[2], float (&sum)[2]) {
  constexpr int HALF = WideHead::tile / 2;
  const int lane = threadIdx.x % 32;
  top[0] = top[1] = -INFINITY, sum[0] = sum[1] = 0;
  if (valid < WideHead::keys)
#pragma unroll
    for (int i = 0; i < 2 * HALF; ++i)
      if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= valid) s[i / HALF][i % HALF] = -INFINITY;
#pragma unroll
  for (int i = 0; i < 2 * HALF; ++i) top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s[i / HALF][i % HALF]);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
    top[r] = valid > 0 ? fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2)) * scale : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < HALF; ++i) {
    const float* pair = &s[2 * i / HALF][2 * i % HALF];
    const float x = exp2_fast(pair[0] * scale - top[i % 2]), y = exp2_fast(pair[1] * scale - top[i % 2]);
    sum[i % 2] += x + y;
    w[i / 4][i % 4] = pack_bf16(x, y);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
    sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
  }
}

// The exchange between the BLOCKS blocks of a cluster, for one group of 64 rows.
template <int BLOCKS>
struct JoinedParts {
  using Tile = WideHead;
  static constexpr int OTHERS = BLOCKS - 1, MOST = (Tile::parts + BLOCKS - 1) / BLOCKS;  // parts of a block
  static_assert(2 * MOST * OTHERS * Tile::part_bytes <= Tile::logs_at && OTHERS < Tile::max_blocks);
  uint8_t* const from;  // all that was sent here
  uint64_t* const joined;
  const int group, rank;

  static __device__ __forceinline__ int owner(int part) { return part % BLOCKS; }
  __device__ __forceinline__ uint8_t* slot(int part, int source) const {
    return from + ((group * MOST + part / BLOCKS) * OTHERS + source) * Tile::part_bytes + threadIdx.x % 128 * 16;
  }
  __device__ __forceinline__ float* log_sum(int source) const {
    return reinterpret_cast<float*>(from + Tile::logs_at) + source * Tile::rows + group * 64 + threadIdx.x / 32 % 4 * 16 +
           threadIdx.x % 32 / 4;
  }
  // Announces what this group gets.
  __device__ __forceinline__ void expect() const {
    const int mine = Tile::parts / BLOCKS + (rank < Tile::parts % BLOCKS);
    sm90::barrier_expect(joined, OTHERS * (mine * Tile::part_bytes + 64 * 4));
  }
  __device__ __forceinline__ void send(const AttentionPart& p) const {
    if (threadIdx.x % 4 == 0)
#pragma unroll
      for (int source = 0; source < OTHERS; ++source) {  // to the block that knows this one as `source`
        const int to = rank + OTHERS - source - (rank > source ? BLOCKS : 0);
#pragma unroll
        for (int r = 0; r < 2; ++r)
          sm90::send4(sm90::peer_address(log_sum(source) + 8 * r, to), sm90::peer_address(joined, to), p.log_sum[r]);
      }
#pragma unroll
    for (int part = 0; part < Tile::parts; ++part) {
      const int to = owner(part);
      if (to == rank) continue;
      const unsigned there = sm90::peer_address(slot(part, rank - to - 1 + (rank < to ? BLOCKS : 0)), to);
      const unsigned bar = sm90::peer_address(joined, to);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* v = p.o + part * 16 + half * 8;
        sm90::send16(there + half * 2048, bar, pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
                     pack_bf16(v[6], v[7]));
      }
    }
  }
  // Waits for the others, then store(part, values) for the parts of this block.
  template <class Store>
  __device__ __forceinline__ void join(const AttentionPart& p, Store&& store) const {
    sm90::barrier_wait(joined, 0);
    float mine[2], share[OTHERS + 1][2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = p.log_sum[r];
#pragma unroll
      for (int source = 0; source < OTHERS; ++source) top = fmaxf(top, share[source][r] = log_sum(source)[8 * r]);
      mine[r] = exp2_fast(p.log_sum[r] - top);
      float total = mine[r];
#pragma unroll
      for (int source = 0; source < OTHERS; ++source) total += share[source][r] = exp2_fast(share[source][r] - top);
      total = 1.0f / total;
      mine[r] *= total;
#pragma unroll
      for (int source = 0; source < OTHERS; ++source) share[source][r] *= total;
    }
#pragma unroll
    for (int part = 0; part < Tile::parts; ++part) {
      if (owner(part) != rank) continue;
      float v[16];
#pragma unroll
      for (int i = 0; i < 16; ++i) v[i] = p.o[part * 16 + i] * mine[i / 2 % 2];
#pragma unroll
      for (int source = 0; source < OTHERS; ++source) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint4 raw = *reinterpret_cast<const uint4*>(slot(part, source) + half * 2048);
          const unsigned x[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            v[half * 8 + 2 * i] += __uint_as_float(x[i] << 16) * share[source][i % 2];
            v[half * 8 + 2 * i + 1] += __uint_as_float(x[i] & 0xffff0000u) * share[source][i % 2];
          }
        }
      }
      store(part, v);
    }
  }
};

template <int BLOCKS, class Out>
__global__ void __launch_bounds__(384, 1)
    attention_wgmma_kernel(const __grid_constant__ CUtensorMap map_q, const __grid_constant__ CUtensorMap map_k,
                           const __grid_constant__ CUtensorMap map_v, AttentionArgs a, Out* out) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Tile = WideHead;
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t q_full[2], k_full[2], v_full[2], v_clean[2], k_read, turn, joined[2];
  uint8_t *const kv = raw + (-shared_address(raw) & 1023), *const qs = kv + Tile::q_at;
  uint8_t *const ks[2] = {kv, kv + Tile::k1_at}, *const vs[2] = {kv + Tile::kv_tile, kv};
  const int warp = sm90::warp_index(), lane = threadIdx.x % 32, group = warp / 4, rank = sm90::cluster_rank();
  const int first_row = blockIdx.x / BLOCKS * Tile::rows, first_key = rank * Tile::keys;
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      sm90::barrier_init(&q_full[i], 1);
      sm90::barrier_init(&k_full[i], 1);
      sm90::barrier_init(&v_full[i], 1);
      sm90::barrier_init(&v_clean[i], 96);
      sm90::barrier_init(&joined[i], 1);
      JoinedParts<BLOCKS>{qs, &joined[i], i, rank}.expect();
    }
    sm90::barrier_init(&k_read, 8);
    sm90::barrier_init(&turn, 4);
    sm90::barrier_init_done();
    sm90::prefetch_map(&map_q);
    sm90::prefetch_map(&map_k);
    sm90::prefetch_map(&map_v);
  }
  __syncthreads();
  inputs_ready();
  const int valid = min(max(valid_keys(a) - first_key, 0), Tile::keys);

  if (group == 2) {
    sm90::keep_registers<24>();
    if (warp == 8 && lane == 0) {  // copies
      auto load_q = [&](int i) {
        sm90::barrier_expect(&q_full[i], Tile::q_bytes);
        for (int box = 0; box < Tile::boxes; ++box)
          sm90::copy_box(qs + i * Tile::q_bytes + box * Tile::q_box, &map_q, &q_full[i], box * 64, first_row + i * 64);
      };
      auto load = [&](uint8_t* to, const CUtensorMap* map, uint64_t* full, int i) {
        sm90::barrier_expect(full, Tile::kv_tile);
        for (int box = 0; box < Tile::boxes; ++box)
          sm90::copy_box(to + box * Tile::kv_box, map, full, box * 64, first_key + i * Tile::tile);
      };
      load_q(0);
      load(ks[0], &map_k, &k_full[0], 0);
      load(ks[1], &map_k, &k_full[1], 1);
      load_q(1);
      load(vs[0], &map_v, &v_full[0], 0);
      sm90::barrier_wait(&k_read, 0);
      load(vs[1], &map_v, &v_full[1], 1);
    } else if (warp > 8) {  // no weight times whatever lies past the valid keys must be nothing: it may be no number
      for (int i = 0; i < 2; ++i) {
        const int some = max(valid - i * Tile::tile, 0);
        if (some >= Tile::tile) continue;
        sm90::barrier_wait(&v_full[i], 0);
        for (int j = threadIdx.x - 9 * 32; j < (Tile::tile - some) * Tile::boxes * 8; j += 96) {
          const int unit = j % 8, box = j / 8 % Tile::boxes, row = some + j / (8 * Tile::boxes);
          *reinterpret_cast<uint4*>(vs[i] + box * Tile::kv_box + row * 128 + unit * 16) = make_uint4(0, 0, 0, 0);
        }
        sm90::writes_for_copies();
        sm90::barrier_arrive(&v_clean[i]);
      }
    }
  } else {
    sm90::take_registers<240>();
    const uint8_t* const q = qs + group * Tile::q_bytes;
    const JoinedParts<BLOCKS> parts{qs, &joined[group], group, rank};
    float s[2][Tile::tile / 2];
    sm90::barrier_wait(&q_full[group], 0);
    if (group == 1) sm90::barrier_wait(&turn, 0);  // the first group's products go first
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sm90::barrier_wait(&k_full[i], 0);
      sm90::wgmma_fence();
#pragma unroll
      for (int k = 0; k < Tile::size / 16; ++k)
        sm90::wgmma(s[i], sm90::k_major(q + k / 4 * Tile::q_box) + k % 4 * 2,
                    sm90::k_major(ks[i] + k / 4 * Tile::kv_box) + k % 4 * 2, k, bf16{});
      sm90::wgmma_commit();
    }
    if (group == 0 && lane == 0) sm90::barrier_arrive(&turn);
    sm90::wgmma_wait<1>();
    if (lane == 0) sm90::barrier_arrive(&k_read);
    sm90::wgmma_wait<0>();
    sm90::wgmma_done(s[0]);
    sm90::wgmma_done(s[1]);
    sm90::cluster_arrive();  // what the others send may take the place of Q and K
    unsigned w[Tile::keys / 16][4];
    float top[2], sum[2];
    weigh_keys(s, valid, a.scale * LOG2_E, w, top, sum);  // to powers of two
    AttentionPart p;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sm90::barrier_wait(valid - i * Tile::tile >= Tile::tile ? &v_full[i] : &v_clean[i], 0);
      sm90::wgmma_fence();
#pragma unroll
      for (int k = 0; k < Tile::tile / 16; ++k)
        sm90::wgmma_values(p.o, w[i * (Tile::tile / 16) + k], sm90::n_major(vs[i] + k * 16 * 128, Tile::kv_box));
    }
    sm90::wgmma_commit();
    sm90::wgmma_wait<0>();
    sm90::wgmma_done(p.o);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      p.log_sum[r] = valid > 0 ? top[r] + __log2f(sum[r]) : -INFINITY;
      sum[r] = valid > 0 ? 1.0f / sum[r] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < 128; ++i) p.o[i] *= sum[i / 2 % 2];
    sm90::cluster_wait();
    parts.send(p);
    const int row = first_row + group * 64 + warp % 4 * 16 + lane / 4, rows = a.M * a.H;
    Out* to = out + size_t(row) * Tile::size + lane % 4 * 8;
    const float inverse = inverse_scale<Out>(a.out_scale);
    parts.join(p, [&](int part, const float(&v)[16]) {
      store_columns(to + part * 32, size_t(8) * Tile::size, row < rows, row + 8 < rows, v, inverse);
    });
  }
#endif
}

// Many rows, one kv head of 256, rows of q without a gap between them, keys for at most one cluster.
inline bool wgmma_takes(const AttentionArgs& a, int sm) {
  return sm == 90 && a.B == 1 && a.KVH == 1 && a.HD == WideHead::size && a.q_stride == a.H * a.HD && long(a.M) * a.H >= 1024 &&
         a.KV <= WideHead::max_blocks * WideHead::keys;
}

template <class Out>
int attention_wgmma(const Check& c, const AttentionArgs& a, const bf16* q, const bf16* k, const bf16* v, Out* out,
                    cudaStream_t stream) {
  using Tile = WideHead;
  const int rows = a.M * a.H, blocks = divide_up(a.KV, Tile::keys);
  CUtensorMap maps[3];
  if (int rc = tensor_map(c, &maps[0], q, BF16, rows, Tile::size, Tile::size, 64, 64)) return rc;
  if (int rc = tensor_map(c, &maps[1], k, BF16, a.KV, Tile::size, a.kv_stride, Tile::tile, 64)) return rc;
  if (int rc = tensor_map(c, &maps[2], v, BF16, a.KV, Tile::size, a.kv_stride, Tile::tile, 64)) return rc;
  const Grid grid{dim3(divide_up(rows, Tile::rows) * blocks), dim3(384), Tile::shared, blocks};
  auto start = [&](auto* kernel) { return launch("attention", kernel, grid, stream, maps[0], maps[1], maps[2], a, out); };
  switch (blocks) {
    case 1: return start(attention_wgmma_kernel<1, Out>);
    case 2: return start(attention_wgmma_kernel<2, Out>);
    case 3: return start(attention_wgmma_kernel<3, Out>);
    case 4: return start(attention_wgmma_kernel<4, Out>);
    case 5: return start(attention_wgmma_kernel<5, Out>);
    default: return start(attention_wgmma_kernel<6, Out>);
  }
}

}  // namespace frt
