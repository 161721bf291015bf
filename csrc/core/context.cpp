// The contexts, one per device. The only file of the library that allocates.
#include "context.h"

#include <mutex>

namespace frt {

namespace {
constexpr int MAX_DEVICES = 64;
Context contexts[MAX_DEVICES];
std::mutex guard;
}  // namespace

Context& context() {
  int device = 0;
  cudaGetDevice(&device);
  Context& c = contexts[device < MAX_DEVICES ? device : 0];
  if (!c.sm) {
    int major = 0, minor = 0;
    cudaDeviceGetAttribute(&c.sm_count, cudaDevAttrMultiProcessorCount, device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    c.sm = major * 10 + minor;
  }
  return c;
}

void* scratch(const Check& c, size_t bytes) {
  Context& shared = context();
  if (bytes <= shared.scratch_bytes) return shared.scratch;
  char value[32], rule[96];
  snprintf(value, sizeof value, "%zu", shared.scratch_bytes);
  snprintf(rule, sizeof rule, "bytes are reserved, %zu are needed: call frt_reserve before", bytes);
  fail(FRT_BAD_ARGUMENT, c.op, "scratch", value, rule, c.shape());
  return nullptr;
}

}  // namespace frt

extern "C" int frt_prepare(void) {
  std::lock_guard<std::mutex> lock(frt::guard);
  frt::Context& c = frt::context();
  if (c.blas) return FRT_OK;
  if (cudaError_t e = cudaMalloc(&c.blas_workspace, frt::BLAS_WORKSPACE))
    return frt::cuda_failed("prepare", "cudaMalloc", e);
  if (cublasStatus_t s = cublasLtCreate(&c.blas))
    return frt::fail(FRT_BLAS, "prepare", "cublasLtCreate", cublasLtGetStatusName(s), "failed", "");
  return FRT_OK;
}

extern "C" int frt_reserve(size_t bytes) {
  std::lock_guard<std::mutex> lock(frt::guard);
  frt::Context& c = frt::context();
  if (bytes <= c.scratch_bytes) return FRT_OK;
  size_t size = size_t(8) << 20;
  while (size < bytes) size *= 2;
  void* area = nullptr;  // the one before stays: captured graphs hold its address
  if (cudaError_t e = cudaMalloc(&area, size)) return frt::cuda_failed("reserve", "cudaMalloc", e);
  c.scratch = area;
  c.scratch_bytes = size;
  return FRT_OK;
}

extern "C" size_t frt_reserved(void) { return frt::context().scratch_bytes; }
