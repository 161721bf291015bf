// The thread's last error, and what this build holds.
#include "check.h"

namespace frt {
frt_error& last_error() {
  thread_local frt_error error{};
  return error;
}
}  // namespace frt

extern "C" const frt_error* frt_last_error(void) { return &frt::last_error(); }
extern "C" const char* frt_built_archs(void) { return FRT_ARCHS; }
