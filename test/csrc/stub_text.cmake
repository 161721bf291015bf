# cmake -DHEADER=... -DOUT=... -DOPS=... -P stub_text.cmake: writes what a family that is not built becomes.
include(${CMAKE_CURRENT_LIST_DIR}/../../csrc/cmake/ops.cmake)
flashrt_stub_text(RESULT "wide" "90" "89;120" ${HEADER} "${OPS}")
file(WRITE ${OUT} "${RESULT}")
