// end(a[m,:] . w[n,:]) for up to 64 rows on SM90: the weights are the 64-row operand of wgmma, the rows its columns. A block
// takes 64 weight rows (GEGLU: 8 of gate, the same 8 of up, ...) and all of K. What fits of its weights is asked for before the
// kernel in front has finished. The sums go to shared memory once, so that a thread ends eight neighbouring columns of a row.
// a: [M,K], w: [N,K] (GEGLU: [2N,K]) row-major, both BF16 or both E4M3; rows are multiples of 128 bytes.
#pragma once
#include "../core/launch.h"
#include "../core/sm90.cuh"
#include "../core/tensor_map.h"
#include "../core/wgmma.cuh"
#include "../gemm/epilogue.h"
#include "../tuning/gemm_rows.h"
#include "gemm_tiles.cuh"

namespace frt::rows {

inline constexpr int ROWS = 64, TILE = 64, UNIT = 64 * ROW_BYTES, WORKERS = 128, THREADS = WORKERS + 32, MAX_SLOTS = 16;

// The copies of a block and the barriers they are told at. slots: of two units, weights and rows.
struct Ring {
  uint8_t* at;
  uint64_t *full, *empty;
  int slots;
  __device__ __forceinline__ uint8_t* weights(int slot) const { return at + slot * 2 * UNIT; }
  __device__ __forceinline__ uint8_t* rows(int slot) const { return weights(slot) + UNIT; }
  __device__ void init() const {
    for (int s = 0; s < slots; ++s) {
      sm90::barrier_init(&full[s], 1);
      sm90::barrier_init(&empty[s], WORKERS / 32);
    }
  }
};

// One thread: chunks 0..chunks-1 of 128 bytes of K. load_w(to, barrier, chunk), load_a(...) ask for one.
template <class LoadW, class LoadA>
__device__ __forceinline__ void copy_chunks(const Ring& ring, int chunks, LoadW&& load_w, LoadA&& load_a) {
  const int early = min(ring.slots, chunks);
  for (int s = 0; s < early; ++s) {  // weights are constant: they need not wait for the kernel before
    sm90::barrier_expect(&ring.full[s], 2 * UNIT);
    load_w(ring.weights(s), &ring.full[s], s);
  }
  inputs_ready();
  for (int s = 0; s < early; ++s) load_a(ring.rows(s), &ring.full[s], s);
  for (int i = early, s = 0, round = 1; i < chunks; ++i) {
    sm90::barrier_wait(&ring.empty[s], (round & 1) ^ 1);
    sm90::barrier_expect(&ring.full[s], 2 * UNIT);
    load_w(ring.weights(s), &ring.full[s], i);
    load_a(ring.rows(s), &ring.full[s], i);
    if (++s == ring.slots) s = 0, ++round;
  }
}

// The four working warps: acc[n][m] = sum over the chunks, in wgmma's layout (core/wgmma.cuh).
template <class T>
__device__ __forceinline__ void multiply(float (&acc)[ROWS / 2], const Ring& ring, int chunks) {
  for (int i = 0, s = 0, before = 0, round = 0; i < chunks; ++i) {
    sm90::barrier_wait(&ring.full[s], round & 1);
    const uint64_t w = sm90::k_major(ring.weights(s)), a = sm90::k_major(ring.rows(s));
    sm90::wgmma_fence();
#pragma unroll
    for (int k = 0; k < ROW_BYTES / 32; ++k) sm90::wgmma(acc, w + 2 * k, a + 2 * k, i + k, T{});
    sm90::wgmma_commit();
    sm90::wgmma_wait<1>();
    if (i && threadIdx.x % 32 == 0) sm90::barrier_arrive(&ring.empty[before]);
    before = s;
    if (++s == ring.slots) s = 0, ++round;
  }
  sm90::wgmma_wait<0>();
#pragma unroll
  for (float& v : acc) asm volatile("" : "+f"(v)::"memory");  // nothing reads the sums before
}

// A box of weights: 64 rows from `row` on, or with PAIRS 32 of gate and 32 of up.
template <bool PAIRS>
__device__ __forceinline__ void copy_weights(void* to, const CUtensorMap* map, uint64_t* bar, int x, int row) {
  if constexpr (PAIRS)
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %4, %5}], [%2];\n" ::"r"(shared_address(to)), "l"(map), "r"(shared_address(bar)), "r"(x),
                 "r"(0), "r"(row / 8)
                 : "memory");
  else
    sm90::copy_box(to, map, bar, x, row);
}

// out[m,n] = gelu(gate) * up.
template <class T, class Out>
struct Geglu {
  static constexpr bool PAIRS = true;
  struct Early {};
  Out* out;
  const float *a_scale, *w_scale, *out_scale;
  int N;
  float scale, inverse;
  __device__ __forceinline__ void begin() {
    scale = sizeof(T) == 1 ? *a_scale * *w_scale : 1.0f, inverse = inverse_scale<Out>(out_scale);
  }
  __device__ __forceinline__ Early ask(int, int) const { return {}; }
  __device__ __forceinline__ float pair(float gate, float up) const { return gelu_for(gate * scale, Out{}) * (up * scale); }
  __device__ __forceinline__ void finish(int m, int n, const float (&v)[8], const Early&) const {
    store8(out + size_t(m) * N + n, v, inverse);
  }
};

// q, and rows *pos0 + m of the K and V caches, with Q and K turned (ops/qkv_rope.cuh).
template <class T>
struct QkvRope {
  static constexpr bool PAIRS = false;
  struct Early {
    float turn[8];
  };
  const float *a_scale, *w_scale, *rope;
  const int32_t* pos0;
  bf16 *q, *k, *v;
  int M, H, KVH, HD, rows;
  int start;
  float scale;
  __device__ __forceinline__ void begin() { scale = sizeof(T) == 1 ? *a_scale * *w_scale : 1.0f; }
  // What kernels may have written: after the wait.
  __device__ __forceinline__ void place() { start = pos0 ? min(max(*pos0, 0), rows - M) : 0; }
  __device__ __forceinline__ Early ask(int m, int n) const {
    Early e;
    if (m < M && n < (H + KVH) * HD) load8(rope + size_t(start + m) * HD + n % HD, e.turn);
    return e;
  }
  __device__ __forceinline__ void finish(int m, int n, const float (&x)[8], const Early& e) const {
    const int head = n / HD, d = n % HD, at = start + m;
    float y[8];
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      const float a = x[i] * scale, b = x[i + 1] * scale;
      const bool turns = head < H + KVH;
      y[i] = turns ? a * e.turn[i] - b * e.turn[i + 1] : a;
      y[i + 1] = turns ? b * e.turn[i] + a * e.turn[i + 1] : b;
    }
    bf16* to = head < H         ? q + (size_t(m) * H + head) * HD + d
               : head < H + KVH ? k + (size_t(at) * KVH + head - H) * HD + d
                                : v + (size_t(at) * KVH + head - H - KVH) * HD + d;
    store8(to, y, 1.0f);
  }
};

template <class T, class End>
__global__ void __launch_bounds__(THREADS, 1)
    gemm_rows_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_w, End end, int M,
                     int chunks, int slots) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int K_STEP = ROW_BYTES / sizeof(T), WIDTH = End::PAIRS ? TILE / 2 : TILE, PITCH = WIDTH + 4;
  constexpr int ITEMS = ROWS * WIDTH / 8 / WORKERS;  // of a thread: eight columns of a row each
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t full[MAX_SLOTS], empty[MAX_SLOTS];
  __shared__ __align__(16) float sums[ROWS * PITCH];
  const Ring ring{raw + (-shared_address(raw) & 1023), full, empty, slots};
  const int warp = sm90::warp_index(), lane = threadIdx.x % 32, first = blockIdx.x * WIDTH;
  if (threadIdx.x == 0) {
    ring.init();
    sm90::barrier_init_done();
  }
  __syncthreads();
  if (warp == WORKERS / 32) {
    if (lane == 0)
      copy_chunks(ring, chunks,
                  [&](void* to, uint64_t* bar, int i) { copy_weights<End::PAIRS>(to, &map_w, bar, i * K_STEP, first); },
                  [&](void* to, uint64_t* bar, int i) { sm90::copy_box(to, &map_a, bar, i * K_STEP, 0); });
  } else {
    end.begin();
    inputs_ready();
    if constexpr (!End::PAIRS) end.place();
    typename End::Early early[ITEMS];
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
      const int item = i * WORKERS + threadIdx.x;
      early[i] = end.ask(item / (WIDTH / 8), first + item % (WIDTH / 8) * 8);
    }
    float acc[ROWS / 2];
    multiply<T>(acc, ring, chunks);
    const int n = warp * (WIDTH / 4) + lane / 4;
#pragma unroll
    for (int j = 0; j < ROWS / 8; ++j) {
      float* to = sums + (j * 8 + lane % 4 * 2) * PITCH + n;
      if constexpr (End::PAIRS) {  // rows l/4 are gate, rows l/4 + 8 the same columns of up
        to[0] = end.pair(acc[4 * j], acc[4 * j + 2]), to[PITCH] = end.pair(acc[4 * j + 1], acc[4 * j + 3]);
      } else {
        to[0] = acc[4 * j], to[PITCH] = acc[4 * j + 1], to[8] = acc[4 * j + 2], to[PITCH + 8] = acc[4 * j + 3];
      }
    }
    sm90::group_sync(0);
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
      const int item = i * WORKERS + threadIdx.x, m = item / (WIDTH / 8), c = item % (WIDTH / 8) * 8;
      if (m >= M) break;
      float v[8];
      load8(sums + m * PITCH + c, v);
      end.finish(m, first + c, v, early[i]);
    }
  }
#endif
}

inline int ring_slots(int chunks, int most) { return min(most, max(chunks, 2)); }

// columns: of the output. K is a multiple of 128 bytes, columns one of 64 (GEGLU: 32).
template <class T, class End>
int gemm_rows(const Check& c, const void* a, const void* w, const End& end, int M, int columns, int K, cudaStream_t stream) {
  constexpr int K_STEP = ROW_BYTES / sizeof(T), code = sizeof(T) == 1 ? E4M3 : BF16;
  const int chunks = K / K_STEP, slots = ring_slots(chunks, tuning::gemm_rows.slots);
  CUtensorMap map_a, map_w;
  if (int rc = tensor_map(c, &map_a, a, code, M, K, K, ROWS, K_STEP)) return rc;
  if (int rc = End::PAIRS ? tensor_map_pairs(c, &map_w, w, code, columns, K, K_STEP)
                          : tensor_map(c, &map_w, w, code, columns, K, K, TILE, K_STEP))
    return rc;
  const Grid grid{dim3(columns / (End::PAIRS ? TILE / 2 : TILE)), dim3(THREADS), size_t(slots) * 2 * UNIT + 1024};
  return launch(c.op, gemm_rows_kernel<T, End>, grid, stream, map_a, map_w, end, M, chunks, slots);
}

}  // namespace frt::rows

namespace frt {

// Whether the gemm op's call runs here: GEGLU of 17 to 64 rows.
inline bool rows_take(const GemmArgs& g, int sm) {
  return sm == 90 && g.epilogue == GEGLU && g.M >= tuning::gemm_rows.least_rows && g.M <= rows::ROWS && g.N % 32 == 0 &&
         g.K * bytes_of(g.a_dtype) % ROW_BYTES == 0 &&
         ((g.a_dtype == E4M3 && (g.out_dtype == E4M3 || g.out_dtype == BF16)) || (g.a_dtype == BF16 && g.out_dtype == BF16));
}

template <class T, class Out>
int gemm_rows_geglu(const Check& c, const GemmArgs& g, cudaStream_t stream) {
  const rows::Geglu<T, Out> end{static_cast<Out*>(g.out), g.a_scale, g.w_scale, g.out_scale, g.N, 0, 0};
  return rows::gemm_rows<T>(c, g.a, g.w, end, g.M, g.N, g.K, stream);
}

}  // namespace frt
