// Choosing the kernels of an older architecture on a newer GPU, so that the portable ones can be run and tested there.
#include "context.h"

extern "C" int frt_act_as(int sm) {
  frt::Context& c = frt::context();
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  const int real = major * 10 + minor;
  if (sm < 0 || sm > real) {
    char value[16], rule[64];
    snprintf(value, sizeof value, "%d", sm);
    snprintf(rule, sizeof rule, "must be 0 (the GPU's own) or at most %d", real);
    return frt::fail(FRT_BAD_ARGUMENT, "act_as", "sm", value, rule, "");
  }
  c.sm = sm ? sm : real;
  return FRT_OK;
}
