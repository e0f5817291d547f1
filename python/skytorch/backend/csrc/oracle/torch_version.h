// What this source has to say differently to the torch versions that it is for (2.11 to 2.15), all in this place.
#pragma once

#include <ATen/TensorIterator.h>
#include <torch/version.h>

#include <type_traits>

// While torch had named tensors (until 2.12), an output was set together with the names of its dimensions.
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 13
#define SKY_NAMES_PARAMETER , at::DimnameList names
#define SKY_NAMES_NONE , at::DimnameList()
namespace skytorch {
using at::DimnameList;  // the macros of torch's autocast lists say it without a namespace
}
#else
#define SKY_NAMES_PARAMETER
#define SKY_NAMES_NONE
#endif

namespace skytorch::oracle {

// Until 2.13 the length of a range of int64 is divided by its step as int64, which may be none.
constexpr bool kDividesByIntegerStep = TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 14;

// A structured kernel (at::meta::structured_*) that tells `set` what its meta function sets for an output.
template <class Kernel>
class OutputSetter : public Kernel {
 public:
  void set_output_strided(int64_t i, at::IntArrayRef sizes, at::IntArrayRef strides,
                          at::TensorOptions options SKY_NAMES_PARAMETER) override {
    set(i, sizes, strides, options);
  }
  void set_output_raw_strided(int64_t i, at::IntArrayRef sizes, at::IntArrayRef strides,
                              at::TensorOptions options SKY_NAMES_PARAMETER) override {
    set(i, sizes, strides, options);
  }

 protected:
  virtual void set(int64_t i, at::IntArrayRef sizes, at::IntArrayRef strides, const at::TensorOptions& options) = 0;
  // An iterator goes on with the output it just set, so it has to be told.
  void tell_iterator(int64_t i, at::IntArrayRef sizes, at::IntArrayRef strides, const at::TensorOptions& options) {
    if constexpr (std::is_base_of_v<at::TensorIteratorBase, Kernel>) {
      at::TensorIteratorBase::set_output_raw_strided(i, sizes, strides, options SKY_NAMES_NONE);
    }
  }
};

}  // namespace skytorch::oracle

#undef SKY_NAMES_PARAMETER
#undef SKY_NAMES_NONE
