// The action expert's ops at a chunk of 50: each against the ops for any size (error), and microseconds a call in one CUDA graph over
// 18 layers of weights, alone and as the whole loop of 180 layers.
//   nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -Icsrc bench/kernels/denoise_rows.cu csrc/core/tensor_map.cpp
//        csrc/core/error.cpp -DFRT_ARCHS="\"90\"" -o denoise_rows && ./denoise_rows [check]
#include <functional>

#include "measure.cuh"
#include "ops/ada_rms_norm.cuh"
#include "ops/attention_mma.cuh"
#include "ops/attention_rows.cuh"
#include "ops/gemm_gate_norm.cuh"
#include "ops/gemm_rows.cuh"
#include "ops/gemm_skinny.cuh"
#include "ops/qkv_rope.cuh"

#define DONE(x)                                                                              \
  do {                                                                                       \
    if (x) printf("%s: %s %s %s\n", #x, last_error().arg, last_error().value, last_error().rule), exit(1); \
  } while (0)
using namespace frt;

template <class T>
void compare(const char* name, const T* got, const T* want, size_t n) {
  std::vector<T> a(n), b(n);
  MUST(cudaDeviceSynchronize());
  MUST(cudaMemcpy(a.data(), got, n * sizeof(T), cudaMemcpyDeviceToHost));
  MUST(cudaMemcpy(b.data(), want, n * sizeof(T), cudaMemcpyDeviceToHost));
  double d = 0, t = 0, most = 0;
  for (size_t i = 0; i < n; ++i) {
    const double x = float(a[i]), y = float(b[i]);
    d += (x - y) * (x - y), t += y * y, most = std::max(most, std::abs(x - y));
    if (!(x == x)) d += 1e30;
  }
  printf("  %-26s relative error %.2e, largest %.3g (rms of values %.3g)\n", name, std::sqrt(d / t), most, std::sqrt(t / n));
}

constexpr int M = 50, D = 1024, MLP = 4096, H = 8, HD = 256, Q = 2048, QKV = 2560, L = 18, KV = 610;

double time(const char* name, int calls, const std::function<void(cudaStream_t, int)>& call) {
  cudaStream_t s;
  MUST(cudaStreamCreate(&s));
  const double us = graph_us(calls, 3, 20, s, call);
  printf("  %-26s %7.2f us a call\n", name, us);
  fflush(stdout);
  MUST(cudaStreamDestroy(s));
  return us;
}

template <class T>
void all(const char* title, bool check) {
  constexpr bool FP8 = sizeof(T) == 1;
  constexpr int code = FP8 ? E4M3 : BF16;
  const float ws = FP8 ? 40 : 0.03f, as = FP8 ? 40 : 1;
  printf("%s\n", title);
  T* wq = made<T>(size_t(L) * QKV * D, ws, 1);
  T* wo = made<T>(size_t(L) * D * Q, ws, 2);
  T* wg = made<T>(size_t(L) * 2 * MLP * D, ws, 3);
  T* wd = made<T>(size_t(L) * D * MLP, ws, 4);
  T *act = made<T>(M * Q, as, 5), *act2 = made<T>(M * Q, as, 6), *normed = made<T>(M * D, as, 7), *normed2 = made<T>(M * D, 0, 7);
  T *hidden = made<T>(M * MLP, as, 8), *hidden2 = made<T>(M * MLP, 0, 8);
  bf16 *h = made<bf16>(M * D, 1, 9), *h2 = made<bf16>(M * D, 1, 9), *h3 = made<bf16>(M * D, 1, 9);
  bf16 *qkv = made<bf16>(M * QKV, 1, 10), *q = made<bf16>(M * Q, 1, 11), *q2 = made<bf16>(M * Q, 0, 11);
  bf16 *k = made<bf16>(size_t(L) * KV * HD, 1, 12), *v = made<bf16>(size_t(L) * KV * HD, 1, 13);
  bf16 *k2 = made<bf16>(KV * HD, 1, 12), *v2 = made<bf16>(KV * HD, 1, 13);
  float *rope = made<float>(KV * HD, 1, 14), *style = made<float>(3 * D * (2 * L + 1), 0.3f, 15), *parts = made<float>(32 * 400 * 258, 0, 1);
  float host[16] = {FP8 ? 1 / 40.0f : 1, 0, 0, 0, 0.03f / 40, 0, 0, 0, 0.02f}, *scales;
  const int length = 560;
  int* len;
  MUST(cudaMalloc(&scales, sizeof host));
  MUST(cudaMemcpy(scales, host, sizeof host, cudaMemcpyHostToDevice));
  MUST(cudaMalloc(&len, 4));
  MUST(cudaMemcpy(len, &length, 4, cudaMemcpyHostToDevice));
  const float *s_a = scales, *s_w = scales + 4, *s_o = scales + 8;
  Check c("bench", "M=%d", M);

  auto skinny = [&](const T* a, const T* w, void* out, int N, int K, int epilogue, int out_dtype, const bf16* res, const float* gate, cudaStream_t s) {
    const GemmArgs g{a, w, nullptr, res, gate, out, s_a, s_w, s_o, M, N, K, epilogue, code, BF16, out_dtype};
    if (out_dtype == E4M3) DONE((gemm_skinny<T, e4m3>(g, s)));
    else DONE((gemm_skinny<T, bf16>(g, s)));
  };
  auto old_qkv = [&](cudaStream_t s, int l) { skinny(normed, wq + size_t(l % L) * QKV * D, qkv, QKV, D, NONE, BF16, nullptr, nullptr, s); };
  auto old_rope = [&](cudaStream_t s, int l, bf16* qq, bf16* kk, bf16* vv) { DONE(qkv_rope(qkv, rope, len, qq, kk, vv, M, H, 1, HD, KV, s)); };
  auto new_qkv = [&](cudaStream_t s, int l, bf16* qq, bf16* kk, bf16* vv) {
    const rows::QkvRope<T> end{s_a, s_w, rope, len, qq, kk, vv, M, H, 1, HD, KV, 0, 0};
    DONE(rows::gemm_rows<T>(c, normed, wq + size_t(l % L) * QKV * D, end, M, QKV, D, s));
  };
  const AttentionArgs aa{len, s_o, 1, M, KV, M, H, 1, HD, Q, HD, 0.0625f};
  auto old_attention = [&](cudaStream_t s, int l, T* to) {
    const auto split = attention_split(1, M, KV, H, 1, HD, 132);
    DONE((attention_mma<256, T>(aa, q, k + size_t(l % L) * KV * HD, v + size_t(l % L) * KV * HD, to, parts, split, s)));
  };
  auto new_attention = [&](cudaStream_t s, int l, T* to) {
    DONE(attention_rows(c, aa, q, k + size_t(l % L) * KV * HD, v + size_t(l % L) * KV * HD, to, s));
  };
  auto norm = [&](cudaStream_t s, const bf16* x, T* to, int l) { DONE(ada_rms_norm(x, style + l % 37 * 3 * D, to, s_o, M, D, 1e-6f, s)); };
  auto old_close = [&](cudaStream_t s, int l, bool down, bf16* x, bf16* to) {
    skinny(down ? hidden : act, (down ? wd : wo) + size_t(l % L) * D * (down ? MLP : Q), to, D, down ? MLP : Q, GATE_RESIDUAL, BF16, x, style + l % 37 * 3 * D + 2 * D, s);
  };
  auto new_close = [&](cudaStream_t s, int l, bool down, bf16* x, bf16* to, T* n) {
    const rows::GateNormArgs g{down ? hidden : act, (down ? wd : wo) + size_t(l % L) * D * (down ? MLP : Q), x, style + l % 37 * 3 * D + 2 * D,
                               style + l % 37 * 3 * D, to, n, s_a, s_w, s_o, M, D, down ? MLP : Q, 1e-6f};
    DONE((rows::gemm_gate_norm<T, T>(c, g, s)));
  };
  auto old_gate_up = [&](cudaStream_t s, int l, T* to) { skinny(normed, wg + size_t(l % L) * 2 * MLP * D, to, MLP, D, GEGLU, code, nullptr, nullptr, s); };
  auto new_gate_up = [&](cudaStream_t s, int l, T* to) {
    const GemmArgs g{normed, wg + size_t(l % L) * 2 * MLP * D, nullptr, nullptr, nullptr, to, s_a, s_w, s_o, M, MLP, D, GEGLU, code, BF16, code};
    DONE((gemm_rows_geglu<T, T>(c, g, s)));
  };
  cudaStream_t s = nullptr;
  old_qkv(s, 3), old_rope(s, 3, q, k, v);
  MUST(cudaDeviceSynchronize());
  new_qkv(s, 3, q2, k2, v2);
  compare("qkv + rope: q", q2, q, M * Q);
  compare("qkv + rope: k", k2 + length * HD, k + length * HD, M * HD);
  compare("qkv + rope: v", v2 + length * HD, v + length * HD, M * HD);
  old_attention(s, 0, act);
  MUST(cudaDeviceSynchronize());
  new_attention(s, 0, act2);
  compare("attention", act2, act, M * Q);
  for (int down = 0; down < 2; ++down) {
    old_close(s, 5, down, h, h2), norm(s, h2, normed2, 5);
    MUST(cudaDeviceSynchronize());
    new_close(s, 5, down, h, h3, normed);
    compare(down ? "down: h" : "o: h", h3, h2, M * D);
    compare(down ? "down: normed" : "o: normed", normed, normed2, M * D);
  }
  old_gate_up(s, 7, hidden);
  MUST(cudaDeviceSynchronize());
  new_gate_up(s, 7, hidden2);
  compare("gate/up + GEGLU", hidden2, hidden, M * MLP);
  if (check) return;

  time("old qkv", 180, [&](cudaStream_t s, int l) { old_qkv(s, l); });
  time("old rope", 180, [&](cudaStream_t s, int l) { old_rope(s, l, q, k, v); });
  time("old attention", 180, [&](cudaStream_t s, int l) { old_attention(s, l, act); });
  time("old o", 180, [&](cudaStream_t s, int l) { old_close(s, l, false, h, h2); });
  time("old down", 180, [&](cudaStream_t s, int l) { old_close(s, l, true, h, h2); });
  time("old norm", 180, [&](cudaStream_t s, int l) { norm(s, h, normed, l); });
  time("old gate/up", 180, [&](cudaStream_t s, int l) { old_gate_up(s, l, hidden); });
  time("new qkv + rope", 180, [&](cudaStream_t s, int l) { new_qkv(s, l, q, k + size_t(l % L) * KV * HD, v + size_t(l % L) * KV * HD); });
  time("new attention", 180, [&](cudaStream_t s, int l) { new_attention(s, l, act); });
  time("new o + norm", 180, [&](cudaStream_t s, int l) { new_close(s, l, false, h, h2, normed); });
  time("new down + norm", 180, [&](cudaStream_t s, int l) { new_close(s, l, true, h, h2, normed); });
  time("new gate/up", 180, [&](cudaStream_t s, int l) { new_gate_up(s, l, hidden); });
  time("old layer", 180, [&](cudaStream_t s, int l) {
    norm(s, h, normed, l), old_qkv(s, l), old_rope(s, l, q, k + size_t(l % L) * KV * HD, v + size_t(l % L) * KV * HD);
    old_attention(s, l, act), old_close(s, l, false, h, h2), norm(s, h2, normed, l), old_gate_up(s, l, hidden), old_close(s, l, true, h, h2);
  });
  time("new layer", 180, [&](cudaStream_t s, int l) {
    new_qkv(s, l, q, k + size_t(l % L) * KV * HD, v + size_t(l % L) * KV * HD);
    new_attention(s, l, act), new_close(s, l, false, h, h2, normed), new_gate_up(s, l, hidden), new_close(s, l, true, h, h2, normed);
  });
}

int main(int argc, char**) {  // any argument: the comparison alone
  all<e4m3>("FP8", argc > 1);
  all<bf16>("BF16", argc > 1);
}
