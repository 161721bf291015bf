// The numbers of one attention call, by value into its kernels. Names are those of the op table's row.
#pragma once
#include <cstdint>

namespace frt {

struct AttentionArgs {
  const int32_t* kv_len;
  const float* out_scale;
  int B, M, KV, kv_extra, H, KVH, HD, q_stride, kv_stride;
  float scale;
};

}  // namespace frt
