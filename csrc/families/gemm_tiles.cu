// The instances of the SM90 GEMM and the choice between them.
#include "../core/context.h"
#include "../gemm/tiles.h"
#include "../ops/gemm_tiles.cuh"

namespace frt {

int tile_of(const GemmArgs& g) {
  if (g.M <= 64 || !tiles_take(g, context().sm)) return -1;
  const long k_bytes = long(g.K) * bytes_of(g.a_dtype);
  if (k_bytes >= tuning::library_k) return -1;
  int best = -1;
  float least = 0;
  for (int i = 0; i < tuning::tile_count; ++i) {
    const tuning::Tile& t = tuning::gemm_tiles[i];
    if (!tile_takes(g, t)) continue;
    const float clocks = tuning::tile_clocks(t, g.M, g.columns(), g.columns() / g.N, k_bytes, context().sm_count);
    if (best < 0 || clocks < least) best = i, least = clocks;
  }
  return best;
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
