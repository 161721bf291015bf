// One head over a 16th of the keys in each block (`attend`), then the parts of a head joined, 16 columns in each block
// (`join`). Prefix rows of K and V were loaded before the queries exist; a block whose share holds action rows takes those from
// the exchange.
#pragma once
#include "denoise_exchange.cuh"
#include "denoise_weights.cuh"

namespace frt::denoise {

inline constexpr int WEIGHT_PITCH = MAX_KEYS + 8;

struct alignas(16) AttentionShared {
  bf16 q[ROWS][KEY_PITCH];  // rows past M stay zero
  bf16 weights[ROWS][WEIGHT_PITCH];
  float top[WARPS][ROWS], sum[WARPS][ROWS];
};

// This lane of the computing warps; rows `row` and `row + 8` of a tile are its own, and a quarter of each.
struct Lane {
  int tid = threadIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = lane / 4, quarter = lane % 4;
};

// Query rows and the action rows' keys and values from the exchange into shared memory.
__device__ __forceinline__ void gather(const Args& a, const Lane& t, AttentionShared& s, const Keys& keys, bf16* k, bf16* v,
                                       int n) {
  const int head = blockIdx.x / SPLITS, fresh = (keys.count - keys.cached) * 64, first = keys.begin + keys.cached - keys.prefix;
  const char* proj = a.exchange + Exchange::PROJ;
  auto at = [&](int i) {
    const int u = t.tid + i % 4 * CONSUMERS;
    if (i >= 4) return proj + (u / 32 * QKV + head * HD + u % 32 * 8) * 2;
    return proj + ((first + u / 64) * QKV + Q + u / 32 % 2 * HD + u % 32 * 8) * 2;
  };
  auto want = [&](int i) { return t.tid + i % 4 * CONSUMERS < (i >= 4 ? a.M * 32 : fresh); };
  // lane 0 for the head's queries, lane 1 for keys and values
  await(a.exchange, PROJ, t.lane ? H : head, (t.lane ? 2 : 1) * HD / 8 * (n + 1), fresh > 0 ? 2 : 1);
  uint4 x[6];
  receive(x, want, at);
#pragma unroll
  for (int i = 0; i < 6; ++i) {
    if (!want(i)) continue;
    const int u = t.tid + i % 4 * CONSUMERS;
    bf16* to = i >= 4 ? &s.q[u / 32][u % 32 * 8] : (u / 32 % 2 ? v : k) + (keys.cached + u / 64) * KEY_PITCH + u % 32 * 8;
    *reinterpret_cast<uint4*>(to) = x[i];
  }
}

// Unnormalised head output of this block's keys, with max and sum, into the exchange. k_empty: K and V may be overwritten.
template <class Probe>
__device__ __forceinline__ void attend(const Args& a, const Lane& t, AttentionShared& s, const Keys& keys, bf16* k, bf16* v,
                                       uint64_t* full, uint64_t* empty, int n, Probe& probe) {
  barrier_wait(full, n % 2);
  gather(a, t, s, keys, k, v, n);
  probe(ATTEND_QUERIES_RECEIVED);
  sync_consumers();
  probe(ATTEND_KEYS_THERE);
  const float scale = 0.0625f * LOG2_E;  // 1 / sqrt(HD), to powers of two
  float c[4][4] = {}, p[4];
  if (t.warp * 8 < keys.count) {
    const bf16* q_row = &s.q[t.lane % 16][t.lane / 16 * 8];
    const bf16* k_row = k + (t.warp * 8 + t.lane % 8) * KEY_PITCH + t.lane / 8 * 8;
#pragma unroll
    for (int d = 0; d < HD; d += 64) {  // six loads, then four products: instructions issue in order
      unsigned q[4][4], kf[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (i % 2 == 0) load_matrix(kf[i / 2], k_row + d + i * 16);
        load_matrix(q[i], q_row + d + i * 16);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) mma(c[i], q[i], kf[i / 2][i % 2 * 2], kf[i / 2][i % 2 * 2 + 1]);
    }
  }
  float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool valid = t.warp * 8 + t.quarter * 2 + i % 2 < keys.count;
    p[i] = valid ? (c[0][i] + c[1][i] + (c[2][i] + c[3][i])) * scale : -INFINITY;
    top[i / 2] = fmaxf(top[i / 2], p[i]);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
    top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2));
    if (t.quarter == 0) s.top[t.warp][t.row + 8 * r] = top[r];
  }
  sync_consumers();
  probe(ATTEND_SCORES);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int w = 0; w < WARPS; ++w) top[r] = fmaxf(top[r], s.top[w][t.row + 8 * r]);
    float sum = 0;
#pragma unroll
    for (int i = 2 * r; i < 2 * r + 2; ++i) {
      p[i] = p[i] == -INFINITY ? 0 : exp2f(p[i] - top[r]);
      sum += p[i];
    }
    *reinterpret_cast<unsigned*>(&s.weights[t.row + 8 * r][t.warp * 8 + t.quarter * 2]) = pack_bf16(p[2 * r], p[2 * r + 1]);
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (t.quarter == 0) s.sum[t.warp][t.row + 8 * r] = sum;
  }
  const bf16* v_row = v + t.lane % 16 * KEY_PITCH + t.warp * 32 + t.lane / 16 * 8;
  unsigned values[2][4];  // of the first 16 keys: read before the meeting (of more keys: registers spill)
#pragma unroll
  for (int i = 0; i < 2; ++i) load_matrix_transposed(values[i], v_row + i * 16);
  sync_consumers();
  probe(ATTEND_WEIGHTS);
  float o[4][4] = {};
  const bf16* w_row = &s.weights[t.lane % 16][t.lane / 16 * 8];
#pragma unroll
  for (int key = 0; key < MAX_KEYS; key += 16) {
    if (key >= keys.count) break;
    unsigned w[4];
    load_matrix(w, w_row + key);
    if (key)
#pragma unroll
      for (int i = 0; i < 2; ++i) load_matrix_transposed(values[i], v_row + key * KEY_PITCH + i * 16);
#pragma unroll
    for (int i = 0; i < 4; ++i) mma(o[i], w, values[i / 2][i % 2 * 2], values[i / 2][i % 2 * 2 + 1]);
  }
  char* sums = a.exchange + Exchange::SUMS + (blockIdx.x / SPLITS * ROWS * SPLITS + blockIdx.x % SPLITS) * 16;
  if (t.warp == 0 && t.quarter == 0) {  // while the last products run
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int m = t.row + 8 * r;
      float sum = 0;
#pragma unroll
      for (int w = 0; w < WARPS; ++w) sum += s.sum[w][m];
      if (m < a.M) publish(sums + m * SPLITS * 16, make_uint4(__float_as_uint(top[r]), __float_as_uint(sum), 0, 0));
    }
  }
  __syncwarp();
  if (t.lane == 0) barrier_arrive(empty);
  // columns warp * 32 + d * 8 + quarter * 2 of row m
  char* part = a.exchange + Exchange::PARTS +
               (size_t(blockIdx.x / SPLITS) * (HD / 16) * ROWS * SPLITS + blockIdx.x % SPLITS) * 64;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int m = t.row + 8 * r;
    if (m >= a.M) continue;
    char* to = part + (t.warp * 2 * ROWS + m) * SPLITS * 64 + t.quarter * 8;
#pragma unroll
    for (int d = 0; d < 4; ++d)
      publish(to + d / 2 * ROWS * SPLITS * 64 + d % 2 * 32,
              make_uint2(__float_as_uint(o[d][2 * r]), __float_as_uint(o[d][2 * r + 1])));
  }
  signal_together(a.exchange, PARTS, blockIdx.x / SPLITS);
}

// 16 columns of this block's head, normalised, rounded to T with `inverse` (see inverse_scale), into the exchange. Half a warp
// has one row: lane p the weight of part p, then 4 columns (p % 4) of parts p / 4 + 0, 4, 8, 12.
template <class T, class Probe>
__device__ __forceinline__ void join(const Args& a, const Lane& t, float inverse, int n, Probe& probe) {
  const int head = blockIdx.x / SPLITS, m = t.warp + t.lane / 16 * 8, p = t.lane % 16;
  const int column = blockIdx.x % SPLITS * 16 + p % 4 * 4;
  const char* parts = a.exchange + Exchange::PARTS + (size_t(blockIdx.x) * ROWS + m) * SPLITS * 64 + p * 16;
  const char* sums = a.exchange + Exchange::SUMS + (head * ROWS + m) * SPLITS * 16;
  await(a.exchange, PARTS, head, SPLITS * (n + 1));
  uint4 x[5];
  receive(x, [&](int) { return m < a.M; }, [&](int i) {
    return i < 4 ? parts + i * 256 : sums + p * 16;
  });
  probe(JOIN_PARTS_RECEIVED);
  const float own = __uint_as_float(x[4].x);
  float top = own;
#pragma unroll
  for (int d = 8; d; d >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
  float w = own == -INFINITY ? 0 : exp2f(own - top), sum = w * __uint_as_float(x[4].y), y[4] = {};
#pragma unroll
  for (int d = 8; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
  w *= __fdividef(inverse, sum);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float f = __shfl_sync(~0u, w, t.lane / 16 * 16 + i * 4 + p / 4);
    y[0] += f * __uint_as_float(x[i].x), y[1] += f * __uint_as_float(x[i].y);
    y[2] += f * __uint_as_float(x[i].z), y[3] += f * __uint_as_float(x[i].w);
  }
#pragma unroll
  for (int d = 4; d < 16; d *= 2)
#pragma unroll
    for (int j = 0; j < 4; ++j) y[j] += __shfl_xor_sync(~0u, y[j], d);
  if (p < 4 && m < a.M) {
    char* to = a.exchange + Exchange::HEADS + spread((head * HD + column) * sizeof(T)) + m * 64;
    if constexpr (sizeof(T) == 1)
      publish(to, pack_e4m3(y[0], y[1]) | unsigned(pack_e4m3(y[2], y[3])) << 16);
    else
      publish(to, make_uint2(pack_bf16(y[0], y[1]), pack_bf16(y[2], y[3])));
  }
  signal_together(a.exchange, HEADS, readers(16 * sizeof(T)));
}

}  // namespace frt::denoise
