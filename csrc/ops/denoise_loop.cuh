// All denoise steps of the action expert in one kernel: for each step action_in, L layers of (adaRMS, qkv, RoPE, attention,
// o, adaRMS, gate/up, GEGLU, down), the final adaRMS, action_out and the Euler update. 128 resident blocks; see
// denoise_shape.h for who owns what, denoise_exchange.cuh for how they wait, denoise_weights.cuh for how weights arrive.
// In each product a warp takes 128 of every 1024 bytes of K, from the exchange straight into fragments of mma.sync (the k index
// inside an instruction is permuted equally for both operands, as in gemm_skinny.cuh); the 8 partial products of a tile are
// added in a fixed order. Values are rounded where the separate ops round them, but for the norms' outputs: y = x / rms (1 + scale) +
// shift is rounded as x (1 + scale), to BF16 or FP16, and the product gets the rest afterwards, so that no warp waits for the
// others' squares before its product.
#pragma once
#include "../core/launch_together.h"
#include "denoise_attention.cuh"
#include "denoise_mma.cuh"
#include "denoise_sweeper.cuh"

namespace frt::denoise {

// Rows that a branch ends with (`close`): how many of their 16 producers have signalled when they are asked for the first time, and how
// many 16-byte pieces of a row are waited for at once. Measured: docs/performance.md.
inline constexpr int SIGNALLED = 4, AT_ONCE = 4;
inline constexpr int TILE = 16 * 8 + 8;  // floats of a tile of partial sums; the 8 keep its readers on different banks

struct alignas(128) Shared {
  uint64_t full[MAX_SLOTS], empty[MAX_SLOTS], keys_full, keys_empty;
  SideShared side;
  alignas(16) float actions[ROWS][A], wide[WARPS][8][TILE], narrow[WARPS][TILE];
  float squares[WARPS][ROWS], dots[WARPS][ROWS], in_w[8][A + 1];
  AttentionShared attention;
};

// What a benchmark replaces to read the clock at these points.
struct NoProbe {
  __device__ void operator()(Point) {}
};

// The computing warps' program: one method per phase, each of which receives, computes and publishes.
template <class T, class Probe>
struct Worker {
  const Args& a;
  Shared& s;
  Ring ring;
  const Keys& keys;
  bf16 *k, *v;
  Probe probe;
  const Lane t{};
  char* x = a.exchange;
  unsigned style_parity = 0;
  float2 res{};  // the residual stream: 2 columns of row tid / 4, in the first 4 M threads

  // First column of the lane's u-th group of 8 in a row of D values.
  __device__ __forceinline__ int column(int u) const {
    return sizeof(T) == 1 ? t.warp * 128 + u * 32 + t.quarter * 8 : u / 2 * 512 + t.warp * 64 + u % 2 * 32 + t.quarter * 8;
  }

  __device__ __forceinline__ bool has(int high) const { return t.row + 8 * high < a.M; }

  // Rows of h [M,D] times 1 + scale of the style in buffer `which`, before the division by their root mean square: that needs all
  // warps' columns, so whoever uses a product of these rows divides (`inverse_rms`). use(u, r, y): y[0..7] = columns column(u).. of
  // row t.row + 8 r; part[r]: mean of the squares of that row's h in this warp's columns.
  template <class Use>
  __device__ __forceinline__ void styled(Kind kind, size_t h, int times, int which, Use&& use) {
    barrier_wait(s.side.style_full + which, style_parity >> which & 1);
    style_parity ^= 1 << which;
    await(x, kind, t.warp, 2 * SPLITS * times);
    uint4 raw[8];
    const char* from = x + h + t.row * 64;
    receive_rows<4>(raw, [&](int i) { return from + spread(column(i % 4) * 2) + i / 4 * 512; });
    probe(NORM_RECEIVED);
    // squares of a row: the diagonal of h h^T, by lane row * 4 + row / 2
    float c[4][4] = {};
#pragma unroll
    for (int u = 0; u < 4; ++u) {
      const uint4 &l = raw[u], &g = raw[4 + u];
      mma(c[0], {l.x, g.x, l.y, g.y}, l.x, l.y);
      mma(c[1], {l.x, g.x, l.y, g.y}, g.x, g.y);
      mma(c[2], {l.z, g.z, l.w, g.w}, l.z, l.w);
      mma(c[3], {l.z, g.z, l.w, g.w}, g.z, g.w);
    }
    float part[2] = {t.row % 2 ? c[0][1] + c[2][1] : c[0][0] + c[2][0], t.row % 2 ? c[1][3] + c[3][3] : c[1][2] + c[3][2]};
    if (t.quarter == t.row / 2) s.squares[t.warp][t.row] = part[0], s.squares[t.warp][t.row + 8] = part[1];
#pragma unroll
    for (int r = 0; r < 2; ++r) part[r] = __shfl_sync(~0u, part[r], t.row * 4 + t.row / 2) / (D / WARPS);
    probe(NORM_SQUARES);
#pragma unroll
    for (int u = 0; u < 4; ++u) {
      float factor[8];
      load8(&s.side.style[which][column(u)], factor);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float y[8];
        load8(reinterpret_cast<const bf16*>(&raw[r * 4 + u]), y);
#pragma unroll
        for (int j = 0; j < 8; ++j) y[j] += y[j] * factor[j];
        use(u, r, y, part);
      }
    }
    probe(NORM_DONE);
  }
  // 1 / root mean square of row m, once all warps have met.
  __device__ __forceinline__ float inverse_rms(int m) const {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) sum += s.squares[w][m];
    return rsqrtf(sum / D + a.eps);
  }

  // PIECES pieces of the low row and of the high row of a lane.
  template <int PIECES, class At>
  __device__ __forceinline__ void receive_rows(uint4 (&raw)[2 * PIECES], At&& at) {
    receive(raw, [&](int i) { return has(i / PIECES); }, at);
  }

  // This warp's share of tiles <= 8 tiles of the D-wide rows into wide[warp][tile].
  // The first EARLY chunks of weights were waited for before the rows were.
  static constexpr int CHUNKS = chunks_of<T, D>, EARLY = 8, HALVES = sizeof(T) == 1 ? 2 : 1;
  // times: what the sums of this lane's two rows are multiplied by.
  __device__ __forceinline__ void multiply(int tiles, const Piece<T> (&low)[2 * CHUNKS], const Piece<T> (&high)[2 * CHUNKS],
                                           const float (&times)[2]) {
    constexpr int GROUP = 4 / CHUNKS, CHAINS = CHUNKS;  // 4 slots of the ring and 4 independent sums at a time
#pragma unroll
    for (int first = 0; first < 8; first += GROUP) {
      const int n = min(GROUP, tiles - first);
      if (n <= 0) break;
      if (first * CHUNKS >= EARLY) ring.wait(n * CHUNKS, t.lane);
      float c[GROUP][CHAINS][4] = {};
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        Piece<T> b[GROUP][CHAINS];  // of a tile past the last: whatever is there, nobody looks
#pragma unroll
        for (int i = 0; i < GROUP; ++i)
#pragma unroll
          for (int j = 0; j < CHAINS; ++j) b[i][j].set(normed_weights(i * CHUNKS + j, k));
#pragma unroll
        for (int w = 0; w < Piece<T>::WORDS; w += 2)
#pragma unroll
          for (int i = 0; i < GROUP; ++i)
#pragma unroll
            for (int j = 0; j < CHAINS; ++j) mma_words(c[i][j], low[j * 2 + k], high[j * 2 + k], b[i][j], w);
      }
      ring.release(n * CHUNKS, t.lane);
#pragma unroll
      for (int i = 0; i < GROUP; ++i) {
        if (i >= n) break;
        if constexpr (CHAINS == 2)
#pragma unroll
          for (int j = 0; j < 4; ++j) c[i][0][j] += c[i][1][j];
        keep(s.wide[t.warp][first + i], c[i][0], times);
      }
    }
    probe(MULTIPLY_OWN_SHARE);
    sync_swept();
    probe(MULTIPLY_ALL_SHARES);
  }
  // 16 bytes of this lane's weight row in chunk i of the ring, at the columns of a piece of exchanged rows.
  __device__ __forceinline__ const char* weight_row(int i, int half) const {
    return ring.chunk(i) + row_in_slot(t.row) + t.warp * 128 + half * 64;
  }
  __device__ __forceinline__ uint4 weights(int i, int half) const {
    return *reinterpret_cast<const uint4*>(weight_row(i, half) + t.quarter * 16);
  }
  // The same at the columns of a piece of normed rows.
  __device__ __forceinline__ uint4 normed_weights(int i, int half) const {
    if constexpr (sizeof(T) == 2) return weights(i, half);
    const char* from = weight_row(i, half) + t.quarter * 8;
    const uint2 a = *reinterpret_cast<const uint2*>(from), b = *reinterpret_cast<const uint2*>(from + 32);
    return make_uint4(a.x, a.y, b.x, b.y);
  }
  __device__ __forceinline__ void keep(float* tile, const float (&c)[4], const float (&times)[2]) const {
    *reinterpret_cast<float2*>(tile + t.row * 8 + t.quarter * 2) = make_float2(c[0] * times[0], c[1] * times[0]);
    *reinterpret_cast<float2*>(tile + (t.row + 8) * 8 + t.quarter * 2) = make_float2(c[2] * times[1], c[3] * times[1]);
  }

  // Columns pair * 2 and + 1 of row m of a tile, all warps' shares added: `first` is warp 0's, the next is `stride` floats on.
  __device__ __forceinline__ float2 total(const float* first, int stride, int m, int pair) const {
    float2 v = make_float2(0, 0);
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
      const float2 y = *reinterpret_cast<const float2*>(first + w * stride + m * 8 + pair * 2);
      v.x += y.x, v.y += y.y;
    }
    return v;
  }

  // Two columns of the residual stream of each of the first 64 threads to everyone.
  __device__ __forceinline__ void publish_h(Kind kind, size_t to, float y0, float y1) {
    const unsigned h = pack_bf16(y0, y1);
    res = unpack_bf16(h);
    if (t.tid / 4 < a.M) publish(x + to + spread((blockIdx.x * 8 + t.tid % 4 * 2) * 2) + t.tid / 4 * 64, h);
    signal(x, kind, sizeof(T) == 1 ? blockIdx.x / 16 : readers(16));  // see column()
  }

  // actions [M,A] -> h. in_b: of this thread's columns.
  __device__ __forceinline__ void enter(int step, float2 in_b) {
    uint4 raw[1];
    const bool mine = t.tid * 4 < a.M * A;
    if (step) await(x, ACTIONS, 0, A * step);
    if (step) receive(raw, [&](int) { return mine; }, [&](int) { return x + Exchange::ACTIONS + t.tid * 16; });
    else if (mine) raw[0] = reinterpret_cast<const uint4*>(a.actions)[t.tid];
    if (mine) reinterpret_cast<uint4*>(&s.actions[0][0])[t.tid] = raw[0];
    sync_swept();
    const int m = t.tid / 4, pair = t.tid % 4;
    if (t.warp < 2) {
      float2 y = make_float2(0, 0);
#pragma unroll
      for (int i = 0; i < A; ++i) {
        y.x += s.actions[m][i] * s.in_w[pair * 2][i];
        y.y += s.actions[m][i] * s.in_w[pair * 2 + 1][i];
      }
      publish_h(H0, Exchange::H0, y.x + in_b.x, y.y + in_b.y);
    }
    probe(ACTION_IN_PUBLISHED);
  }

  // adaRMS and the product of D-wide rows: qkv (which 0) or gate and up (1). FP16 has a small range, so with E4M3 weights each warp
  // brings its part of a row to a mean square of 1, and multiplies its sums by what it divided by.
  __device__ __forceinline__ void open(Kind kind, size_t h, int times, int which, int tiles) {
    Piece<T> low[2 * CHUNKS], high[2 * CHUNKS];
    float back[2] = {1, 1};
    ring.wait(min(EARLY, tiles * CHUNKS), t.lane);
    float by[2];
    styled(kind, h, times, which, [&](int u, int r, float (&y)[8], const float (&part)[2]) {
      if constexpr (sizeof(T) == 1) {
        if (u == 0) by[r] = rsqrtf(part[r] + 1e-30f), back[r] = (part[r] + 1e-30f) * by[r];
#pragma unroll
        for (int j = 0; j < 8; ++j) y[j] *= by[r];
      }
      (r ? high : low)[u / HALVES].set8(u % HALVES, y);
    });
    multiply(tiles, low, high, back);
  }

  // RoPE. turn: (cos, sin) of this thread's pair of columns, the same in every layer.
  __device__ __forceinline__ void publish_qkv(int even, int tiles, float2 turn) {
    const int tile = t.tid / 64, m = t.tid % 64 / 4, pair = t.tid % 4;
    if (tile < tiles && m < a.M) {
      const float2 y = total(s.wide[0][tile], 8 * TILE, m, pair);
      const float scale = s.side.product[even][0] * inverse_rms(m), *shift = s.side.shift[even][0] + tile * 8 + pair * 2;
      const float2 q = unpack_bf16(pack_bf16(y.x * scale + shift[0], y.y * scale + shift[1]));
      publish(x + Exchange::PROJ + (m * QKV + (blockIdx.x + tile * BLOCKS) * 8 + pair * 2) * 2,
              pack_bf16(q.x * turn.x - q.y * turn.y, q.y * turn.x + q.x * turn.y));
    }
    // lane i for the block's i-th tile, which belongs to a head or to K and V
    signal_together(x, PROJ, min((blockIdx.x + t.lane * BLOCKS) / (HD / 8), H), tiles);
    probe(QKV_PUBLISHED);
  }

  // GEGLU.
  __device__ __forceinline__ void publish_hidden(int even) {
    const int m = t.tid / 16, tile = t.tid % 16 / 4, pair = t.tid % 4;
    const float scale = s.side.product[even][2] * inverse_rms(m), inverse = s.side.inverse[even][3];
    const float *shift = s.side.shift[even][1] + tile * 8 + pair * 2;  // of gate, and 32 floats on of up
    const float2 gate = total(s.wide[0][tile], 8 * TILE, m, pair), up = total(s.wide[0][4 + tile], 8 * TILE, m, pair);
    const float y0 = gelu(gate.x * scale + shift[0]) * (up.x * scale + shift[32]);
    const float y1 = gelu(gate.y * scale + shift[1]) * (up.y * scale + shift[33]);
    char* to = x + Exchange::HIDDEN + spread((blockIdx.x * 32 + tile * 8 + pair * 2) * sizeof(T)) + m * 64;
    if constexpr (sizeof(T) == 1) {
      const unsigned own = pack_e4m3(y0 * inverse, y1 * inverse), next = __shfl_down_sync(~0u, own, 1);
      if (m < a.M && pair % 2 == 0) publish(to, own | next << 16);
    } else if (m < a.M) {
      publish(to, pack_bf16(y0, y1));
    }
    signal_together(x, HIDDEN, readers(32 * sizeof(T)));
    probe(GATE_UP_PUBLISHED);
  }

  // res + gate * product of K-wide rows: `which` 0 closes the attention branch, 1 the MLP.
  __device__ __forceinline__ void close(size_t from, int K, int n, int which, size_t to) {
    constexpr int PIECES = 8;  // of K at once: 4096 bytes of a row
    ring.wait(min(PIECES / 2, K * int(sizeof(T)) / CHUNK), t.lane);
    await(x, which ? HIDDEN : HEADS, t.warp, 16 * n + SIGNALLED);
    float c[4][4] = {};
    const int chunks = K * int(sizeof(T)) / CHUNK;
    const char* row = x + from + spread(t.warp * 128) + t.row * 64 + t.quarter * 16;
#pragma unroll 1
    for (int first = 0; first < chunks; first += PIECES / 2, row += spread(PIECES / 2 * CHUNK)) {
      const int now = min(PIECES / 2, chunks - first);
      uint4 raw[2 * PIECES];  // of piece i: the low row, the high row
      auto want = [&](int i) { return i / 4 < now && has(i % 2); };
      auto at = [&](int i) { return row + i % 2 * 512 + i / 4 * spread(CHUNK) + i / 2 % 2 * spread(64); };
      request(raw, want, at);
      if (first) ring.wait(now, t.lane);
#pragma unroll
      for (int i = 0; i < PIECES; ++i) {
        if (i / 2 >= now) break;
        if (i % AT_ONCE == 0) settle<2 * AT_ONCE>(raw, 2 * i, want, at);  // the later ones are still on their way
        if (i == 0) probe(CLOSE_RECEIVED);
        Piece<T> low, high, b;
        low.set(raw[2 * i]);
        high.set(raw[2 * i + 1]);
        b.set(weights(i / 2, i % 2));
#pragma unroll
        for (int w = 0; w < Piece<T>::WORDS; w += 2) mma_words(c[(i * Piece<T>::WORDS + w) / 2 % 4], low, high, b, w);
      }
      ring.release(now, t.lane);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) c[0][i] += c[1][i] + (c[2][i] + c[3][i]);
    keep(s.narrow[t.warp], c[0], {1, 1});
    probe(MULTIPLY_OWN_SHARE);
    sync_swept();
    probe(MULTIPLY_ALL_SHARES);
    const int m = t.tid / 4, pair = t.tid % 4;
    if (t.warp < 2) {
      const float2 y = total(s.narrow[0], TILE, m, pair);
      const float scale = s.side.product[n % 2][1 + 2 * which];
      const float* gate = s.side.gate[n % 2][which] + pair * 2;
      publish_h(which ? H2 : H1, to, y.x * scale * gate[0] + res.x, y.y * scale * gate[1] + res.y);
    }
    probe(CLOSE_PUBLISHED);
  }

  // Blocks 0..31: one action value of all rows, x + dt v.
  __device__ __forceinline__ void leave(int step, int times) {
    const int n = blockIdx.x;
    float w[4][8], dot[2] = {0, 0};
#pragma unroll
    for (int u = 0; u < 4; ++u) load8(a.out_w + n * D + column(u), w[u]);
    const float bias = a.out_b[step * A + n];
    styled(H2, Exchange::H2, times, 0, [&](int u, int r, const float(&y)[8], const float(&)[2]) {
#pragma unroll
      for (int j = 0; j < 8; ++j) dot[r] += y[j] * w[u][j];
    });
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      dot[r] += __shfl_xor_sync(~0u, dot[r], 1);
      dot[r] += __shfl_xor_sync(~0u, dot[r], 2);
      if (t.quarter == 0) s.dots[t.warp][t.row + 8 * r] = dot[r];
    }
    sync_consumers();
    if (t.warp) return;
    if (t.tid < a.M) {
      float v = 0;
#pragma unroll
      for (int i = 0; i < WARPS; ++i) v += s.dots[i][t.tid];
      v = v * inverse_rms(t.tid) + bias + s.actions[t.tid][n];
      if (step + 1 == a.steps) a.actions[t.tid * A + n] = v;
      else publish(x + Exchange::ACTIONS + (t.tid * A + n) * 4, __float_as_uint(v));
    }
    signal(x, ACTIONS, 0);
    probe(ACTION_OUT_PUBLISHED);
  }

  __device__ void run() {
    float2 turn = make_float2(1, 0), in_b = make_float2(0, 0);  // V does not turn
    const int own = (blockIdx.x + t.tid / 64 * BLOCKS) * 8 + t.tid % 4 * 2, m = t.tid % 64 / 4;
    if (own < Q + HD && m < a.M) turn = *reinterpret_cast<const float2*>(a.rope + size_t(keys.prefix + m) * HD + own % HD);
    if (t.tid / 4 < a.M) in_b = *reinterpret_cast<const float2*>(a.in_b + blockIdx.x * 8 + t.tid % 4 * 2);
    const int tiles = qkv_tiles(blockIdx.x);
    for (int step = 0, n = 0; step < a.steps; ++step) {
      enter(step, in_b);
      for (int i = 0; i < a.L; ++i, ++n) {
        const int even = n % 2;
        probe(LAYER);
#pragma unroll 1
        for (int which = 0; which < 2; ++which) {
          const bool mlp = which;
          open(mlp ? H1 : i ? H2 : H0, mlp ? Exchange::H1 : i ? Exchange::H2 : Exchange::H0, mlp ? n + 1 : i ? n : step + 1,
               which, mlp ? 8 : tiles);
          if (mlp) {
            publish_hidden(even);
          } else {
            publish_qkv(even, tiles, turn);
            attend(a, t, s.attention, keys, k, v, &s.keys_full, &s.keys_empty, n, probe);
            probe(ATTEND_PUBLISHED);
            join<T>(a, t, s.side.inverse[even][1], n, probe);
            probe(JOIN_PUBLISHED);
          }
          close(mlp ? Exchange::HIDDEN : Exchange::HEADS, mlp ? MLP : Q, n, which, mlp ? Exchange::H2 : Exchange::H1);
        }
      }
      if (blockIdx.x < A) leave(step, n);
    }
  }
};

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
  if (threadIdx.x == 0) {
    barrier_init(&s.keys_full, 1), barrier_init(&s.keys_empty, WARPS);
    barrier_init(s.side.style_full, 1), barrier_init(s.side.style_full + 1, 1);
  }
  for (int i = threadIdx.x; i < 2 * a.keys * KEY_PITCH / 8; i += THREADS)
    reinterpret_cast<uint4*>(k)[i] = make_uint4(0, 0, 0, 0);
  for (int i = threadIdx.x; i < ROWS * KEY_PITCH / 8; i += THREADS)
    reinterpret_cast<uint4*>(&s.attention.q[0][0])[i] = make_uint4(0, 0, 0, 0);
  if (threadIdx.x < 8 * A) s.in_w[threadIdx.x / A][threadIdx.x % A] = a.in_w[blockIdx.x * 8 * A + threadIdx.x];
  const Keys keys(a);
  fence_bulk();
  __syncthreads();
  if (warp >= LOADER) load_weights<T>(a, ring);
  else if (warp == KEY_LOADER) load_keys(a, keys, k, v, &s.keys_full, &s.keys_empty);
  else if (warp == SWEEPER) Sweeper<T>{a, s.side}.run();
  else Worker<T, Probe>{a, s, ring, keys, k, v, probe}.run();
#endif
}

inline constexpr size_t MAX_SHARED = 226 * 1024;
inline constexpr size_t shared_bytes(int keys, int slots) {
  return sizeof(Shared) + size_t(2) * keys * KEY_PITCH * sizeof(bf16) + size_t(slots) * SLOT;
}
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
  if (cudaError_t e = cudaMemsetAsync(a.exchange, 0xff, Exchange::BYTES, stream))
    return cuda_failed("denoise_loop", "cudaMemsetAsync", e);
  const Grid grid{dim3(BLOCKS), dim3(THREADS), shared_bytes(a.keys, a.slots)};
  return launch_together("denoise_loop", denoise_loop_kernel<T, Probe>, grid, stream, a, probe);
}

}  // namespace frt::denoise
