// Every tile of tuning/gemm_tiles.h at the prefix's and the vision tower's shapes: error (norm) against a plain product, and
// microseconds a call in one CUDA graph over weights that do not fit the L2 cache.
//   nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -Icsrc bench/kernels/gemm_tiles.cu csrc/core/tensor_map.cpp
//        csrc/core/error.cpp -DFRT_ARCHS="\"90\"" -o gemm_tiles && ./gemm_tiles
#include "measure.cuh"
#include "ops/gemm_plain.cuh"
#include "ops/gemm_tiles.cuh"

using namespace frt;

struct Errors {
  double squares, total;
};
template <class Out>
__global__ void compare(const Out* got, const Out* want, size_t n, float scale, Errors* w) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x) {
    const float a = float(got[i]) * scale, b = float(want[i]) * scale;
    const float d = a == a ? fabsf(a - b) : 1e30f;
    atomicAdd(&w->squares, double(d) * d);
    atomicAdd(&w->total, double(b) * b);
  }
}

template <class T, bool GATED, class Out>
void shape(const char* name, int M, int N, int K, int epilogue, int copies) {
  const int C = GATED ? 2 * N : N;
  T* a = made<T>(size_t(M) * K, sizeof(T) == 1 ? 40 : 1, 1);
  T* w = made<T>(size_t(copies) * C * K, sizeof(T) == 1 ? 40 : 0.03f, 2);
  float* bias = made<float>(N, 1, 3);
  bf16* res = made<bf16>(size_t(M) * N, 1, 4);
  Out *out, *want;
  float *acc, *scales, host[12] = {1 / 40.0f};
  Errors* errors;
  MUST(cudaMalloc(&out, size_t(M) * N * sizeof(Out)));
  MUST(cudaMalloc(&want, size_t(M) * N * sizeof(Out)));
  MUST(cudaMalloc(&acc, size_t(M) * C * 4));
  MUST(cudaMalloc(&scales, sizeof host));
  MUST(cudaMalloc(&errors, sizeof *errors));
  host[4] = 0.03f / 40, host[8] = 0.02f;
  MUST(cudaMemcpy(scales, host, sizeof host, cudaMemcpyHostToDevice));
  const int code = sizeof(T) == 1 ? E4M3 : BF16;
  GemmArgs g{a, w, bias, res, nullptr, out, scales, scales + 4, scales + 8, M, N, K, epilogue, code, BF16, sizeof(Out) == 1 ? E4M3 : BF16};
  cudaStream_t s;
  MUST(cudaStreamCreate(&s));
  MUST(cudaDeviceSynchronize());
  GemmArgs plain = g;
  plain.out = want;
  gemm_plain<T>(plain, acc, s);
  gemm_epilogue<float, bf16, Out>(plain, acc, s);
  MUST(cudaStreamSynchronize(s));
  Check c("gemm", "M=%d", M);
  struct Row { float us; int i; float norm; };
  std::vector<Row> rows;
  for (int i = 0; i < tuning::tile_count; ++i) {
    const auto t = tuning::gemm_tiles[i];
    if (!tiles_take(g, 90) || !tuning::tile_takes(t, product_of(g))) continue;
    MUST(cudaMemsetAsync(out, 0xff, size_t(M) * N * sizeof(Out), s));
    MUST(cudaMemsetAsync(errors, 0, sizeof *errors, s));
    if (int rc = gemm_tiles<T, GATED, Out>(c, g, i, 132, s)) {
      printf("  tile %d: rc %d %s %s %s\n", i, rc, last_error().arg, last_error().value, last_error().rule);
      continue;
    }
    compare<<<256, 256, 0, s>>>(out, want, size_t(M) * N, sizeof(Out) == 1 ? 0.02f : 1.0f, errors);
    Errors r;
    MUST(cudaMemcpyAsync(&r, errors, sizeof r, cudaMemcpyDeviceToHost, s));
    MUST(cudaStreamSynchronize(s));
    const double us = graph_us(copies, 0, 7, s, [&](cudaStream_t, int k) {
      GemmArgs one = g;
      one.w = w + size_t(k) * C * K;
      gemm_tiles<T, GATED, Out>(c, one, i, 132, s);
    });
    rows.push_back({float(us), i, float(sqrt(r.squares / r.total))});
  }
  std::sort(rows.begin(), rows.end(), [](const Row& x, const Row& y) { return x.us < y.us; });
  printf("%s %s M=%d N=%d K=%d: ", sizeof(T) == 1 ? "fp8" : "bf16", name, M, N, K);
  for (const Row& r : rows) {
    const auto t = tuning::gemm_tiles[r.i];
    printf("%s %dx%d %.2f (%.0e)", r.norm < 0.02f ? "" : "BAD", t.groups * 64, t.columns, r.us, r.norm);
  }
  printf("\n");
  fflush(stdout);
  for (void* p : {(void*)a, (void*)w, (void*)bias, (void*)res, (void*)out, (void*)want, (void*)acc, (void*)scales, (void*)errors}) cudaFree(p);
}

int main() {
  shape<e4m3, false, bf16>("qkv", 512, 3456, 1152, BIAS, 27);
  shape<e4m3, false, bf16>("o", 512, 1152, 1152, BIAS_RESIDUAL, 54);
  shape<e4m3, false, e4m3>("fc1", 512, 4352, 1152, BIAS_GELU, 27);
  shape<e4m3, false, bf16>("fc2", 512, 1152, 4352, BIAS_RESIDUAL, 27);
  shape<e4m3, false, bf16>("qkv", 560, 2560, 2048, NONE, 18);
  shape<e4m3, false, bf16>("o", 560, 2048, 2048, RESIDUAL, 18);
  shape<e4m3, true, e4m3>("gate_up", 560, 16384, 2048, GEGLU, 6);
  shape<e4m3, false, bf16>("down", 560, 2048, 16384, RESIDUAL, 6);
  shape<bf16, false, bf16>("patch", 512, 1152, 592, BIAS_RESIDUAL, 54);
  shape<bf16, false, bf16>("qkv", 512, 3456, 1152, BIAS, 27);
  shape<bf16, false, bf16>("o", 512, 1152, 1152, BIAS_RESIDUAL, 54);
  shape<bf16, false, bf16>("fc1", 512, 4352, 1152, BIAS_GELU, 27);
  shape<bf16, false, bf16>("fc2", 512, 1152, 4352, BIAS_RESIDUAL, 27);
  shape<bf16, false, bf16>("qkv", 560, 2560, 2048, NONE, 18);
  shape<bf16, false, bf16>("o", 560, 2048, 2048, RESIDUAL, 18);
  shape<bf16, true, bf16>("gate_up", 560, 16384, 2048, GEGLU, 6);
  shape<bf16, false, bf16>("down", 560, 2048, 16384, RESIDUAL, 6);
  return 0;
}
