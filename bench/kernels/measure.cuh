// What the kernel benchmarks share: checked calls, random values in device memory, the time of calls captured in a graph.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#define MUST(x)                                                                                 \
  do {                                                                                          \
    const cudaError_t error_ = (x);                                                             \
    if (error_ != cudaSuccess) printf("%s: %s\n", #x, cudaGetErrorString(error_)), exit(1);     \
  } while (0)

__device__ inline float noise(uint32_t i) {  // roughly normal, unit variance
  float sum = 0;
  for (int k = 0; k < 4; ++k) {
    i ^= i << 13, i ^= i >> 17, i ^= i << 5;
    i = i * 2654435761u + 12345;
    sum += (i >> 8) / 16777216.0f - 0.5f;
  }
  return sum * 1.732f;
}

template <class T>
__global__ void fill(T* p, size_t n, float scale, uint32_t seed) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x)
    p[i] = T(noise(uint32_t(i) * 747796405u + seed) * scale);
}

template <class T>
T* made(size_t n, float scale, uint32_t seed) {
  T* p;
  MUST(cudaMalloc(&p, n * sizeof(T)));
  fill<T><<<1024, 256>>>(p, n, scale, seed);
  return p;
}

// Microseconds a call: the median of `runs` replays of a graph of `calls` calls, after `warm_up` that do not count.
template <class Call>
double graph_us(int calls, int warm_up, int runs, cudaStream_t s, const Call& call) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  MUST(cudaStreamBeginCapture(s, cudaStreamCaptureModeRelaxed));
  for (int i = 0; i < calls; ++i) call(s, i);
  MUST(cudaStreamEndCapture(s, &graph));
  MUST(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t from, to;
  MUST(cudaEventCreate(&from));
  MUST(cudaEventCreate(&to));
  std::vector<float> ms;
  for (int i = 0; i < warm_up + runs; ++i) {
    MUST(cudaEventRecord(from, s));
    MUST(cudaGraphLaunch(exec, s));
    MUST(cudaEventRecord(to, s));
    MUST(cudaEventSynchronize(to));
    float t;
    MUST(cudaEventElapsedTime(&t, from, to));
    if (i >= warm_up) ms.push_back(t);
  }
  MUST(cudaGraphExecDestroy(exec));
  MUST(cudaGraphDestroy(graph));
  MUST(cudaEventDestroy(from));
  MUST(cudaEventDestroy(to));
  std::sort(ms.begin(), ms.end());
  return ms[ms.size() / 2] * 1e3 / calls;
}
