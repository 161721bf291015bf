// The instances of the SM90 GEMM and the choice between them.
#include "../core/context.h"
#include "../gemm/tiles.h"
#include "../ops/gemm_tiles.cuh"

namespace frt {

int tile_of(const GemmArgs& g) {
  if (g.M <= 64 || !tiles_take(g, context().sm)) return -1;
  const tuning::Product p = product_of(g);
  return p.k_bytes < tuning::library_k ? tuning::fastest_tile(p, context().sm_count) : -1;
}

int run_tile(Check& c, const GemmArgs& g, int index, cudaStream_t stream) {
  const int sms = context().sm_count;
  if (g.a_dtype == BF16)
    return g.epilogue == GEGLU ? gemm_tiles<bf16, true, bf16>(c, g, index, sms, stream)
                               : gemm_tiles<bf16, false, bf16>(c, g, index, sms, stream);
  if (g.out_dtype == BF16)
    return g.epilogue == GEGLU ? gemm_tiles<e4m3, true, bf16>(c, g, index, sms, stream)
                               : gemm_tiles<e4m3, false, bf16>(c, g, index, sms, stream);
  return g.epilogue == GEGLU ? gemm_tiles<e4m3, true, e4m3>(c, g, index, sms, stream)
                             : gemm_tiles<e4m3, false, e4m3>(c, g, index, sms, stream);
}

}  // namespace frt
