// The SM90 GEMM for many rows (ops/gemm_tiles.cuh) as gemm.cu sees it.
#pragma once
#include <cuda_runtime_api.h>

#include "../core/check.h"
#include "epilogue.h"

namespace frt {

// The row of tuning::gemm_tiles that runs this shape, or -1: the library runs it.
int tile_of(const GemmArgs& g);
int run_tile(Check& c, const GemmArgs& g, int index, cudaStream_t stream);

}  // namespace frt
