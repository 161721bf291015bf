// Descriptions of matrices for the tensor copy engine.
#pragma once
#include <cuda.h>

#include "check.h"

namespace frt {

// Row-major [rows, columns] of BF16 or E4M3, `stride` elements from row to row, copied in boxes of `box_rows` x `box_columns`
// with the 128-byte swizzle (box_columns of 128 bytes or less) or none; zeros past the edges. Returns FRT_OK or the failure.
int tensor_map(const Check& c, CUtensorMap* map, const void* base, int dtype, long rows, long columns, long stride,
               int box_rows, int box_columns, bool swizzle = true);

// Row-major [2][n, columns] (gate rows, then up rows) in boxes of 64 rows: 8 of gate, the same 8 of up, the next 8 of gate ...
// n is a multiple of 8; coordinates are (column, 0, 0, row / 8).
int tensor_map_pairs(const Check& c, CUtensorMap* map, const void* base, int dtype, long n, long columns, int box_columns);

}  // namespace frt
