// out[i,:] = table[ids[i],:] * scale   table: [vocab,D], ids: [M] i32, out: [M,D]; an id outside the table reads row 0
#pragma once
#include "../core/launch.h"
#include "../tuning/norm.h"

namespace frt {

template <class T, class Out>
__global__ void embed_tokens_kernel(const T* table, const int32_t* ids, Out* out, int D, int vocab, float scale) {
  inputs_ready();
  const int id = ids[blockIdx.x];
  const T* row = table + size_t(id >= 0 && id < vocab ? id : 0) * D;
  for (int c = threadIdx.x * 8; c < D; c += blockDim.x * 8) {
    float v[8];
    load8(row + c, v);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] *= scale;
    store8(out + size_t(blockIdx.x) * D + c, v, 1.0f);
  }
}

template <class T, class Out>
int embed_tokens(const T* table, const int32_t* ids, Out* out, int M, int D, int vocab, float scale,
                 cudaStream_t stream) {
  const Grid grid{dim3(M), dim3(tuning::elementwise_threads)};
  return launch("embed_tokens", embed_tokens_kernel<T, Out>, grid, stream, table, ids, out, D, vocab, scale);
}

}  // namespace frt
