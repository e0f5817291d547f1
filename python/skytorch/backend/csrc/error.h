// Errors that cross into torch: SkyError of the C ABI becomes the exception that torch's own bindings turn into the
// right Python class. Codes of torch exceptions become c10 errors; the others become torch::PyTorchError, whose
// Python class was handed over by `set_exception`. Nothing here links or includes Python.
#pragma once

#include <c10/util/Exception.h>
#include <skytorch/wire.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

namespace skytorch {

// The Python classes that stand for SKY_ERR_* below SKY_ERR_OP_RUNTIME. Filled once at import.
class ExceptionClasses {
 public:
  static ExceptionClasses& get();
  void set(int64_t code, int64_t py_class);
  int64_t find(uint32_t code) const;

 private:
  std::array<std::atomic<int64_t>, SKY_ERR_OP_RUNTIME> classes_{};
};

[[noreturn]] void raise(uint32_t code, const std::string& message);
[[noreturn]] void raise(uint32_t code, const SkyError& error);

inline void check(uint32_t code, const SkyError& error) {
  if (C10_UNLIKELY(code != SKY_OK)) {
    raise(code, error);
  }
}

}  // namespace skytorch
