// What one exchange of all blocks with all blocks costs through L2: barriers and data that is its own flag, without any work.
//   nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -Icsrc bench/kernels/exchange_latency.cu -o exchange_latency
#include <cstdio>
#include <cstdlib>
#include <vector>
#include <algorithm>
#include "ops/denoise_exchange.cuh"
using namespace frt; using namespace frt::denoise;
#define CUDA(x) do { cudaError_t e_ = (x); if (e_ != cudaSuccess) printf("%s: %s\n", #x, cudaGetErrorString(e_)), exit(1); } while (0)
constexpr int N = 2000;
__device__ __forceinline__ unsigned ldr(const unsigned* p) { unsigned v; asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory"); return v; }
__device__ __forceinline__ unsigned lda(const unsigned* p) { unsigned v; asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory"); return v; }
__device__ __forceinline__ bool ready(uint4 v, unsigned i) { return v.x >= i && v.y >= i && v.z >= i && v.w >= i; }

// mode 0: latency of dependent loads; 1: ping-pong of blocks 0 and 1
__global__ void chase(unsigned* p, long long* out, int mode) {
  const long long start = clock64();
  unsigned v = 0;
  if (mode == 0) { if (blockIdx.x == 0) for (int i = 0; i < N; ++i) v = ldr(p + v); }
  else if (blockIdx.x < 2) for (unsigned i = 1; i <= N; ++i) {
    if (blockIdx.x == 0) publish(p, i);
    while (ldr(p + (blockIdx.x == 0 ? 1024 : 0)) < i) {}
    if (blockIdx.x == 1) publish(p + 1024, i);
  }
  out[blockIdx.x] = clock64() - start + v;
}
template <int MODE>
__global__ void __launch_bounds__(256) all(unsigned* p, long long* out) {
  const int b = blockIdx.x, tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
  long long start = clock64();
  for (unsigned i = 1; i <= N; ++i) {
    if (MODE == 0 || MODE == 1) {  // counter barrier
      __syncthreads();
      if (tid == 0) {
        if (MODE == 0) { asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(p) : "memory"); while (lda(p) < i * BLOCKS) {} }
        else { asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(p) : "memory"); while (ldr(p) < i * BLOCKS) {} }
      }
      __syncthreads();
    } else if (MODE == 2) {  // 128 flags, warp 0 looks
      __syncthreads();
      if (tid == 0) publish(p + b, i);
      if (warp == 0) while (!ready(peek(p + lane * 4), i)) {}
      __syncthreads();
    } else if (MODE == 3) {  // 128 flags 32 bytes apart
      __syncthreads();
      if (tid == 0) publish(p + b * 8, i);
      if (warp < 4) while (ldr(p + tid * 8) < i) {}
      __syncthreads();
    } else if (MODE >= 4) {  // rows: 10 x 2048 bytes; block b writes 16 bytes of each; a warp reads 256 bytes of each row
      constexpr int COP = MODE == 6 || MODE == 7 || MODE == 9 ? 4 : 1;
      if (tid < 40) for (int c = 0; c < COP; ++c) publish(p + c * 16384 + tid / 4 * 512 + b * 4 + tid % 4, i);
      const unsigned* q = p + b % COP * 16384;
      const int row = lane / 4, col = warp * 64 + lane % 4 * 4;
      auto want = [&](int u) { return row + u / 4 * 8 < 10; };
      auto at = [&](int u) { return q + (row + u / 4 * 8) * 512 + col + u % 4 * 16; };
      if (MODE == 5 || MODE == 7) {
        if (row == 0) { bool ok; do { ok = true; for (int u = 0; u < 4; ++u) ok &= ready(peek(at(u)), i); } while (!ok); }
        __syncwarp();
      }
      if (MODE == 8 || MODE == 9) {  // one lane of 16 looks at its producer's row 0
        if (lane < 16) while (!ready(peek(q + warp * 64 + lane * 4), i)) {}
        __syncwarp();
      }
      bool ok;
      do {
        uint4 v[8]; ok = true;
#pragma unroll
        for (int u = 0; u < 8; ++u) { v[u] = make_uint4(i, i, i, i); if (want(u)) v[u] = peek(at(u)); }
#pragma unroll
        for (int u = 0; u < 8; ++u) ok &= ready(v[u], i);
      } while (!ok);
      __syncthreads();
    }
  }
  out[b] = clock64() - start;
}
template <class F>
void timed(const char* name, unsigned* p, long long* out, int blocks, F&& go) {
  cudaEvent_t a, b; CUDA(cudaEventCreate(&a)); CUDA(cudaEventCreate(&b));
  float ms = 0;
  for (int k = 0; k < 3; ++k) { CUDA(cudaMemset(p, 0, 1 << 20)); CUDA(cudaEventRecord(a)); go(); CUDA(cudaEventRecord(b)); CUDA(cudaDeviceSynchronize()); CUDA(cudaEventElapsedTime(&ms, a, b)); }
  std::vector<long long> c(blocks); CUDA(cudaMemcpy(c.data(), out, blocks * 8, cudaMemcpyDeviceToHost));
  printf("%-60s %7.0f cycles %7.0f ns (%.2f GHz)\n", name, double(c[0]) / N, ms * 1e6 / N, c[0] / (ms * 1e6));
}
int main() {
  unsigned* p; long long* out; CUDA(cudaMalloc(&p, 4 << 20)); CUDA(cudaMalloc(&out, 4096));
  for (int k = 0; k < 4; ++k) timed("dependent load", p + k * 4096, out, 128, [&] { chase<<<128, 1>>>(p + k * 4096, out, 0); });
  timed("ping-pong of two blocks, both ways", p, out, 2, [&] { chase<<<2, 1>>>(p, out, 1); });
  timed("counter: red.release, ld.acquire", p, out, 128, [&] { all<0><<<BLOCKS, 256>>>(p, out); });
  timed("counter: relaxed", p, out, 128, [&] { all<1><<<BLOCKS, 256>>>(p, out); });
  timed("128 flags of 4 bytes together", p, out, 128, [&] { all<2><<<BLOCKS, 256>>>(p, out); });
  timed("128 flags 32 bytes apart", p, out, 128, [&] { all<3><<<BLOCKS, 256>>>(p, out); });
  timed("20 KB rows", p, out, 128, [&] { all<4><<<BLOCKS, 256>>>(p, out); });
  timed("20 KB rows, row 0 first by 4 lanes", p, out, 128, [&] { all<5><<<BLOCKS, 256>>>(p, out); });
  timed("20 KB rows, 4 copies", p, out, 128, [&] { all<6><<<BLOCKS, 256>>>(p, out); });
  timed("20 KB rows, 4 copies, row 0 first by 4 lanes", p, out, 128, [&] { all<7><<<BLOCKS, 256>>>(p, out); });
  timed("20 KB rows, row 0 first by 16 lanes", p, out, 128, [&] { all<8><<<BLOCKS, 256>>>(p, out); });
  timed("20 KB rows, 4 copies, row 0 first by 16 lanes", p, out, 128, [&] { all<9><<<BLOCKS, 256>>>(p, out); });
}
