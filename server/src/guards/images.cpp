// Padding, pooling and resampling of images.
#include <array>

#include "families.h"

namespace skytorch::server {
namespace {

constexpr uint64_t kMaxOutputs = uint64_t{1} << 32;

int64_t last_numel(const at::Tensor& a, int64_t k) { return c10::multiply_integers(a.sizes().slice(a.dim() - k)); }

// The gradient of an operator that changes only the last `k` sizes of `self`, which come after channels and perhaps a
// batch.
void require_image_gradient(const CallArguments& a, int64_t k) {
  const at::Tensor& self = a.tensor("self");
  a.require(self.dim() == k + 1 || self.dim() == k + 2,
            "'self' must have channels and perhaps a batch before its sides");
  const at::Tensor& grad = a.tensor("grad_output");
  a.require(grad.dim() == self.dim() && leading(grad, k) == leading(self, k), "'grad_output' must fit 'self'");
}

// Padding, backward: the gradient has the size of what the forward gave.
template <int64_t k>
void pad_backward(const CallArguments& a) {
  constexpr int64_t kMaxPad = int64_t{1} << 40;
  require_image_gradient(a, k);
  const at::Tensor& self = a.tensor("self");
  const at::Tensor& grad = a.tensor("grad_output");
  const auto padding = a.ints("padding");
  a.require(padding.size() == 2 * k, "'padding' must have two numbers for each side");
  for (int64_t i = 0; i < k; ++i) {
    const int64_t before = padding[2 * i], after = padding[2 * i + 1];
    a.require(std::abs(before / 2) < kMaxPad && std::abs(after / 2) < kMaxPad, "'padding' must be small");
    a.require(grad.size(-1 - i) == self.size(-1 - i) + before + after, "'grad_output' must fit 'self' and 'padding'");
  }
}

// Pooling that remembers where its values came from, backward: each index is a place in an image of `self`.
template <int64_t k>
void pool_with_indices_backward(const CallArguments& a) {
  require_image_gradient(a, k);
  const at::Tensor& self = a.tensor("self");
  const at::Tensor& grad = a.tensor("grad_output");
  a.require(same_size(grad, a.tensor("indices")), "'indices' must have the size of 'grad_output'");
  a.require(a.tensor("indices").scalar_type() == at::kLong, "'indices' must be int64");
  a.require_indices("indices", last_numel(self, k));
  if (a.has("kernel_size")) {
    const size_t n = a.ints("kernel_size").size();
    a.require(n == 1 || n == k, "'kernel_size' must have one number for each side");
  }
  if (a.has("output_size")) {
    a.require(at::IntArrayRef(a.ints("output_size")) == grad.sizes().slice(grad.dim() - k),
              "'output_size' must be the gradient's");
  }
}

template <int64_t k>
void adaptive_pool_backward(const CallArguments& a) {
  require_image_gradient(a, k);
  const at::Tensor& self = a.tensor("self");
  const at::Tensor& grad = a.tensor("grad_output");
  a.require(grad.scalar_type() == self.scalar_type(), "'grad_output' must have the dtype of 'self'");
}

// An output without elements is walked over all the same.
void adaptive_pool(const CallArguments& a) {
  uint64_t n = 1;
  for (int64_t size : a.ints("output_size")) {
    a.require(size >= 0 && static_cast<uint64_t>(size) <= kMaxOutputs, "'output_size' must not be negative or huge");
    n *= std::max<uint64_t>(static_cast<uint64_t>(size), 1);
    a.require(n <= kMaxOutputs, "'output_size' must not be huge");
  }
}

// A scale says how much larger the output is, and is believed: an output that is larger yet is read from outside.
void antialiased(const CallArguments& a) {
  const auto output = a.ints("output_size");
  const bool backward = a.has("input_size");
  const auto input = backward ? a.ints("input_size") : a.tensor("self").sizes().vec();
  a.require(output.size() == 2 && input.size() == 4, "an image has a batch, channels and two sides");
  for (size_t side = 0; side < 2; ++side) {
    const char* name = side == 0 ? "scales_h" : "scales_w";
    if (!a.given(name)) continue;
    const double scaled = static_cast<double>(input[2 + side]) * a.real(name);
    const auto size = static_cast<double>(output[side]);
    a.require(size <= 1 + scaled * 1.5 && scaled <= 64 * (size + 1),
              "'output_size' must be about what the scales make of the input");
  }
}

constexpr std::array kImageGuards = {
    GuardEntry{"aten::reflection_pad1d_backward", pad_backward<1>},
    GuardEntry{"aten::reflection_pad2d_backward", pad_backward<2>},
    GuardEntry{"aten::reflection_pad3d_backward", pad_backward<3>},
    GuardEntry{"aten::replication_pad1d_backward", pad_backward<1>},
    GuardEntry{"aten::replication_pad2d_backward", pad_backward<2>},
    GuardEntry{"aten::replication_pad3d_backward", pad_backward<3>},
    GuardEntry{"aten::max_pool2d_with_indices_backward", pool_with_indices_backward<2>},
    GuardEntry{"aten::max_pool3d_with_indices_backward", pool_with_indices_backward<3>},
    GuardEntry{"aten::fractional_max_pool2d_backward", pool_with_indices_backward<2>},
    GuardEntry{"aten::fractional_max_pool3d_backward", pool_with_indices_backward<3>},
    GuardEntry{"aten::adaptive_max_pool2d_backward", pool_with_indices_backward<2>},
    GuardEntry{"aten::adaptive_max_pool3d_backward", pool_with_indices_backward<3>},
    GuardEntry{"aten::_adaptive_avg_pool2d_backward", adaptive_pool_backward<2>},
    GuardEntry{"aten::_adaptive_avg_pool3d_backward", adaptive_pool_backward<3>},
    GuardEntry{"aten::adaptive_avg_pool3d_backward", adaptive_pool_backward<3>},
    GuardEntry{"aten::adaptive_avg_pool2d", adaptive_pool},
    GuardEntry{"aten::adaptive_avg_pool3d", adaptive_pool},
    GuardEntry{"aten::_adaptive_avg_pool2d", adaptive_pool},
    GuardEntry{"aten::_adaptive_avg_pool3d", adaptive_pool},
    GuardEntry{"aten::adaptive_max_pool2d", adaptive_pool},
    GuardEntry{"aten::adaptive_max_pool3d", adaptive_pool},
    GuardEntry{"aten::_upsample_bilinear2d_aa", antialiased},
    GuardEntry{"aten::_upsample_bilinear2d_aa_backward", antialiased},
    GuardEntry{"aten::_upsample_bicubic2d_aa", antialiased},
    GuardEntry{"aten::_upsample_bicubic2d_aa_backward", antialiased},
    GuardEntry{"aten::_upsample_lanczos2d_aa", antialiased},
    GuardEntry{"aten::_upsample_lanczos2d_aa_backward", antialiased},
};

}  // namespace

c10::ArrayRef<GuardEntry> image_guards() { return kImageGuards; }

}  // namespace skytorch::server
