# Makes the object library `skytorch_oracle` (link it, and include "oracle/oracle.h"). Its generated part depends on the
# installed torch and lies in the build directory. Wants SKYTORCH_PYTHON, torch_package and skytorch_options.
set(_shards 2)
set(_codegen "${CMAKE_CURRENT_LIST_DIR}/../../codegen/structured_table.py")
set(_generated_dir "${CMAKE_CURRENT_BINARY_DIR}/oracle")
set(_generated "${_generated_dir}/structured_table.cpp")
math(EXPR _last "${_shards} - 1")
foreach(_n RANGE ${_last})
  list(APPEND _generated "${_generated_dir}/structured_${_n}.cpp")
endforeach()
add_custom_command(
  OUTPUT ${_generated}
  COMMAND "${SKYTORCH_PYTHON}" "${_codegen}" "${_generated_dir}" ${_shards}
  DEPENDS "${_codegen}" "${TORCH_ROOT}/version.py"
  COMMENT "listing the structured operators of torch ${TORCH_VERSION}"
  VERBATIM)
set_source_files_properties(${_generated} PROPERTIES COMPILE_OPTIONS "-O1")

file(GLOB _oracle CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/*.cpp")
add_library(skytorch_oracle OBJECT ${_oracle} ${_generated})
target_include_directories(skytorch_oracle PRIVATE "${CMAKE_CURRENT_LIST_DIR}")
# g++ sees uninitialised values in the empty optionals of a tuple of arguments.
target_compile_options(skytorch_oracle PRIVATE -Wno-maybe-uninitialized)
target_link_libraries(skytorch_oracle PRIVATE skytorch_options PUBLIC torch_package)
target_precompile_headers(skytorch_oracle REUSE_FROM skytorch_headers)
