// One head over a 16th of the keys in each block (`attend`), then the parts of a head joined, 16 columns in each block (`join`).
// Prefix rows of K and V were loaded before the queries exist; a block whose share holds action rows takes those from the exchange.
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
__device__ __forceinline__ void gather(const Args& a, const Lane& t, AttentionShared& s, const Keys& keys, bf16* k, bf16* v) {
  const int head = blockIdx.x / SPLITS, fresh = (keys.count - keys.cached) * 64, first = keys.begin + keys.cached - keys.prefix;
  const char* proj = a.exchange + Exchange::PROJ;
  auto at = [&](int i) {
    const int u = t.tid + i % 4 * CONSUMERS;
    if (i >= 4) return proj + (u / 32 * QKV + head * HD + u % 32 * 8) * 2;
    return proj + ((first + u / 64) * QKV + Q + u / 32 % 2 * HD + u % 32 * 8) * 2;
  };
  unsigned wanted = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    wanted |= unsigned(t.tid + i * CONSUMERS < fresh) << i;
    if (i < 2) wanted |= unsigned(t.tid + i * CONSUMERS < a.M * 32) << (4 + i);
  }
  uint4 x[6];
  receive(x, wanted, at);
#pragma unroll
  for (int i = 0; i < 6; ++i) {
    if (!(wanted >> i & 1)) continue;
    const int u = t.tid + i % 4 * CONSUMERS;
    bf16* to = i >= 4 ? &s.q[u / 32][u % 32 * 8] : (u / 32 % 2 ? v : k) + (keys.cached + u / 64) * KEY_PITCH + u % 32 * 8;
    *reinterpret_cast<uint4*>(to) = x[i];
  }
}

// Unnormalised head output of this block's keys, with max and sum, into the exchange. k_empty: K and V may be overwritten.
__device__ __forceinline__ void attend(const Args& a, const Lane& t, AttentionShared& s, const Keys& keys, bf16* k, bf16* v,
                                       uint64_t* full, uint64_t* empty, unsigned parity) {
  gather(a, t, s, keys, k, v);
  barrier_wait(full, parity);
  sync_consumers();
  const float scale = 0.0625f * 1.4426950408889634f;  // 1 / sqrt(HD), to powers of two
  float c[4][4] = {}, p[4];
  if (t.warp * 8 < keys.count) {
    const bf16* q_row = &s.q[t.lane % 16][t.lane / 16 * 8];
    const bf16* k_row = k + (t.warp * 8 + t.lane % 8) * KEY_PITCH + t.lane / 8 * 8;
#pragma unroll
    for (int d = 0; d < HD; d += 32) {
      unsigned q0[4], q1[4], kf[4];
      load_matrix(q0, q_row + d);
      load_matrix(q1, q_row + d + 16);
      load_matrix(kf, k_row + d);
      mma(c[d / 32 % 2 * 2], q0, kf[0], kf[1]);
      mma(c[d / 32 % 2 * 2 + 1], q1, kf[2], kf[3]);
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
  sync_consumers();
  float o[4][4] = {};
  const bf16* w_row = &s.weights[t.lane % 16][t.lane / 16 * 8];
  const bf16* v_row = v + t.lane % 16 * KEY_PITCH + t.warp * 32 + t.lane / 16 * 8;
#pragma unroll
  for (int key = 0; key < MAX_KEYS; key += 16) {
    if (key >= keys.count) break;
    unsigned w[4], v0[4], v1[4];
    load_matrix(w, w_row + key);
    load_matrix_transposed(v0, v_row + key * KEY_PITCH);
    load_matrix_transposed(v1, v_row + key * KEY_PITCH + 16);
    mma(o[0], w, v0[0], v0[1]);
    mma(o[1], w, v0[2], v0[3]);
    mma(o[2], w, v1[0], v1[1]);
    mma(o[3], w, v1[2], v1[3]);
  }
  __syncwarp();
  if (t.lane == 0) barrier_arrive(empty);
  char* part = a.exchange + Exchange::PARTS + size_t(blockIdx.x) * ROWS * Exchange::PART * 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int m = t.row + 8 * r;
    if (m >= a.M) continue;
    char* to = part + (m * Exchange::PART + t.warp * 32 + t.quarter * 2) * 4;
#pragma unroll
    for (int d = 0; d < 4; ++d) publish(to + d * 32, make_uint2(word(o[d][2 * r]), word(o[d][2 * r + 1])));
  }
  if (t.warp == 0 && t.quarter == 0) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int m = t.row + 8 * r;
      float sum = 0;
#pragma unroll
      for (int w = 0; w < WARPS; ++w) sum += s.sum[w][m];
      if (m < a.M) publish(part + (m * Exchange::PART + HD) * 4, make_uint4(word(top[r]), word(sum), 0, 0));
    }
  }
}

// 16 columns of this block's head, normalised, rounded to T with `inverse` (see inverse_scale), into the exchange.
// 16 lanes hold the 16 parts of one row's 4 columns.
template <class T>
__device__ __forceinline__ void join(const Args& a, const Lane& t, float inverse) {
  const int head = blockIdx.x / SPLITS, columns = blockIdx.x % SPLITS * 16, split = t.tid % 16;
  const char* parts = a.exchange + Exchange::PARTS + size_t(head * SPLITS + split) * ROWS * Exchange::PART * 4;
  auto unit = [&](int i) { return t.tid / 16 + i % 4 * 16; };  // row * 4 + which 4 columns
  uint4 x[8];
  unsigned wanted = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) wanted |= unsigned(unit(i) < a.M * 4) << i;
  receive(x, wanted, [&](int i) {
    return parts + (unit(i) / 4 * Exchange::PART + (i < 4 ? columns + unit(i) % 4 * 4 : HD)) * 4;
  });
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i * 16 >= a.M * 4) break;  // for all lanes
    const float own = __uint_as_float(x[4 + i].x);
    float top = own, y[5];
#pragma unroll
    for (int d = 8; d; d >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
    const float w = own == -INFINITY ? 0 : exp2f(own - top);
    y[0] = w * __uint_as_float(x[i].x), y[1] = w * __uint_as_float(x[i].y), y[2] = w * __uint_as_float(x[i].z);
    y[3] = w * __uint_as_float(x[i].w), y[4] = w * __uint_as_float(x[4 + i].y);
#pragma unroll
    for (int d = 8; d; d >>= 1)
#pragma unroll
      for (int j = 0; j < 5; ++j) y[j] += __shfl_xor_sync(~0u, y[j], d);
    if (split || unit(i) >= a.M * 4) continue;
    const float f = inverse / y[4];
    char* to = a.exchange + Exchange::HEADS + unit(i) / 4 * Q * 2 + (head * HD + columns + unit(i) % 4 * 4) * sizeof(T);
    if constexpr (sizeof(T) == 1)
      publish(to, pack_e4m3(y[0] * f, y[1] * f) | unsigned(pack_e4m3(y[2] * f, y[3] * f)) << 16);
    else
      publish(to, make_uint2(pack_bf16(y[0] * f, y[1] * f), pack_bf16(y[2] * f, y[3] * f)));
  }
}

}  // namespace frt::denoise
