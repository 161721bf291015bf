// The part of cuBLASLt's interface that csrc uses, with nothing behind it: a library built with this header asks for no BLAS, and
// every GEMM runs in a kernel of ours (the heuristic below offers no algorithm, which csrc/gemm/lt_plan.cpp takes for a no).
#pragma once
#include <cuda_runtime_api.h>
#include <library_types.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_NOT_SUPPORTED = 15 } cublasStatus_t;
typedef enum { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 } cublasOperation_t;
typedef enum { CUBLAS_COMPUTE_32F = 68 } cublasComputeType_t;
typedef enum { CUBLASLT_EPILOGUE_BIAS = 4, CUBLASLT_EPILOGUE_GELU_BIAS = 36 } cublasLtEpilogue_t;
typedef enum {
  CUBLASLT_MATMUL_DESC_TRANSA,
  CUBLASLT_MATMUL_DESC_TRANSB,
  CUBLASLT_MATMUL_DESC_EPILOGUE,
  CUBLASLT_MATMUL_DESC_BIAS_POINTER,
  CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
  CUBLASLT_MATMUL_DESC_A_SCALE_POINTER,
  CUBLASLT_MATMUL_DESC_B_SCALE_POINTER
} cublasLtMatmulDescAttributes_t;
typedef enum { CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1 } cublasLtMatmulPreferenceAttributes_t;
typedef void *cublasLtHandle_t, *cublasLtMatmulDesc_t, *cublasLtMatrixLayout_t, *cublasLtMatmulPreference_t;
typedef struct {
  uint64_t data[8];
} cublasLtMatmulAlgo_t;
typedef struct {
  cublasLtMatmulAlgo_t algo;
  size_t workspaceSize;
  cublasStatus_t state;
  float wavesCount;
  int reserved[4];
} cublasLtMatmulHeuristicResult_t;

#define FRT_NO_BLAS(name) \
  template <class... A>   \
  inline cublasStatus_t name(A...) { return CUBLAS_STATUS_NOT_SUPPORTED; }
#define FRT_EMPTY(name) \
  template <class... A> \
  inline cublasStatus_t name(A...) { return CUBLAS_STATUS_SUCCESS; }

inline cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  static int something;
  *handle = &something;  // null means "not prepared"
  return CUBLAS_STATUS_SUCCESS;
}
FRT_EMPTY(cublasLtMatmulDescCreate)
FRT_EMPTY(cublasLtMatmulDescSetAttribute)
FRT_EMPTY(cublasLtMatmulDescDestroy)
FRT_EMPTY(cublasLtMatrixLayoutCreate)
FRT_EMPTY(cublasLtMatrixLayoutDestroy)
FRT_EMPTY(cublasLtMatmulPreferenceCreate)
FRT_EMPTY(cublasLtMatmulPreferenceSetAttribute)
FRT_EMPTY(cublasLtMatmulPreferenceDestroy)
FRT_NO_BLAS(cublasLtMatmulAlgoGetHeuristic)
FRT_NO_BLAS(cublasLtMatmulAlgoCheck)
FRT_NO_BLAS(cublasLtMatmul)
inline size_t cublasLtGetVersion() { return 0; }
inline const char* cublasLtGetStatusName(cublasStatus_t) { return "CUBLAS_STATUS_NOT_SUPPORTED"; }
inline const char* cublasLtGetStatusString(cublasStatus_t) { return "this library was built without cuBLASLt"; }
