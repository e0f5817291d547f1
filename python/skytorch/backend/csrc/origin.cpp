// The Python stack comes from torch's tracer, whose hook libtorch_python sets: this library links no Python.
#include "origin.h"

#include <dlfcn.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/jit/frontend/tracer.h>

#include <cstdlib>
#include <string_view>

namespace skytorch {
namespace {

// The folder `levels` above the library that `symbol` is in, with a slash at its end.
std::string folder_of(const void* symbol, int levels) {
  Dl_info info{};
  if (dladdr(symbol, &info) == 0 || info.dli_fname == nullptr) {
    return {};
  }
  std::string path = info.dli_fname;
  for (int i = 0; i < levels; ++i) {
    path.resize(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
  return path + '/';
}

bool is_inside(std::string_view path, const std::string& folder) {
  return folder.size() > 1 && path.substr(0, folder.size()) == folder;
}

}  // namespace

bool Origin::is_asked_for() {
  const char* value = std::getenv("SKYTORCH_TRACE_ORIGIN");
  return value != nullptr && std::string_view(value) == "1";
}

std::string Origin::find() {
  // torch/lib/libtorch_cpu.so and skytorch/lib/torch2.x/libskytorch_backend.so
  static const std::string torch_folder =
      folder_of(reinterpret_cast<const void*>(&torch::jit::tracer::pythonCallstack), 2);
  static const std::string own_folder = folder_of(reinterpret_cast<const void*>(&Origin::is_asked_for), 3);
  for (const auto& entry : torch::jit::tracer::pythonCallstack()) {
    const auto& source = entry.range.source();
    if (source == nullptr || !source->filename() || is_inside(*source->filename(), torch_folder) ||
        is_inside(*source->filename(), own_folder)) {
      continue;
    }
    return *source->filename() + ':' + std::to_string(source->starting_line_no()) + " in " + entry.filename;
  }
  if (const auto node = torch::autograd::get_current_node()) {
    return "the backward pass, in " + node->name();
  }
  return {};
}

}  // namespace skytorch
