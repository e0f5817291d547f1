// Operators on images: shuffles of pixels, padding, sampling, patches and the three-dimensional pools.
#include <ATen/WrapDimUtils.h>
#include <ATen/native/Pool.h>

#include "table.h"

namespace skytorch::oracle {
namespace {

// An empty batch is fine, an empty image is not.
bool no_image(const at::Tensor& t, int64_t batched_rank) {
  const at::IntArrayRef sizes = t.sizes();
  return std::find(sizes.begin() + (t.dim() == batched_rank ? 1 : 0), sizes.end(), 0) != sizes.end();
}

Verdict pixel_shuffle(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const int64_t factor = q.integer(1);
  if (self.dim() < 3 || factor <= 0 || self.size(-3) % (factor * factor) != 0) return Verdict::Server;
  at::DimVector sizes(self.sizes());
  const size_t n = sizes.size();
  sizes[n - 3] /= factor * factor;
  sizes[n - 2] *= factor;
  sizes[n - 1] *= factor;
  q.add(self.scalar_type(), sizes);
  return Verdict::Done;
}

Verdict pixel_unshuffle(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const int64_t factor = q.integer(1);
  if (self.dim() < 3 || factor <= 0 || self.size(-2) % factor != 0 || self.size(-1) % factor != 0)
    return Verdict::Server;
  at::DimVector sizes(self.sizes());
  const size_t n = sizes.size();
  sizes[n - 3] *= factor * factor;
  sizes[n - 2] /= factor;
  sizes[n - 1] /= factor;
  q.add(self.scalar_type(), sizes);
  return Verdict::Done;
}

// (input, grid, ...): the grid has a point of `spatial` coordinates for each pixel of the result.
template <int64_t spatial>
Verdict grid_sampler(Question& q) {
  const at::Tensor &input = q.tensor(0), &grid = q.tensor(1);
  if (input.dim() != spatial + 2 || grid.dim() != spatial + 2 || input.size(0) != grid.size(0) ||
      grid.size(-1) != spatial || input.scalar_type() != grid.scalar_type() || input.numel() == 0)
    return Verdict::Server;
  at::DimVector sizes(grid.sizes());
  sizes.pop_back();
  sizes.insert(sizes.begin() + 1, input.size(1));
  q.add(input.scalar_type(), sizes);
  return Verdict::Done;
}

// (grad_output, input, grid, interpolation_mode, padding_mode, align_corners, output_mask)
Verdict grid_sampler_backward(Question& q) {
  const at::Tensor &input = q.tensor(1), &grid = q.tensor(2);
  if (q[6].toBoolList()[0]) {
    q.add(input.scalar_type(), input.sizes());
  } else {
    q.add_undefined();
  }
  q.add_like(grid);
  return Verdict::Done;
}

Verdict reflection_pad2d(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const at::DimVector pad = q.ints(1);
  if (pad.size() != 4 || (self.dim() != 3 && self.dim() != 4) || no_image(self, 4)) return Verdict::Server;
  at::DimVector sizes(self.sizes());
  for (size_t i = 0; i < 2; ++i) {
    int64_t& n = sizes[sizes.size() - 1 - i];
    if (pad[2 * i] >= n || pad[2 * i + 1] >= n) return Verdict::Server;
    n += pad[2 * i] + pad[2 * i + 1];
    if (n < 1) return Verdict::Server;
  }
  q.add(self.scalar_type(), sizes, self.suggest_memory_format());
  return Verdict::Done;
}

// (grad_output, self, padding)
Verdict pad_backward(Question& q) {
  const at::Tensor& self = q.tensor(1);
  q.add(self.scalar_type(), self.sizes(), self.suggest_memory_format());
  return Verdict::Done;
}

// How many blocks of a kernel there are in each of two dimensions; (kernel, dilation, padding, stride) from `at`.
std::optional<at::DimVector> blocks(const Question& q, size_t at, at::IntArrayRef image) {
  const at::DimVector kernel = q.ints(at), dilation = q.ints(at + 1), padding = q.ints(at + 2),
                      stride = q.ints(at + 3);
  if (kernel.size() != 2 || dilation.size() != 2 || padding.size() != 2 || stride.size() != 2) return std::nullopt;
  at::DimVector count;
  for (size_t i = 0; i < 2; ++i) {
    if (kernel[i] <= 0 || dilation[i] <= 0 || padding[i] < 0 || stride[i] <= 0) return std::nullopt;
    const int64_t room = image[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1;
    if (room < 0) return std::nullopt;
    count.push_back(room / stride[i] + 1);
  }
  return count;
}

Verdict im2col(Question& q) {
  const at::Tensor& self = q.tensor(0);
  if ((self.dim() != 3 && self.dim() != 4) || no_image(self, 4)) return Verdict::Server;
  const auto count = blocks(q, 1, self.sizes().slice(self.sizes().size() - 2));
  if (!count) return Verdict::Server;
  const at::DimVector kernel = q.ints(1);
  at::DimVector sizes{self.size(-3) * kernel[0] * kernel[1], (*count)[0] * (*count)[1]};
  if (self.dim() == 4) sizes.insert(sizes.begin(), self.size(0));
  q.add(self.scalar_type(), sizes);
  return Verdict::Done;
}

Verdict col2im(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const at::DimVector image = q.ints(1), kernel = q.ints(2);
  if ((self.dim() != 2 && self.dim() != 3) || no_image(self, 3) || image.size() != 2) return Verdict::Server;
  const auto count = blocks(q, 2, image);
  if (!count || self.size(-1) != (*count)[0] * (*count)[1] || self.size(-2) % (kernel[0] * kernel[1]) != 0)
    return Verdict::Server;
  at::DimVector sizes{self.size(-2) / (kernel[0] * kernel[1]), image[0], image[1]};
  if (self.dim() == 3) sizes.insert(sizes.begin(), self.size(0));
  q.add(self.scalar_type(), sizes);
  return Verdict::Done;
}

at::DimVector three(const at::DimVector& v) { return v.size() == 1 ? at::DimVector(3, v[0]) : v; }

// (self, kernel_size, stride, padding, dilation, ceil_mode) -> (values, positions)
Verdict max_pool3d(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const at::DimVector kernel = three(q.ints(1)), padding = three(q.ints(3)), dilation = three(q.ints(4));
  const at::DimVector stride = q.ints(2).empty() ? kernel : three(q.ints(2));
  if ((self.dim() != 4 && self.dim() != 5) || no_image(self, 5)) return Verdict::Server;
  if (self.size(-4) == 0) return Verdict::Server;  // only the batch may be empty
  at::DimVector sizes(self.sizes());
  for (size_t i = 0; i < 3; ++i) {
    if (stride[i] <= 0 || kernel[i] <= 0 || dilation[i] <= 0 || padding[i] < 0 || 2 * padding[i] > kernel[i])
      return Verdict::Server;
    int64_t& n = sizes[sizes.size() - 3 + i];
    n = at::native::pooling_output_shape<int64_t>(n, kernel[i], padding[i], stride[i], dilation[i], q.flag(5));
    if (n < 1) return Verdict::Server;
  }
  const at::MemoryFormat format = self.dim() == 5 ? self.suggest_memory_format() : at::MemoryFormat::Contiguous;
  q.add(self.scalar_type(), sizes, format);
  q.add(at::kLong, sizes, format);
  return Verdict::Done;
}

Verdict max_pool3d_backward(Question& q) {
  const at::Tensor& self = q.tensor(1);
  q.add(self.scalar_type(), self.sizes(),
        self.dim() == 5 ? self.suggest_memory_format() : at::MemoryFormat::Contiguous);
  return Verdict::Done;
}

// (self, indices, output_size)
Verdict max_unpool2d(Question& q) {
  const at::Tensor &self = q.tensor(0), &indices = q.tensor(1);
  const at::DimVector size = q.ints(2);
  if ((self.dim() != 3 && self.dim() != 4) || size.size() != 2 || self.sizes() != indices.sizes() ||
      indices.scalar_type() != at::kLong || no_image(self, 4) || size[0] < 0 || size[1] < 0)
    return Verdict::Server;
  at::DimVector sizes(self.sizes());
  sizes[sizes.size() - 2] = size[0];
  sizes[sizes.size() - 1] = size[1];
  q.add(self.scalar_type(), sizes, self.dim() == 4 ? self.suggest_memory_format() : at::MemoryFormat::Contiguous);
  return Verdict::Done;
}

}  // namespace

void add_images(Table& table) {
  table.rule("max_unpool2d", "", max_unpool2d);
  table.rule("pixel_shuffle", "", pixel_shuffle);
  table.rule("pixel_unshuffle", "", pixel_unshuffle);
  table.rule("grid_sampler_2d", "", grid_sampler<2>);
  table.rule("grid_sampler_3d", "", grid_sampler<3>);
  table.rule("grid_sampler_2d_backward", "", grid_sampler_backward);
  table.rule("grid_sampler_3d_backward", "", grid_sampler_backward);
  table.rule("reflection_pad2d", "", reflection_pad2d);
  for (const char* name : {"reflection_pad2d_backward", "replication_pad2d_backward", "replication_pad3d_backward"}) {
    table.rule(name, "", pad_backward);
  }
  table.rule("im2col", "", im2col);
  table.rule("col2im", "", col2im);
  table.rule("max_pool3d_with_indices", "", max_pool3d);
  table.rule("max_pool3d_with_indices_backward", "", max_pool3d_backward);
}

}  // namespace skytorch::oracle
