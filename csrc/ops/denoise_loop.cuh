// All denoise steps of the action expert in one kernel: for each step action_in, L layers of (adaRMS, qkv, RoPE, attention,
// o, adaRMS, gate/up, GEGLU, down), the final adaRMS, action_out and the Euler update. 128 resident blocks; see
// denoise_shape.h for who owns what, denoise_exchange.cuh for how they wait, denoise_weights.cuh for how weights arrive.
// In each product a warp takes 128 of every 1024 bytes of K, from the activations' exchange straight into fragments of
// mma.sync (the k index inside an instruction is permuted equally for both operands, as in gemm_skinny.cuh); the 8 partial
// products of a tile are added in a fixed order. Values are rounded where the separate ops round them.
#pragma once
#include "../core/launch_together.h"
#include "denoise_attention.cuh"
#include "gemm_skinny.cuh"

namespace frt::denoise {

inline constexpr int TILE = 16 * 8 + 8;  // floats of a tile of partial sums; the 8 keep its readers on different banks

struct alignas(128) Shared {
  uint64_t full[MAX_SLOTS], empty[MAX_SLOTS], keys_full, keys_empty;
  alignas(16) float actions[ROWS][A], style[2][D];
  float squares[WARPS][ROWS], in_w[8][A + 1];
  alignas(16) float wide[WARPS][8][TILE], narrow[WARPS][TILE];
  AttentionShared attention;
};

// What a benchmark replaces to read the clock at phase ends.
struct NoProbe {
  __device__ void operator()(int) {}
};

// First column of the lane's u-th group of 8 in a row of D values.
template <class T>
__device__ __forceinline__ int group_column(const Lane& t, int u) {
  return sizeof(T) == 1 ? t.warp * 128 + u / 2 * 64 + t.quarter * 16 + u % 2 * 8
                        : u / 2 * 512 + t.warp * 64 + u % 2 * 32 + t.quarter * 8;
}

// use(u, r, y): y[0..7] = adaRMS of columns group_column(u).. of row t.row + 8 r of h [M,D] in the exchange.
template <class T, class Use>
__device__ __forceinline__ void normed(const Args& a, const Lane& t, Shared& s, const char* h, const float* style, Use&& use) {
  // the warp's 128 columns of scale and shift, on their way while h is waited for
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int c = sizeof(T) == 1 ? t.warp * 128 + t.lane * 4 : t.lane / 16 * 512 + t.warp * 64 + t.lane % 16 * 4;
    copy16(&s.style[r][c], style + r * D + c, true);
  }
  copy_commit();
  uint4 x[8];
  const unsigned wanted = (t.row < a.M ? 0x0fu : 0) | (t.row + 8 < a.M ? 0xf0u : 0);
  receive(x, wanted, [&](int i) { return h + ((t.row + i / 4 * 8) * D + group_column<T>(t, i % 4)) * 2; });
  auto values = [&](int i, float (&v)[8]) { load8(reinterpret_cast<const bf16*>(&x[i]), v); };
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float squares = 0, v[8];
#pragma unroll
    for (int u = 0; u < 4; ++u) {
      values(r * 4 + u, v);
#pragma unroll
      for (int j = 0; j < 8; ++j) squares += v[j] * v[j];
    }
    squares += __shfl_xor_sync(~0u, squares, 1);
    squares += __shfl_xor_sync(~0u, squares, 2);
    if (t.quarter == 0) s.squares[t.warp][t.row + 8 * r] = squares;
  }
  copy_wait<0>();
  sync_consumers();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float squares = 0, v[8];
#pragma unroll
    for (int w = 0; w < WARPS; ++w) squares += s.squares[w][t.row + 8 * r];
    const float inverse = rsqrtf(squares / D + a.eps);
#pragma unroll
    for (int u = 0; u < 4; ++u) {
      float factor[8], shift[8];
      load8(&s.style[0][group_column<T>(t, u)], factor);
      load8(&s.style[1][group_column<T>(t, u)], shift);
      values(r * 4 + u, v);
#pragma unroll
      for (int j = 0; j < 8; ++j) v[j] = v[j] * inverse * (1.0f + factor[j]) + shift[j];
      use(u, r, v);
    }
  }
}

// Fragments of 16 rows x K: piece c * 2 + j of a lane holds 16 bytes at K byte c * 1024 + warp * 128 + j * 64 + quarter * 16.
template <int PIECES>
struct Rows {
  uint4 low[PIECES], high[PIECES];
};

template <class T>
__device__ __forceinline__ void normed_rows(const Args& a, const Lane& t, Shared& s, const char* h, const float* style,
                                            float inverse, Rows<2 * chunks_of<T, D>>& rows) {
  normed<T>(a, t, s, h, style, [&](int u, int r, const float(&y)[8]) {
    if constexpr (sizeof(T) == 1) {
      uint4& to = (r ? rows.high : rows.low)[u / 2];
      uint2 half;
      store8(reinterpret_cast<e4m3*>(&half), y, inverse);
      if (u % 2 == 0) to.x = half.x, to.y = half.y;
      else to.z = half.x, to.w = half.y;
    } else {
      store8(reinterpret_cast<bf16*>(&(r ? rows.high : rows.low)[u]), y, 1.0f);
    }
  });
}

// Rows of `from` [M, pitch bytes] in the exchange as they are.
template <int PIECES>
__device__ __forceinline__ void exchanged_rows(const Args& a, const Lane& t, const char* from, int pitch, Rows<PIECES>& rows) {
  uint4 x[2 * PIECES];
  constexpr unsigned half = PIECES == 16 ? 0xffffu : (1u << PIECES) - 1;
  receive(x, (t.row < a.M ? half : 0) | (t.row + 8 < a.M ? half << PIECES : 0), [&](int i) {
    const int piece = i % PIECES;
    return from + size_t(t.row + i / PIECES * 8) * pitch + piece / 2 * CHUNK + t.warp * 128 + piece % 2 * 64 + t.quarter * 16;
  });
#pragma unroll
  for (int i = 0; i < PIECES; ++i) rows.low[i] = x[i], rows.high[i] = x[PIECES + i];
}

// This warp's share of `tiles` <= TILES tiles into sums[warp][tile]. CHAINS: accumulators per tile, where tiles are few.
template <class T, int TILES, int CHUNKS, int CHAINS>
__device__ __forceinline__ void multiply(const Lane& t, Ring& ring, int tiles, const Rows<2 * CHUNKS>& rows, float* sums) {
  constexpr int AT_ONCE = 8 / CHUNKS < TILES ? 8 / CHUNKS : TILES;
  float c[TILES][CHAINS][4] = {};
#pragma unroll
  for (int first = 0; first < TILES; first += AT_ONCE) {
    const int n = min(AT_ONCE, tiles - first) * CHUNKS;
    if (n <= 0) break;
    ring.wait(n, t.lane);
#pragma unroll
    for (int i = 0; i < AT_ONCE * CHUNKS; ++i) {
      if (i >= n) break;
      const char* from = ring.chunk(i) + t.row * PITCH + t.warp * 128 + t.quarter * 16;
      const int k = i % CHUNKS;
#pragma unroll
      for (int j = 0; j < 2; ++j)
        mma_chunk<T>(c[first + i / CHUNKS][(k * 2 + j) % CHAINS], rows.low[k * 2 + j], rows.high[k * 2 + j],
                     *reinterpret_cast<const uint4*>(from + j * 64));
    }
    ring.release(n, t.lane);
  }
#pragma unroll
  for (int i = 0; i < TILES; ++i) {
    if (i >= tiles) break;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float2 v = make_float2(0, 0);
#pragma unroll
      for (int j = 0; j < CHAINS; ++j) v.x += c[i][j][2 * r], v.y += c[i][j][2 * r + 1];
      *reinterpret_cast<float2*>(sums + (t.warp * TILES + i) * TILE + (t.row + 8 * r) * 8 + t.quarter * 2) = v;
    }
  }
}

// Columns pair * 2 and + 1 of row m of a tile, all warps' shares added.
template <int TILES>
__device__ __forceinline__ float2 total(const float* sums, int tile, int m, int pair) {
  float2 v = make_float2(0, 0);
#pragma unroll
  for (int w = 0; w < WARPS; ++w) {
    const float2 x = *reinterpret_cast<const float2*>(sums + (w * TILES + tile) * TILE + m * 8 + pair * 2);
    v.x += x.x, v.y += x.y;
  }
  return v;
}

// The scales of one layer at one step: activation scale of each product's input, and that times the weight's.
template <class T>
struct Scales {
  const float* at;
  __device__ Scales(const Args& a, int step, int layer) : at(a.scales + ((size_t(step) * a.L + layer) * 4) * 4) {}
  __device__ float inverse(int site) const { return sizeof(T) == 1 ? 1.0f / at[site * 4] : 1.0f; }
  __device__ float product(int site, const float* weight) const { return sizeof(T) == 1 ? at[site * 4] * *weight : 1.0f; }
};

// res + gate * product for the block's 8 columns: the residual stream, in a register pair of the first 4 * M threads.
template <class T, int K>
__device__ __forceinline__ void close(const Args& a, const Lane& t, Shared& s, Ring& ring, const char* from, int pitch,
                                      float scale, const float* gate_row, float2& res, char* to) {
  constexpr int CHUNKS = chunks_of<T, K>;
  const int m = t.tid / 4, column = blockIdx.x * 8 + t.tid % 4 * 2;
  const float2 gate = *reinterpret_cast<const float2*>(gate_row + column);
  Rows<2 * CHUNKS> rows;
  exchanged_rows(a, t, from, pitch, rows);
  multiply<T, 1, CHUNKS, 4>(t, ring, 1, rows, &s.narrow[0][0]);
  sync_swept();
  if (m >= a.M) return;
  const float2 y = total<1>(&s.narrow[0][0], 0, m, t.tid % 4);
  const unsigned h = pack_bf16(y.x * scale * gate.x + res.x, y.y * scale * gate.y + res.y);
  res = make_float2(__uint_as_float(h << 16), __uint_as_float(h & 0xffff0000u));
  publish(to + (m * D + column) * 2, h);
}

template <class T>
__device__ __forceinline__ void project(const Args& a, const Lane& t, Shared& s, Ring& ring, const char* h, const float* style,
                                        float inverse, float scale, const float2 (&turn)[1]) {
  constexpr int CHUNKS = chunks_of<T, D>;
  Rows<2 * CHUNKS> rows;
  normed_rows<T>(a, t, s, h, style, inverse, rows);
  const int tiles = blockIdx.x < QKV / 8 - 2 * BLOCKS ? 3 : 2;
  multiply<T, 3, CHUNKS, 2>(t, ring, tiles, rows, &s.wide[0][0][0]);
  sync_swept();
  const int tile = t.tid / 64, m = t.tid % 64 / 4, pair = t.tid % 4;
  if (tile >= tiles || m >= a.M) return;
  float2 y = total<3>(&s.wide[0][0][0], tile, m, pair);
  const unsigned rounded = pack_bf16(y.x * scale, y.y * scale);
  y = make_float2(__uint_as_float(rounded << 16), __uint_as_float(rounded & 0xffff0000u));
  const float2 r = turn[0];
  publish(a.exchange + Exchange::PROJ + (m * QKV + (blockIdx.x + tile * BLOCKS) * 8 + pair * 2) * 2,
          pack_bf16(y.x * r.x - y.y * r.y, y.y * r.x + y.x * r.y));
}

template <class T>
__device__ __forceinline__ void expand(const Args& a, const Lane& t, Shared& s, Ring& ring, const float* style, float inverse,
                                       float scale, float out_inverse) {
  constexpr int CHUNKS = chunks_of<T, D>;
  Rows<2 * CHUNKS> rows;
  normed_rows<T>(a, t, s, a.exchange + Exchange::H1, style, inverse, rows);
  multiply<T, 8, CHUNKS, 1>(t, ring, 8, rows, &s.wide[0][0][0]);
  sync_swept();
  const int m = t.tid / 16, tile = t.tid % 16 / 4, pair = t.tid % 4;
  const float2 gate = total<8>(&s.wide[0][0][0], tile, m, pair), up = total<8>(&s.wide[0][0][0], 4 + tile, m, pair);
  const float x = gelu_tanh(gate.x * scale) * (up.x * scale), y = gelu_tanh(gate.y * scale) * (up.y * scale);
  char* to = a.exchange + Exchange::HIDDEN + m * MLP * 2 + (blockIdx.x * 32 + tile * 8 + pair * 2) * sizeof(T);
  if constexpr (sizeof(T) == 1) {
    const unsigned own = pack_e4m3(x * out_inverse, y * out_inverse), next = __shfl_down_sync(~0u, own, 1);
    if (m < a.M && pair % 2 == 0) publish(to, own | next << 16);
  } else if (m < a.M) {
    publish(to, pack_bf16(x, y));
  }
}

// actions [M,A] -> the block's 8 columns of h.
__device__ __forceinline__ void enter(const Args& a, const Lane& t, Shared& s, int step, float2 in_b, float2& res) {
  const char* from = a.exchange + Exchange::ACTIONS;
  uint4 x[1];
  const bool mine = t.tid * 4 < a.M * A;
  if (step == 0) {
    if (mine) x[0] = reinterpret_cast<const uint4*>(a.actions)[t.tid];
  } else {
    receive(x, mine, [&](int) { return from + t.tid * 16; });
  }
  if (mine) reinterpret_cast<uint4*>(&s.actions[0][0])[t.tid] = x[0];
  sync_swept();
  const int m = t.tid / 4, pair = t.tid % 4;
  if (m >= a.M) return;
  float2 y = make_float2(0, 0);
#pragma unroll
  for (int k = 0; k < A; ++k) {
    y.x += s.actions[m][k] * s.in_w[pair * 2][k];
    y.y += s.actions[m][k] * s.in_w[pair * 2 + 1][k];
  }
  const unsigned h = pack_bf16(y.x + in_b.x, y.y + in_b.y);
  res = make_float2(__uint_as_float(h << 16), __uint_as_float(h & 0xffff0000u));
  publish(a.exchange + Exchange::H0 + (m * D + blockIdx.x * 8 + pair * 2) * 2, h);
}

// Blocks 0..31: one action value of all rows, x + dt v.
template <class T>
__device__ __forceinline__ void leave(const Args& a, const Lane& t, Shared& s, int step, const float* style) {
  const int n = blockIdx.x;
  float w[4][8], dot[2] = {0, 0};
#pragma unroll
  for (int u = 0; u < 4; ++u) load8(a.out_w + n * D + group_column<T>(t, u), w[u]);
  normed<T>(a, t, s, a.exchange + Exchange::H2, style, [&](int u, int r, const float(&y)[8]) {
#pragma unroll
    for (int j = 0; j < 8; ++j) dot[r] += y[j] * w[u][j];
  });
  sync_consumers();  // the squares are read
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    dot[r] += __shfl_xor_sync(~0u, dot[r], 1);
    dot[r] += __shfl_xor_sync(~0u, dot[r], 2);
    if (t.quarter == 0) s.squares[t.warp][t.row + 8 * r] = dot[r];
  }
  sync_consumers();
  if (t.tid >= a.M) return;
  float v = 0;
#pragma unroll
  for (int i = 0; i < WARPS; ++i) v += s.squares[i][t.tid];
  v += a.out_b[n] + s.actions[t.tid][n];
  if (step + 1 == a.steps) a.actions[t.tid * A + n] = v;
  else publish(a.exchange + Exchange::ACTIONS + (t.tid * A + n) * 4, word(v));
}

template <class T, class Probe>
__device__ __forceinline__ void compute_all(const Args& a, Shared& s, Ring ring, const Keys& keys, bf16* k, bf16* v, Probe probe) {
  const Lane t;
  // RoPE of the thread's pair of qkv columns, the same in every layer; no turn for V
  float2 turn[1] = {make_float2(1, 0)}, res = make_float2(0, 0), in_b = make_float2(0, 0);
  const int column = (blockIdx.x + t.tid / 64 * BLOCKS) * 8 + t.tid % 4 * 2, m = t.tid % 64 / 4;
  if (column < Q + HD && m < a.M)
    turn[0] = *reinterpret_cast<const float2*>(a.rope + size_t(keys.prefix + m) * HD + column % HD);
  if (t.tid / 4 < a.M) in_b = *reinterpret_cast<const float2*>(a.in_b + blockIdx.x * 8 + t.tid % 4 * 2);
  char* x = a.exchange;
  unsigned parity = 0;
  for (int step = 0; step < a.steps; ++step) {
    enter(a, t, s, step, in_b, res);
    probe(0);
    const float* style = a.styles + size_t(step) * (2 * a.L + 1) * 3 * D;
    for (int i = 0; i < a.L; ++i, style += 6 * D, parity ^= 1) {
      const Layer& w = a.layers[i];
      const Scales<T> scales(a, step, i);
      project<T>(a, t, s, ring, x + (i ? Exchange::H2 : Exchange::H0), style, scales.inverse(0), scales.product(0, w.qkv_scale), turn);
      probe(1);
      attend(a, t, s.attention, keys, k, v, &s.keys_full, &s.keys_empty, parity);
      probe(2);
      join<T>(a, t, scales.inverse(1));
      probe(3);
      close<T, Q>(a, t, s, ring, x + Exchange::HEADS, Q * 2, scales.product(1, w.o_scale), style + 2 * D, res, x + Exchange::H1);
      probe(4);
      expand<T>(a, t, s, ring, style + 3 * D, scales.inverse(2), scales.product(2, w.gate_up_scale), scales.inverse(3));
      probe(5);
      close<T, MLP>(a, t, s, ring, x + Exchange::HIDDEN, MLP * 2, scales.product(3, w.down_scale), style + 5 * D, res,
                    x + Exchange::H2);
      probe(6);
    }
    if (blockIdx.x < A) leave<T>(a, t, s, step, style);
    probe(7);
  }
}

template <class T, class Probe>
__global__ void __launch_bounds__(THREADS, 1) denoise_loop_kernel(const __grid_constant__ Args a, Probe probe) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) char memory[];
  Shared& s = *reinterpret_cast<Shared*>(memory);
  bf16* k = reinterpret_cast<bf16*>(memory + sizeof(Shared));
  bf16* v = k + a.keys * KEY_PITCH;
  const Ring ring{reinterpret_cast<char*>(v + a.keys * KEY_PITCH), s.full, s.empty, a.slots};
  const int warp = threadIdx.x / 32;
  if (threadIdx.x < a.slots) barrier_init(s.full + threadIdx.x, 1), barrier_init(s.empty + threadIdx.x, WARPS);
  if (threadIdx.x == 0) barrier_init(&s.keys_full, 1), barrier_init(&s.keys_empty, WARPS);
  for (int i = threadIdx.x; i < 2 * a.keys * KEY_PITCH / 8; i += THREADS) reinterpret_cast<uint4*>(k)[i] = make_uint4(0, 0, 0, 0);
  for (int i = threadIdx.x; i < ROWS * KEY_PITCH / 8; i += THREADS)
    reinterpret_cast<uint4*>(&s.attention.q[0][0])[i] = make_uint4(0, 0, 0, 0);
  if (threadIdx.x < 8 * A) s.in_w[threadIdx.x / A][threadIdx.x % A] = a.in_w[blockIdx.x * 8 * A + threadIdx.x];
  const Keys keys(a);
  fence_bulk();
  __syncthreads();
  if (warp == LOADER) load_all<T>(a, ring, keys, k, v, &s.keys_full, &s.keys_empty);
  else if (warp == SWEEPER) sweep_all<T>(a);
  else compute_all<T>(a, s, ring, keys, k, v, probe);
#endif
}

inline constexpr size_t MAX_SHARED = 227 * 1024;
inline constexpr size_t shared_bytes(int keys, int slots) { return sizeof(Shared) + size_t(2) * keys * KEY_PITCH * 2 + size_t(slots) * SLOT; }
// Keys of one block for a cache of this many rows, whole tiles of 16.
inline constexpr int keys_for(int cache_rows) { return ((cache_rows + SPLITS - 1) / SPLITS + 15) / 16 * 16; }
// The ring takes what is left; 8 slots are what one product needs at once.
inline int slots_for(int keys) {
  const int n = int((MAX_SHARED - shared_bytes(keys, 0)) / SLOT);
  return n < MAX_SLOTS ? n : MAX_SLOTS;
}

template <class T, class Probe>
int denoise_loop(Args a, Probe probe, cudaStream_t stream) {
  a.keys = keys_for(a.cache_rows);
  a.slots = slots_for(a.keys);
  if (cudaError_t e = cudaMemsetAsync(a.exchange, 0xff, Exchange::BYTES, stream)) return cuda_failed("denoise_loop", "cudaMemsetAsync", e);
  const Grid grid{dim3(BLOCKS), dim3(THREADS), shared_bytes(a.keys, a.slots)};
  return launch_together("denoise_loop", denoise_loop_kernel<T, Probe>, grid, stream, a, probe);
}

}  // namespace frt::denoise
