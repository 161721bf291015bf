/* C ABI of libflashrt_kernels: one function per row of flashrt_core/ops/table.py, arguments in the row's order.
 *
 * Pointers are device memory unless said otherwise. Every function returns FRT_OK or a status whose details are in
 * frt_last_error() of the calling thread. No op allocates or waits: all of them may be captured into a CUDA graph.
 * Pointers to weights, biases and scales are read
 * before the kernels in front of the call have finished: what they point to must be complete when the call is made.
 * Ops with scratch (gemm, attention) use one area per device, so ops of one device belong on one stream at a time.
 */
#ifndef FLASHRT_KERNELS_H
#define FLASHRT_KERNELS_H
#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum frt_status { FRT_OK = 0, FRT_BAD_ARGUMENT = 1, FRT_NOT_BUILT = 2, FRT_CUDA = 3, FRT_BLAS = 4 };

/* What the last failed call of this thread found wrong. */
typedef struct frt_error {
  int status;
  char op[32], arg[32], value[48], rule[192], shape[192];
} frt_error;

const frt_error* frt_last_error(void);
/* Architectures that this library holds code for, for example "90". */
const char* frt_built_archs(void);

/* From now on choose kernels as on this compute capability (89 for 8.9), at most the GPU's own; 0: the GPU's own. */
int frt_act_as(int sm);
/* Once per device before the first gemm: library handle and its workspace. Allocates. */
int frt_prepare(void);
/* Make the scratch area at least this large. Allocates; earlier areas stay valid, captured graphs point into them. */
int frt_reserve(size_t bytes);
size_t frt_reserved(void);
/* Scratch that a call with these arguments needs. */
size_t frt_gemm_scratch(int M, int N, int K, int epilogue, int a_dtype, int res_dtype, int out_dtype);
size_t frt_attention_scratch(int B, int M, int KV, int H, int KVH, int HD, int dtype, int out_dtype);
/* Time the first `candidates` algorithms for this call's shape and keep the fastest. Waits; not for captures. */
int frt_gemm_tune(const void* a, const void* w, const float* bias, const void* res, const float* gate, void* out,
                  const float* a_scale, const float* w_scale, const float* out_scale, int M, int N, int K, int epilogue,
                  int a_dtype, int res_dtype, int out_dtype, int candidates, cudaStream_t stream);
/* How a shape is run, as text: "up to 64 rows, fused", "few rows, fused", "tiles 128x64, fused", "cublasLt fused", "cublasLt + epilogue",
 * "plain + epilogue". Valid until the next call. */
const char* frt_gemm_route(int M, int N, int K, int epilogue, int a_dtype, int res_dtype, int out_dtype);

int frt_resize_pad(const void* images, void* out, int V, int H, int W, int S, cudaStream_t stream);
int frt_patchify(const void* images, void* out, int V, int S, int P, int K, int in_dtype, int out_dtype,
                 cudaStream_t stream);
int frt_embed_tokens(const void* table, const int32_t* ids, void* out, int M, int D, int vocab, float scale,
                     int table_dtype, int out_dtype, cudaStream_t stream);
int frt_layer_norm(const void* x, const float* w, const float* b, void* out, const float* out_scale, int M, int D,
                   float eps, int x_dtype, int out_dtype, cudaStream_t stream);
int frt_rms_norm(const void* x, void* out, const float* out_scale, int M, int D, float eps, int x_dtype, int out_dtype,
                 cudaStream_t stream);
int frt_ada_rms_norm(const void* x, const float* style, void* out, const float* out_scale, int M, int D, float eps,
                     int x_dtype, int out_dtype, cudaStream_t stream);
int frt_gemm(const void* a, const void* w, const float* bias, const void* res, const float* gate, void* out,
             const float* a_scale, const float* w_scale, const float* out_scale, int M, int N, int K, int epilogue,
             int a_dtype, int res_dtype, int out_dtype, cudaStream_t stream);
int frt_qkv_rope(const void* qkv, const float* rope, const int32_t* pos0, void* q, void* k, void* v, int M, int H,
                 int KVH, int HD, int rows, int dtype, cudaStream_t stream);
/* The action expert's fused products for up to 64 rows (SM90). gemm_gate_norm's blocks wait for one another. */
int frt_gemm_qkv_rope(const void* a, const void* w, const float* rope, const int32_t* pos0, void* q, void* k, void* v,
                      const float* a_scale, const float* w_scale, int M, int K, int H, int KVH, int HD, int rows, int a_dtype,
                      cudaStream_t stream);
int frt_gemm_gate_norm(const void* a, const void* w, const void* res, const float* gate, void* out, const float* style,
                       void* normed, const float* a_scale, const float* w_scale, const float* out_scale, int M, int N, int K,
                       float eps, int a_dtype, int normed_dtype, cudaStream_t stream);
/* What lies between two denoise steps: actions += final . out_w^T + out_b (leave), then h and its norm from the actions (enter). */
int frt_action_step(const float* final, const float* out_w, const float* out_b, float* actions, const float* in_w,
                    const float* in_b, void* h, const float* style, void* normed, const float* out_scale, int M, int D, int A,
                    int leave, int enter, float eps, int normed_dtype, cudaStream_t stream);
/* Whether these and the gemm op's GEGLU take an expert of these sizes (A: action values) on the current device. */
int frt_expert_rows_fit(int M, int D, int mlp, int H, int KVH, int HD, int A, int act_dtype);
/* With kv_extra > 0, *kv_len and the first *kv_len rows of k and v are read before the kernel in front has finished. */
int frt_attention(const void* q, const void* k, const void* v, const int32_t* kv_len, void* out,
                  const float* out_scale, int B, int M, int KV, int kv_extra, int H, int KVH, int HD, int q_stride,
                  int kv_stride, float scale, int dtype, int out_dtype, cudaStream_t stream);
int frt_avg_pool(const void* x, void* out, const float* out_scale, int V, int G, int D, int F, int x_dtype,
                 int out_dtype, cudaStream_t stream);
/* All denoise steps of the action expert in one kernel of 128 blocks that wait for one another (SM90, at least 128 SMs).
 * layers: HOST memory, [L][10] addresses: weights qkv, o, gate_up, down; their fp32 scales; K and V cache (BF16).
 * scales: fp32 [steps][L][4 sites] 16 bytes apart; styles: fp32 [steps][2 L + 1][3][D]; shifts: fp32 [steps][L][N of qkv, 2 mlp], the
 * norms' shifts times these weights; out_b: fp32 [steps][A], with the final norm's. See csrc/ops/denoise_loop.cuh. */
int frt_denoise_loop(const void* layers, const float* in_w, const float* in_b, const float* out_w, const float* out_b,
                     const float* styles, const float* shifts, const float* scales, const float* rope, const int32_t* prefix_len,
                     float* actions, int M, int L, int steps, int D, int mlp, int H, int KVH, int HD, int A,
                     int cache_rows, float eps, int act_dtype, cudaStream_t stream);
/* Whether frt_denoise_loop takes these sizes on the current device; the scratch that it needs. */
int frt_denoise_loop_fits(int M, int L, int D, int mlp, int H, int KVH, int HD, int A, int cache_rows, int act_dtype);
size_t frt_denoise_loop_scratch(void);
int frt_amax(const void* x, float* out, int n, int x_dtype, cudaStream_t stream);
int frt_column_sum(const void* x, float* out, int M, int D, int x_dtype, cudaStream_t stream);
int frt_count_saturated(const void* x, const float* scale, float* out, int n, int x_dtype, cudaStream_t stream);

/* The library's algorithm for a shape as bytes, after a tuning: how many were written, 0 when the library does not run it. */
size_t frt_gemm_choice(int M, int N, int K, int epilogue, int a_dtype, int res_dtype, int out_dtype, void* choice,
                       size_t room);
/* Take such bytes instead of tuning: 1 when they fit this shape, GPU and library, else 0 and nothing changes. */
int frt_gemm_choose(int M, int N, int K, int epilogue, int a_dtype, int res_dtype, int out_dtype, const void* choice,
                    size_t bytes);
/* The BLAS library's version: such bytes belong to one. */
size_t frt_blas_version(void);

#ifdef __cplusplus
}
#endif
#endif
