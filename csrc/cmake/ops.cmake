# flashrt_ops(FAMILY name SOURCES files... [ARCHS list] [OPS functions...]): a family of ops of libflashrt_kernels.
# Without ARCHS it is built for every architecture of the build. With ARCHS, and when the build has none of them, each function
# frt_<op> of OPS (as csrc/flashrt_kernels.h declares it) becomes a generated stub that fails with FRT_NOT_BUILT and says why.
# When the build has some of them the sources are compiled for all of its architectures and guard their instructions themselves
# (the function chooses by the GPU it finds, csrc/core/context.h).

# The text of a stub file. HEADER: the path of flashrt_kernels.h.
function(flashrt_stub_text OUT FAMILY NEEDS BUILT HEADER OPS)
  list(JOIN NEEDS ", SM" NEEDS_TEXT)
  list(JOIN BUILT ", SM" BUILT_TEXT)
  file(READ ${HEADER} DECLARED)
  string(REPLACE ";" "@" DECLARED "${DECLARED}")  # a semicolon would make it a list
  set(TEXT "// Generated: ${FAMILY} needs SM${NEEDS_TEXT}, this build has SM${BUILT_TEXT}.\n#include \"core/check.h\"\n\n")
  foreach(OP IN LISTS OPS)
    string(REGEX MATCH "[a-z_]+ frt_${OP}\\([^@]*\\)@" DECLARATION "${DECLARED}")
    if(NOT DECLARATION)
      message(FATAL_ERROR "flashrt_ops: frt_${OP} of family ${FAMILY} is not declared in flashrt_kernels.h")
    endif()
    string(REPLACE "@" "" DECLARATION "${DECLARATION}")
    string(REGEX MATCH "^[a-z_]+" RETURNS "${DECLARATION}")
    if(RETURNS STREQUAL "int")
      set(BODY "return frt::fail(FRT_NOT_BUILT, \"${OP}\", \"library\", \"SM${BUILT_TEXT}\", \"${FAMILY} is built for SM${NEEDS_TEXT} only\", \"\")")
    else()
      set(BODY "return 0")  # a size or a question: nothing is needed, nothing fits
    endif()
    string(APPEND TEXT "extern \"C\" ${DECLARATION} { ${BODY}; }\n")
  endforeach()
  set(${OUT} "${TEXT}" PARENT_SCOPE)
endfunction()

function(flashrt_ops)
  cmake_parse_arguments(F "" "FAMILY" "SOURCES;ARCHS;OPS" ${ARGN})
  set(HAVE ${F_ARCHS})
  if(F_ARCHS)
    set(HAVE "")
    foreach(ARCH IN LISTS F_ARCHS)
      if(ARCH IN_LIST ARCHS)
        list(APPEND HAVE ${ARCH})
      endif()
    endforeach()
  endif()
  if(HAVE OR NOT F_ARCHS)
    target_sources(flashrt_kernels PRIVATE ${F_SOURCES})
    return()
  endif()
  flashrt_stub_text(TEXT "${F_FAMILY}" "${F_ARCHS}" "${ARCHS}" ${CMAKE_CURRENT_SOURCE_DIR}/flashrt_kernels.h "${F_OPS}")
  set(STUB ${CMAKE_CURRENT_BINARY_DIR}/stubs/${F_FAMILY}.cpp)
  file(GENERATE OUTPUT ${STUB} CONTENT "${TEXT}")
  target_sources(flashrt_kernels PRIVATE ${STUB})
  message(STATUS "${F_FAMILY}: not for SM${ARCHS}, its ops raise NotBuilt")
endfunction()
