// cuTensorMapEncodeTiled, found through the runtime so that nothing links against the driver library.
#include "tensor_map.h"

namespace frt {

namespace {
using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

Encode encoder() {
  static const Encode found = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult result{};
    const cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &result);
    return e == cudaSuccess && result == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(entry) : nullptr;
  }();
  return found;
}

int encode(const Check& c, CUtensorMap* map, const void* base, int dtype, int rank, const cuuint64_t* size,
           const cuuint64_t* strides, const cuuint32_t* box, bool swizzle = true) {
  const Encode encoded = encoder();
  if (!encoded) return fail(FRT_CUDA, c.op, "cuTensorMapEncodeTiled", "0", "the driver does not have it", c.shape());
  const cuuint32_t step[4] = {1, 1, 1, 1};
  const auto type = dtype == BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8;
  const CUresult e = encoded(map, type, rank, const_cast<void*>(base), size, strides, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                             swizzle ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
                             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (e == CUDA_SUCCESS) return FRT_OK;
  char value[32];
  snprintf(value, sizeof value, "CUresult %d", int(e));
  return fail(FRT_CUDA, c.op, "cuTensorMapEncodeTiled", value, "refused the matrix", c.shape());
}
}  // namespace

int tensor_map(const Check& c, CUtensorMap* map, const void* base, int dtype, long rows, long columns, long stride,
               int box_rows, int box_columns, bool swizzle) {
  const cuuint64_t size[2] = {cuuint64_t(columns), cuuint64_t(rows)}, strides[1] = {cuuint64_t(stride) * bytes_of(dtype)};
  const cuuint32_t box[2] = {cuuint32_t(box_columns), cuuint32_t(box_rows)};
  return encode(c, map, base, dtype, 2, size, strides, box, swizzle);
}

int tensor_map_pairs(const Check& c, CUtensorMap* map, const void* base, int dtype, long n, long columns, int box_columns) {
  const cuuint64_t row = cuuint64_t(columns) * bytes_of(dtype);
  const cuuint64_t size[4] = {cuuint64_t(columns), 8, 2, cuuint64_t(n / 8)}, strides[3] = {row, row * n, row * 8};
  const cuuint32_t box[4] = {cuuint32_t(box_columns), 8, 2, 4};
  return encode(c, map, base, dtype, 4, size, strides, box);
}

}  // namespace frt
