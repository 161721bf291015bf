// What one exchange of all blocks with all blocks costs through L2: barriers and data that is its own flag, without any work.
//   nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -Icsrc bench/kernels/exchange_latency.cu -o exchange_latency
#include "core/bulk.cuh"
#include "measure.cuh"
#include "ops/denoise_exchange.cuh"

using namespace frt;
using namespace frt::denoise;

constexpr int N = 2000, AREA = 1 << 20;

__device__ __forceinline__ unsigned acquire(const unsigned* p) {
  unsigned v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
__device__ __forceinline__ bool ready(uint4 v, unsigned i) { return v.x >= i && v.y >= i && v.z >= i && v.w >= i; }

// pong false: block 0 reads words that depend on one another; true: blocks 0 and 1 answer each other.
__global__ void two(unsigned* p, long long* out, bool pong) {
  const long long start = clock64();
  unsigned v = 0;
  if (!pong) {
    for (int i = 0; i < N && blockIdx.x == 0; ++i) v = load_word(p + v);
  } else {
    for (unsigned i = 1; i <= N && blockIdx.x < 2; ++i) {
      if (blockIdx.x == 0) publish(p, i);
      while (load_word(p + (blockIdx.x == 0 ? 1024 : 0)) < i) {
      }
      if (blockIdx.x == 1) publish(p + 1024, i);
    }
  }
  out[blockIdx.x] = clock64() - start + v;
}

enum Mode { COUNTER, COUNTER_RELAXED, FLAGS, FLAGS_APART, ROWS_POLLED, FIRST_ROW, FIRST_ROW_16 };

// N exchanges of all blocks with all blocks. Rows: 10 x 2048 bytes; a block writes 16 of each, a warp reads 256 of each.
template <Mode MODE, int COPIES = 1>
__global__ void __launch_bounds__(256) all(unsigned* p, long long* out) {
  const int b = blockIdx.x, tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
  const long long start = clock64();
  for (unsigned i = 1; i <= N; ++i) {
    if (MODE >= ROWS_POLLED) {
      if (tid < 40)
        for (int c = 0; c < COPIES; ++c) publish(p + c * 16384 + tid / 4 * 512 + b * 4 + tid % 4, i);
      const unsigned* q = p + b % COPIES * 16384;
      const int row = lane / 4, column = warp * 64 + lane % 4 * 4;
      auto at = [&](int u) { return q + (row + u / 4 * 8) * 512 + column + u % 4 * 16; };
      if (MODE == FIRST_ROW && row == 0) {
        bool there;
        do {
          there = true;
          for (int u = 0; u < 4; ++u) there &= ready(peek(at(u)), i);
        } while (!there);
      }
      if (MODE == FIRST_ROW_16 && lane < 16) {
        while (!ready(peek(q + warp * 64 + lane * 4), i)) {
        }
      }
      __syncwarp();
      bool there;
      do {
        uint4 v[8];
        there = true;
#pragma unroll
        for (int u = 0; u < 8; ++u) {
          v[u] = make_uint4(i, i, i, i);
          if (row + u / 4 * 8 < 10) v[u] = peek(at(u));
        }
#pragma unroll
        for (int u = 0; u < 8; ++u) there &= ready(v[u], i);
      } while (!there);
      __syncthreads();
      continue;
    }
    __syncthreads();
    if (MODE == COUNTER && tid == 0) {
      asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(p) : "memory");
      while (acquire(p) < i * BLOCKS) {
      }
    }
    if (MODE == COUNTER_RELAXED && tid == 0) {
      asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(p) : "memory");
      while (load_word(p) < i * BLOCKS) {
      }
    }
    if (MODE == FLAGS && tid == 0) publish(p + b, i);
    if (MODE == FLAGS && warp == 0)
      while (!ready(peek(p + lane * 4), i)) {
      }
    if (MODE == FLAGS_APART && tid == 0) publish(p + b * 8, i);
    if (MODE == FLAGS_APART && warp < 4)
      while (load_word(p + tid * 8) < i) {
      }
    __syncthreads();
  }
  out[b] = clock64() - start;
}

enum How { QUARTERS, WHOLE, BULK };  // 64 bytes of each of 8 rows a warp; 512 contiguous bytes; bulk copies of PIECE bytes

// N times 10 rows of WIDTH bytes, 8192 apart, into every block; nobody waits for anybody.
template <How HOW, int WIDTH, int PIECE = 1024>
__global__ void __launch_bounds__(256) read(const char* p, long long* out) {
  __shared__ uint64_t barrier;
  extern __shared__ __align__(128) char memory[];
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, row = lane / 4;
  if (tid == 0) barrier_init(&barrier, 1);
  __syncthreads();
  unsigned sink = 0;
  const long long start = clock64();
  for (int n = 0; n < N; ++n) {
    constexpr int COUNT = HOW == QUARTERS ? WIDTH / 256 : 10 * WIDTH / 4096, ROW = WIDTH / 512;
    if (HOW == BULK) {
      if (tid == 0) barrier_expect(&barrier, 10 * WIDTH);
      __syncthreads();
      for (int u = tid; u < 10 * WIDTH / PIECE && warp == 0; u += 32)
        bulk_load(memory + u * PIECE, p + u / (WIDTH / PIECE) * 8192 + u % (WIDTH / PIECE) * PIECE, PIECE, &barrier);
      barrier_wait(&barrier, n % 2);
      sink += memory[tid * 16];
    } else {
      uint4 v[COUNT];
#pragma unroll
      for (int i = 0; i < COUNT; ++i) {
        v[i] = make_uint4(0, 0, 0, 0);
        const int u = i * 8 + warp, piece = i % ROW, m = row + i / ROW * 8;
        if (HOW == WHOLE) v[i] = peek(p + u / ROW * 8192 + u % ROW * 512 + lane * 16);
        else if (m < 10) v[i] = peek(p + m * 8192 + piece / 2 * 1024 + warp * 128 + piece % 2 * 64 + lane % 4 * 16);
      }
#pragma unroll
      for (int i = 0; i < COUNT; ++i) sink += v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
    }
    __syncthreads();
  }
  out[blockIdx.x] = clock64() - start + (sink == 12345);
}

template <class F>
void timed(const char* name, unsigned* p, long long* out, F&& go) {
  cudaEvent_t begin, end;
  MUST(cudaEventCreate(&begin));
  MUST(cudaEventCreate(&end));
  float ms = 0;
  long long cycles;
  for (int k = 0; k < 3; ++k) {
    MUST(cudaMemset(p, 0, AREA));
    MUST(cudaEventRecord(begin));
    go();
    MUST(cudaEventRecord(end));
    MUST(cudaDeviceSynchronize());
    MUST(cudaEventElapsedTime(&ms, begin, end));
  }
  MUST(cudaMemcpy(&cycles, out, 8, cudaMemcpyDeviceToHost));
  printf("%-50s %7.0f cycles %7.0f ns\n", name, double(cycles) / N, ms * 1e6 / N);
}

int main() {
  unsigned* p;
  long long* out;
  MUST(cudaMalloc(&p, AREA));
  MUST(cudaMalloc(&out, BLOCKS * 8));
  timed("dependent load", p, out, [&] { two<<<128, 1>>>(p, out, false); });
  timed("two blocks, there and back", p, out, [&] { two<<<2, 1>>>(p, out, true); });
  timed("counter: red.release, ld.acquire", p, out, [&] { all<COUNTER><<<BLOCKS, 256>>>(p, out); });
  timed("counter: relaxed", p, out, [&] { all<COUNTER_RELAXED><<<BLOCKS, 256>>>(p, out); });
  timed("128 flags of 4 bytes together", p, out, [&] { all<FLAGS><<<BLOCKS, 256>>>(p, out); });
  timed("128 flags 32 bytes apart", p, out, [&] { all<FLAGS_APART><<<BLOCKS, 256>>>(p, out); });
  timed("20 KB rows", p, out, [&] { all<ROWS_POLLED><<<BLOCKS, 256>>>(p, out); });
  timed("20 KB rows, 4 copies", p, out, [&] { all<ROWS_POLLED, 4><<<BLOCKS, 256>>>(p, out); });
  timed("20 KB rows, row 0 first", p, out, [&] { all<FIRST_ROW><<<BLOCKS, 256>>>(p, out); });
  timed("20 KB rows, row 0 first by 16 lanes, 4 copies", p, out, [&] { all<FIRST_ROW_16, 4><<<BLOCKS, 256>>>(p, out); });
  const char* rows = reinterpret_cast<const char*>(p);
  timed("reading 20 KB, 64 bytes of 8 rows a warp", p, out, [&] { read<QUARTERS, 2048><<<BLOCKS, 256>>>(rows, out); });
  timed("reading 40 KB, 64 bytes of 8 rows a warp", p, out, [&] { read<QUARTERS, 4096><<<BLOCKS, 256>>>(rows, out); });
  timed("reading 20 KB, 512 contiguous bytes a warp", p, out, [&] { read<WHOLE, 2048><<<BLOCKS, 256>>>(rows, out); });
  timed("reading 40 KB, 512 contiguous bytes a warp", p, out, [&] { read<WHOLE, 4096><<<BLOCKS, 256>>>(rows, out); });
  timed("reading 40 KB, bulk copies of 1 KB", p, out, [&] { read<BULK, 4096><<<BLOCKS, 256, 40960>>>(rows, out); });
  timed("reading 40 KB, bulk copies of 4 KB", p, out, [&] { read<BULK, 4096, 4096><<<BLOCKS, 256, 40960>>>(rows, out); });
}
