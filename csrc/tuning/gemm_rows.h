// The SM90 GEMM of up to 64 rows: how much shared memory a block's copies take, so that the next kernel's blocks find room.
#pragma once

namespace frt::tuning {
struct Rows64 {
  int slots;         // of 16 KB (8 of weights, 8 of rows) in a ring
  int shared_slots;  // where K is shared out: two blocks must fit a multiprocessor, or not all clusters of 8 are resident
  int least_rows;    // fewer rows run in ops/gemm_skinny.cuh
};
inline constexpr Rows64 gemm_rows{8, 5, 17};
}  // namespace frt::tuning
