// Stride arithmetic shared by the rules.
#include "question.h"

#include <ATen/ExpandUtils.h>
#include <ATen/native/TypeProperties.h>
#include <c10/core/MemoryFormat.h>

namespace skytorch::oracle {

at::DimVector format_strides(at::IntArrayRef sizes, at::MemoryFormat format) {
  switch (format) {
    case at::MemoryFormat::ChannelsLast: {
      auto strides = c10::get_channels_last_strides_2d(sizes);
      return {strides.begin(), strides.end()};
    }
    case at::MemoryFormat::ChannelsLast3d: {
      auto strides = c10::get_channels_last_strides_3d(sizes);
      return {strides.begin(), strides.end()};
    }
    default:
      return c10::contiguous_strides(sizes);
  }
}

at::ScalarType promoted(const at::Tensor& a, const at::Tensor& b) {
  return at::native::result_type(
      at::native::update_result_type_state(b, at::native::update_result_type_state(a, {})));
}

at::DimVector preserved_strides(const at::Tensor& t) {
  if (t.is_non_overlapping_and_dense()) return at::DimVector(t.strides());
  auto strides = at::infer_dense_strides(t.sizes(), t.strides());
  return {strides.begin(), strides.end()};
}

Output& Question::add(at::ScalarType dtype, at::IntArrayRef sizes, at::MemoryFormat format) const {
  return add(dtype, sizes, format_strides(sizes, format));
}

Output& Question::add_like(const at::Tensor& t, at::ScalarType dtype) const {
  return add(dtype, t.sizes(), preserved_strides(t));
}

}  // namespace skytorch::oracle
