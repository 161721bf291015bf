// out = res + gate * (a . w^T), normed = rms(out) * (1 + style[0]) + style[1], for up to 64 rows on SM90: what closes a branch of
// the action expert and opens the next one.
// A cluster of 8 blocks takes 64 columns and shares out K; block k of it gets everyone's sums of rows 8k..8k+7 and ends them.
// The blocks that end the same rows tell one another their sums of squares through L2: a word is 0 until it is there, and its
// reader makes it 0 again. So all blocks of the grid must be resident at once: they are few and small (`rows_together`).
// a: [M,K], w: [N,K] row-major, both BF16 or both E4M3; res, out: [M,N] BF16; normed: [M,N]; rows are multiples of 128 bytes.
#pragma once
#include "../core/cluster.cuh"
#include "../core/words.cuh"
#include "gemm_rows.cuh"

namespace frt::rows {

inline constexpr int SHARES = 8, MAX_TILES = 16;  // of K; of 64 columns

struct GateNormArgs {
  const void *a, *w;
  const bf16* res;
  const float *gate, *style;
  bf16* out;
  void* normed;
  const float *a_scale, *w_scale, *out_scale;
  int M, N, K;
  float eps;
};

// [rows / 8][reader's tile][writer's tile][row]: minus a sum of squares, so that no value is a word of zeros.
static __device__ unsigned mail[ROWS / 8][MAX_TILES][MAX_TILES][8];

__device__ __forceinline__ float sum8(float v) {  // of the eight lanes that share a row
#pragma unroll
  for (int d = 1; d < 8; d *= 2) v += __shfl_xor_sync(~0u, v, d);
  return v;
}

template <class T, class Norm>
__global__ void __launch_bounds__(THREADS, 1)
    gemm_gate_norm_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_w, GateNormArgs g,
                          int slots) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int K_STEP = ROW_BYTES / sizeof(T), PITCH = TILE + 4;
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t full[MAX_SLOTS], empty[MAX_SLOTS], joined;
  __shared__ __align__(16) uint4 parts[SHARES][WORKERS];
  __shared__ __align__(16) float sums[8 * PITCH];
  const Ring ring{raw + (-shared_address(raw) & 1023), full, empty, slots};
  const int warp = sm90::warp_index(), lane = threadIdx.x % 32, tile = blockIdx.x / SHARES, share = sm90::cluster_rank();
  const int all = g.K / K_STEP, begin = all * share / SHARES, chunks = all * (share + 1) / SHARES - begin;
  if (threadIdx.x == 0) {
    ring.init();
    sm90::barrier_init(&joined, 1);
    sm90::barrier_init_done();
    sm90::barrier_expect(&joined, sizeof parts);
  }
  __syncthreads();
  sm90::cluster_arrive();
  if (warp == WORKERS / 32) {
    if (lane == 0)
      copy_chunks(ring, chunks,
                  [&](void* to, uint64_t* bar, int i) { sm90::copy_box(to, &map_w, bar, (begin + i) * K_STEP, tile * TILE); },
                  [&](void* to, uint64_t* bar, int i) { sm90::copy_box(to, &map_a, bar, (begin + i) * K_STEP, 0); });
    __syncwarp();
    sm90::cluster_wait();
  } else {
    const int row = threadIdx.x / 8, m = share * 8 + row, column = threadIdx.x % 8 * 8, n = tile * TILE + column;
    const bool ends = threadIdx.x < WORKERS / 2 && m < g.M;
    const float scale = sizeof(T) == 1 ? *g.a_scale * *g.w_scale : 1.0f, inverse = inverse_scale<Norm>(g.out_scale);
    float y[8], gate[8], factor[8], shift[8];
    if (ends) load8(g.gate + n, gate), load8(g.style + n, factor), load8(g.style + g.N + n, shift);
    inputs_ready();
    if (ends) load8(g.res + size_t(m) * g.N + n, y);
    float acc[ROWS / 2];
    multiply<T>(acc, ring, chunks);
    sm90::cluster_wait();
#pragma unroll
    for (int j = 0; j < SHARES; ++j)
      if (j * 8 < g.M)
        sm90::send16(sm90::peer_address(&parts[share][threadIdx.x], j), sm90::peer_address(&joined, j),
                   make_uint4(__float_as_uint(acc[4 * j]), __float_as_uint(acc[4 * j + 1]), __float_as_uint(acc[4 * j + 2]),
                              __float_as_uint(acc[4 * j + 3])));
    if (share * 8 >= g.M) return;  // no rows to end
    sm90::barrier_wait(&joined, 0);
    float v[4] = {};
#pragma unroll
    for (int i = 0; i < SHARES; ++i) {
      const uint4 p = parts[i][threadIdx.x];
      v[0] += __uint_as_float(p.x), v[1] += __uint_as_float(p.y), v[2] += __uint_as_float(p.z), v[3] += __uint_as_float(p.w);
    }
    float* to = sums + lane % 4 * 2 * PITCH + warp * 16 + lane / 4;
    to[0] = v[0], to[PITCH] = v[1], to[8] = v[2], to[PITCH + 8] = v[3];
    sm90::group_sync(0);
    if (threadIdx.x >= WORKERS / 2) return;
    float square = 0, x[8];
    if (ends) {
      load8(sums + row * PITCH + column, x);
#pragma unroll
      for (int i = 0; i < 8; ++i) y[i] += gate[i] * (x[i] * scale), square += y[i] * y[i];
    }
    square = sum8(square);
    // each of a row's eight threads tells two tiles and hears from them
    const int tiles = g.N / TILE, near = threadIdx.x % 8, far = near + 8;
    const bool first = ends && near < tiles, second = ends && far < tiles;
    const unsigned own = __float_as_uint(square) | 0x80000000u;
    if (first) store_word(&mail[share][near][tile][row], own);
    if (second) store_word(&mail[share][far][tile][row], own);
    if (ends) store8(g.out + size_t(m) * g.N + n, y, 1.0f);
    unsigned *const from = &mail[share][tile][near][row], *const also = &mail[share][tile][far][row];
    unsigned one_sum, two_sum;
    for (unsigned tries = 0;; ++tries) {
      one_sum = first ? load_word(from) : 0x80000000u;
      two_sum = second ? load_word(also) : 0x80000000u;
      if (one_sum && two_sum) break;
      if (tries == PATIENCE) __trap();
    }
    if (first) store_word(from, 0);
    if (second) store_word(also, 0);
    const float total = -__uint_as_float(one_sum) - __uint_as_float(two_sum);
    const float one = rsqrtf(sum8(total) / g.N + g.eps);
    if (!ends) return;
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = y[i] * one * (1.0f + factor[i]) + shift[i];
    store8(static_cast<Norm*>(g.normed) + size_t(m) * g.N + n, x, inverse);
  }
#endif
}

inline Grid gate_norm_grid(int N, int K, int bytes) {
  const int slots = ring_slots(divide_up(K * bytes / ROW_BYTES, SHARES), tuning::gemm_rows.shared_slots);
  return {dim3(N / TILE * SHARES), dim3(THREADS), size_t(slots) * 2 * UNIT + 1024, SHARES};
}

// Whether all blocks of a call are resident at once on the current device.
template <class T, class Norm>
bool rows_together(int N, int K) {
  const Grid g = gate_norm_grid(N, K, sizeof(T));
  auto* kernel = gemm_gate_norm_kernel<T, Norm>;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = SHARES, cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = g.blocks, config.blockDim = g.threads, config.dynamicSmemBytes = g.shared;
  config.attrs = &cluster, config.numAttrs = 1;
  int clusters = 0;
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(g.shared)) != cudaSuccess ||
      cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  return clusters * SHARES >= int(g.blocks.x);
}

template <class T, class Norm>
int gemm_gate_norm(const Check& c, const GateNormArgs& g, cudaStream_t stream) {
  constexpr int K_STEP = ROW_BYTES / sizeof(T), code = sizeof(T) == 1 ? E4M3 : BF16;
  CUtensorMap map_a, map_w;
  if (int rc = tensor_map(c, &map_a, g.a, code, g.M, g.K, g.K, ROWS, K_STEP)) return rc;
  if (int rc = tensor_map(c, &map_w, g.w, code, g.N, g.K, g.K, TILE, K_STEP)) return rc;
  const Grid grid = gate_norm_grid(g.N, g.K, sizeof(T));
  const int slots = int(grid.shared / (2 * UNIT));
  return launch(c.op, gemm_gate_norm_kernel<T, Norm>, grid, stream, map_a, map_w, g, slots);
}

}  // namespace frt::rows
