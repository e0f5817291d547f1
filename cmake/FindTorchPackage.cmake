# Finds the torch that a Python interpreter imports and makes the target `torch_package` from it.
# It is not torch's own TorchConfig.cmake: that one demands nvcc for a CUDA build, and we compile CUDA host code with
# plain g++ against the headers that the PyPI wheels carry. Sets TORCH_VERSION, TORCH_MINOR and SKYTORCH_CUDA.
set(SKYTORCH_PYTHON "python3" CACHE STRING "interpreter whose torch is built against")
execute_process(
  COMMAND ${SKYTORCH_PYTHON} -c "
import importlib.util as u, pathlib, re
root = pathlib.Path(u.find_spec('torch').origin).parent
version = (root / 'version.py').read_text()
cuda = re.search(r\"^cuda[^=]*= '([^']+)'\", version, re.M)
number = re.search(r\"^__version__ = '([^']+)'\", version, re.M).group(1)
nvidia = root.parent / 'nvidia'
heads = [p.parent for p in sorted(nvidia.glob('*/include/cuda_runtime_api.h'))] if nvidia.is_dir() else []
libs = [p for p in sorted(nvidia.glob('*/lib/libcudart.so.*'))] if nvidia.is_dir() else []
import os
home = os.environ.get('CUDA_HOME', '/usr/local/cuda')
if cuda and not heads and os.path.exists(home + '/include/cuda_runtime_api.h'):
    heads = [pathlib.Path(home) / 'include']
    libs = sorted(pathlib.Path(home).glob('lib64/libcudart.so*'))
print(';'.join([str(root), number, cuda.group(1) if cuda else '', str(heads[0]) if heads else '', str(libs[0]) if libs else '']))
"
  OUTPUT_VARIABLE _torch OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _rc ERROR_VARIABLE _err)
if(NOT _rc EQUAL 0)
  message(FATAL_ERROR "no torch found by ${SKYTORCH_PYTHON}: install torch there or set -DSKYTORCH_PYTHON. ${_err}")
endif()
list(GET _torch 0 TORCH_ROOT)
list(GET _torch 1 TORCH_VERSION)
list(GET _torch 2 _cuda_version)
list(GET _torch 3 _cuda_include)
list(GET _torch 4 _cudart)
string(REGEX MATCH "^[0-9]+\\.[0-9]+" TORCH_MINOR "${TORCH_VERSION}")

set(_cuda_default OFF)
if(_cuda_version AND _cuda_include AND EXISTS "${_cuda_include}/crt/host_defines.h")
  set(_cuda_default ON)
endif()
option(SKYTORCH_CUDA "build the CUDA half of the executor" ${_cuda_default})

add_library(torch_package INTERFACE)
target_include_directories(torch_package SYSTEM INTERFACE
  "${TORCH_ROOT}/include" "${TORCH_ROOT}/include/torch/csrc/api/include")
target_link_directories(torch_package INTERFACE "${TORCH_ROOT}/lib")
target_link_libraries(torch_package INTERFACE torch_cpu c10)
if(SKYTORCH_CUDA)
  add_library(torch_cuda_package INTERFACE)
  target_include_directories(torch_cuda_package SYSTEM INTERFACE "${_cuda_include}")
  target_link_libraries(torch_cuda_package INTERFACE torch_package torch_cuda c10_cuda "${_cudart}")
endif()
message(STATUS "torch ${TORCH_VERSION} at ${TORCH_ROOT}, CUDA half: ${SKYTORCH_CUDA}")
