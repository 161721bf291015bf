// Where the time of the denoise loop goes: the kernel over random weights at full size, with the clock read at phase ends.
//   nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -Icsrc bench/kernels/denoise_phases.cu -o denoise_phases
//   ./denoise_phases [time|phases|parts|check]
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "measure.cuh"
#include "ops/denoise_loop.cuh"

namespace frt {
frt_error& last_error() {
  thread_local frt_error error{};
  return error;
}
}  // namespace frt

using namespace frt;
namespace dn = frt::denoise;

constexpr int POINTS = 40;  // of one layer
const char* const NAMES[] = {  // of dn::Point
    "layer", "attend: queries received", "attend: keys there", "attend: scores", "attend: weights",
    "join: parts received", "norm: received", "norm: squares", "norm: done", "multiply: own share", "multiply: all shares",
    "action_in: published", "qkv: published", "close: received", "close: published", "gate/up: published",
    "action_out: published", "attend: published", "join: published"};

// Cycles of thread 0 between the points of a layer, added over layers.
struct ClockProbe {
  long long* out;  // [blocks][POINTS][3]: cycles, times, which point
  long long last;
  int at;
  __device__ void operator()(dn::Point point) {
    __shared__ int sums[POINTS][3];
    if (threadIdx.x) return;
    if (last == 0)
      for (int i = 0; i < POINTS; ++i) sums[i][0] = sums[i][1] = 0;
    const long long now = clock64();
    if (point == dn::LAYER) at = -1;
    if (at >= 0 && at < POINTS) sums[at][0] += int(now - last), sums[at][1] += 1, sums[at][2] = point;
    if (point == dn::ACTION_OUT_PUBLISHED || point == dn::ACTION_IN_PUBLISHED)  // once a step: to memory
      for (int i = 0; i < POINTS; ++i)
        for (int j = 0; j < 3; ++j) out[(blockIdx.x * POINTS + i) * 3 + j] = sums[i][j];
    ++at;
    last = clock64();
  }
};

template <class T>
void run(int M, int L, int steps, int prefix, int runs, bool detail) {
  dn::Args a{};
  const bool fp8 = sizeof(T) == 1;
  const int rows = prefix + M;
  auto weight = [&](int n, int k, unsigned seed) { return made<T>(size_t(n) * k, fp8 ? 140.0f : 1 / sqrtf(k), seed); };
  auto scale = [&](int k) {
    float* p = made<float>(4, 0, 0);
    const float v = 1 / sqrtf(float(k)) / 140;
    MUST(cudaMemcpy(p, &v, 4, cudaMemcpyHostToDevice));
    return p;
  };
  for (int i = 0; i < L; ++i)
    a.layers[i] = {weight(dn::QKV, dn::D, i * 9 + 1),     weight(dn::D, dn::Q, i * 9 + 2),
                   weight(2 * dn::MLP, dn::D, i * 9 + 3), weight(dn::D, dn::MLP, i * 9 + 4),
                   scale(dn::D), scale(dn::Q), scale(dn::D), scale(dn::MLP),
                   made<bf16>(size_t(rows) * dn::HD, 2, i * 9 + 5), made<bf16>(size_t(rows) * dn::HD, 2, i * 9 + 6)};
  std::vector<float> scales(size_t(steps) * L * 16, 0.02f), noise(M * dn::A), first(M * dn::A), out(M * dn::A);
  for (size_t i = 0; i < noise.size(); ++i) noise[i] = sinf(float(i) * 1.7f) * 1.5f;
  float* device_scales;
  MUST(cudaMalloc(&device_scales, scales.size() * 4));
  MUST(cudaMemcpy(device_scales, scales.data(), scales.size() * 4, cudaMemcpyHostToDevice));
  a.scales = device_scales;
  a.in_w = made<float>(dn::D * dn::A, 0.3f, 91), a.in_b = made<float>(dn::D, 0.1f, 92);
  a.out_w = made<float>(dn::D * dn::A, 0.005f, 93), a.out_b = made<float>(steps * dn::A, 0.01f, 94);
  a.styles = made<float>(size_t(steps) * (2 * L + 1) * 3 * dn::D, 0.3f, 95);
  a.shifts = made<float>(size_t(steps) * L * (dn::QKV + 2 * dn::MLP), 0.3f, 97);
  a.rope = made<float>(size_t(rows) * dn::HD, 1, 96);
  int* length;
  MUST(cudaMalloc(&length, 4));
  MUST(cudaMemcpy(length, &prefix, 4, cudaMemcpyHostToDevice));
  a.prefix_len = length;
  MUST(cudaMalloc(&a.actions, M * dn::A * 4));
  MUST(cudaMalloc(&a.exchange, dn::Exchange::BYTES));
  a.M = M, a.L = L, a.steps = steps, a.cache_rows = rows, a.eps = 1e-6f;
  long long* clocks;
  MUST(cudaMalloc(&clocks, dn::BLOCKS * POINTS * 24));
  cudaStream_t stream;
  MUST(cudaStreamCreate(&stream));
  cudaEvent_t begin, end;
  MUST(cudaEventCreate(&begin));
  MUST(cudaEventCreate(&end));
  int differ = 0;
  std::vector<float> ms;
  for (int i = 0; i < runs; ++i) {
    MUST(cudaMemcpyAsync(a.actions, noise.data(), noise.size() * 4, cudaMemcpyHostToDevice, stream));
    MUST(cudaEventRecord(begin, stream));
    if (dn::denoise_loop<T>(a, dn::NoProbe{}, stream))
      printf("launch: %s %s\n", last_error().value, last_error().rule), exit(1);
    MUST(cudaEventRecord(end, stream));
    MUST(cudaStreamSynchronize(stream));
    float t;
    MUST(cudaEventElapsedTime(&t, begin, end));
    ms.push_back(t);
    MUST(cudaMemcpy(out.data(), a.actions, out.size() * 4, cudaMemcpyDeviceToHost));
    if (i == 0) first = out;
    differ += memcmp(first.data(), out.data(), out.size() * 4) != 0;
  }
  std::sort(ms.begin(), ms.end());
  const int keys = dn::keys_for(rows);
  printf("%s M=%d L=%d steps=%d prefix=%d: P50 %.3f ms, min %.3f, %d of %d runs differ from the first, actions %g %g, "
         "ring %d slots\n", fp8 ? "fp8" : "bf16", M, L, steps, prefix, ms[ms.size() / 2], ms[0], differ, runs, first[0], first[1], dn::slots_for(keys));
  if (!detail) return;
  MUST(cudaMemset(clocks, 0, dn::BLOCKS * POINTS * 24));
  MUST(cudaMemcpy(a.actions, noise.data(), noise.size() * 4, cudaMemcpyHostToDevice));
  MUST(cudaEventRecord(begin, stream));
  if (dn::denoise_loop<T>(a, ClockProbe{clocks, 0, -1}, stream))
    printf("launch: %s %s\n", last_error().value, last_error().rule), exit(1);
  MUST(cudaEventRecord(end, stream));
  MUST(cudaStreamSynchronize(stream));
  float probed;
  MUST(cudaEventElapsedTime(&probed, begin, end));
  std::vector<long long> c(dn::BLOCKS * POINTS * 3);
  MUST(cudaMemcpy(c.data(), clocks, c.size() * 8, cudaMemcpyDeviceToHost));
  printf("  cycles of thread 0 of blocks 0, 40, 80, 127 and the mean over blocks\n");
  double whole = 0;
  for (int p = 0; p < POINTS && c[p * 3 + 1] >= L * (steps - 1); ++p) {
    double mean = 0;
    printf("  %-28s", NAMES[c[p * 3 + 2]]);
    for (int i = 0; i < dn::BLOCKS; ++i) {
      const long long* o = &c[(i * POINTS + p) * 3];
      const double each = double(o[0]) / o[1];
      mean += each / dn::BLOCKS;
      if (i == 0 || i == 40 || i == 80 || i == 127) printf(" %6.0f", each);
    }
    printf("  %6.0f\n", mean);
    whole += mean;
  }
  printf("  %-28s %.0f cycles a layer, run took %.3f ms\n", "sum", whole, probed);
  fflush(stdout);
}

int main(int argc, char** argv) {
  cudaDeviceProp p;
  MUST(cudaGetDeviceProperties(&p, 0));
  printf("%s, %d SMs\n", p.name, p.multiProcessorCount);
  const std::string mode = argc > 1 ? argv[1] : "time";
  if (mode == "check") {  // small, for compute-sanitizer
    run<e4m3>(10, 2, 2, 100, 1, false);
    run<bf16>(16, 2, 2, 37, 1, false);
    run<e4m3>(1, 1, 1, 0, 1, false);
    return 0;
  }
  if (mode == "parts") {  // what a layer and a step cost: differences
    for (auto [layers, steps] : {std::pair{18, 10}, {18, 5}, {9, 10}, {1, 10}}) run<e4m3>(10, layers, steps, 560, 40, false);
    return 0;
  }
  run<e4m3>(10, 18, 10, 560, 60, mode == "phases");
  run<bf16>(10, 18, 10, 560, 60, mode == "phases");
}
