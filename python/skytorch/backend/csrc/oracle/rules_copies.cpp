// Operators that give the elements of an argument again: copies, rearrangements, joins.
#include <ATen/ExpandUtils.h>
#include <ATen/InferSize.h>
#include <ATen/TensorUtils.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/WrapDimUtilsMulti.h>
#include <ATen/native/TypeProperties.h>

#include "table.h"

namespace skytorch::oracle {
namespace {

Verdict add_copy(Question& q, at::ScalarType dtype, std::optional<at::MemoryFormat> wanted) {
  const at::Tensor& self = q.tensor(0);
  const auto format = wanted.value_or(at::MemoryFormat::Preserve);
  if (format == at::MemoryFormat::Preserve) {
    q.add_like(self, dtype);
  } else if ((format == at::MemoryFormat::ChannelsLast && self.dim() != 4) ||
             (format == at::MemoryFormat::ChannelsLast3d && self.dim() != 5)) {
    return Verdict::Server;
  } else {
    q.add(dtype, self.sizes(), format);
  }
  return Verdict::Done;
}

Verdict clone(Question& q) { return add_copy(q, q.tensor(0).scalar_type(), q.memory_format(1)); }

Verdict to_copy(Question& q) {
  if (!q.none(2) && q[2].toLayout() != at::kStrided) return Verdict::Server;
  return add_copy(q, q.dtype_or(1, q.tensor(0).scalar_type()), q.memory_format(6));
}

Verdict masked_fill(Question& q) {
  const at::Tensor &self = q.tensor(0), &mask = q.tensor(1);
  if (mask.scalar_type() != at::kBool) return Verdict::Server;
  const at::ScalarType value = q[2].isTensor() ? q.tensor(2).scalar_type() : q[2].toScalar().type();
  if ((q[2].isTensor() && q.tensor(2).dim() != 0) || (c10::isComplexType(value) && !self.is_complex()))
    return Verdict::Server;
  q.add(self.scalar_type(), at::infer_size_dimvector(mask.sizes(), self.sizes()));
  return Verdict::Done;
}

// (self, mask, source): a contiguous copy of the expanded argument, partly overwritten.
Verdict masked_scatter(Question& q) {
  const at::Tensor &self = q.tensor(0), &mask = q.tensor(1);
  if (mask.scalar_type() != at::kBool || q.tensor(2).scalar_type() != self.scalar_type()) return Verdict::Server;
  q.add(self.scalar_type(), at::infer_size_dimvector(mask.sizes(), self.sizes()));
  return Verdict::Done;
}

Verdict unsafe_view(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const at::DimVector sizes = at::infer_size_dv(q.ints(1), self.numel());
  const auto strides = at::detail::computeStride(self.sizes(), self.strides(), sizes);
  if (!strides) return Verdict::Server;
  q.add(self.scalar_type(), sizes, *strides);
  return Verdict::Done;
}

Verdict reshape_copy(Question& q) {
  const at::Tensor& self = q.tensor(0);
  q.add(self.scalar_type(), at::infer_size_dv(q.ints(1), self.numel()));
  return Verdict::Done;
}

Verdict repeat(Question& q) {
  const at::Tensor& self = q.tensor(0);
  at::DimVector sizes = q.ints(1);
  const int64_t added = static_cast<int64_t>(sizes.size()) - self.dim();
  if (added < 0) return Verdict::Server;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] < 0) return Verdict::Server;
    if (static_cast<int64_t>(i) >= added) sizes[i] *= self.size(static_cast<int64_t>(i) - added);
  }
  q.add(self.scalar_type(), sizes);
  return Verdict::Done;
}

Verdict flip(Question& q) {
  const at::Tensor& self = q.tensor(0);
  at::dim_list_to_bitset(q.ints(1), self.dim());  // raises for a bad dimension
  return like_first(q);
}

Verdict roll(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const size_t shifts = q.ints(1).size();
  const at::DimVector dims = q.ints(2);
  if (shifts == 0 || (self.dim() == 0 && !dims.empty()) || (dims.size() != shifts && !(dims.empty() && shifts == 1)))
    return Verdict::Server;
  for (int64_t d : dims) at::maybe_wrap_dim(d, self.dim());
  return contiguous_like_first(q);
}

Verdict constant_pad(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const at::DimVector pad = q.ints(1);
  if (pad.size() % 2 != 0 || static_cast<int64_t>(pad.size()) > 2 * self.dim()) return Verdict::Server;
  at::DimVector sizes(self.sizes());
  for (size_t i = 0; i < pad.size() / 2; ++i) {
    int64_t& n = sizes[sizes.size() - 1 - i];
    n += pad[2 * i] + pad[2 * i + 1];
    if (n < 0) return Verdict::Server;
  }
  // Without anything added it is the clone of a part of the argument.
  if (std::all_of(pad.begin(), pad.end(), [](int64_t p) { return p <= 0; })) {
    const bool whole = self.sizes().equals(sizes) && self.is_non_overlapping_and_dense();
    q.add(self.scalar_type(), sizes, whole ? self.strides().vec() : at::infer_dense_strides(sizes, self.strides()));
  } else {
    q.add(self.scalar_type(), sizes, self.suggest_memory_format());
  }
  return Verdict::Done;
}

// What at::cat gives tensors joined along `dim`; a `dim` beyond their last is one of size 1 behind it.
at::MemoryFormat joined_format(at::ArrayRef<at::Tensor> tensors, int64_t dim) {
  std::optional<at::MemoryFormat> all;
  for (const at::Tensor& t : tensors) {
    at::DimVector sizes(t.sizes()), strides(t.strides());
    if (dim == t.dim()) {
      sizes.push_back(1);
      strides.push_back(1);
    }
    const auto format = c10::is_channels_last_strides_2d(sizes, strides)   ? at::MemoryFormat::ChannelsLast
                        : c10::is_channels_last_strides_3d(sizes, strides) ? at::MemoryFormat::ChannelsLast3d
                                                                           : at::MemoryFormat::Contiguous;
    if (format == at::MemoryFormat::Contiguous || format != all.value_or(format)) return at::MemoryFormat::Contiguous;
    all = format;
  }
  return *all;
}

// at::stack joins along the dimension that stands at `dim`, and splits that one into the tensors and what it was.
Verdict stack(Question& q) {
  const auto tensors = q[0].toTensorVector();
  if (tensors.empty()) return Verdict::Server;
  at::DimVector sizes(tensors[0].sizes());
  at::native::ResultTypeState state;
  for (const at::Tensor& t : tensors) {
    if (!t.sizes().equals(tensors[0].sizes())) return Verdict::Server;
    state = at::native::update_result_type_state(t, state);
  }
  const int64_t dim = at::maybe_wrap_dim(q.integer(1), static_cast<int64_t>(sizes.size()) + 1);
  const auto dtype = at::native::result_type(state);
  const auto n = static_cast<int64_t>(tensors.size());
  const auto format = joined_format(tensors, dim);
  if (format == at::MemoryFormat::Contiguous) {
    sizes.insert(sizes.begin() + dim, n);
    q.add(dtype, sizes);
  } else if (dim == static_cast<int64_t>(sizes.size())) {
    sizes.push_back(n);
    q.add(dtype, sizes, format);
  } else {
    at::DimVector joined(sizes);
    joined[dim] *= n;
    sizes.insert(sizes.begin() + dim, n);
    const auto strides = format == at::MemoryFormat::ChannelsLast ? c10::get_channels_last_strides_2d(joined)
                                                                  : c10::get_channels_last_strides_3d(joined);
    q.add(dtype, sizes, *at::detail::computeStride(joined, at::IntArrayRef(strides), sizes));
  }
  return Verdict::Done;
}

// The pieces keep the strides of the whole.
Verdict add_pieces(Question& q, int64_t wrapped, at::IntArrayRef pieces) {
  const at::Tensor& self = q.tensor(0);
  at::DimVector sizes(self.sizes());
  for (int64_t n : pieces) {
    sizes[wrapped] = n;
    q.add(self.scalar_type(), sizes, self.strides()).in_list = true;
  }
  return Verdict::Done;
}

Verdict unsafe_split(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const int64_t each = q.integer(1);
  if (self.dim() == 0 || each <= 0) return Verdict::Server;
  const int64_t dim = at::maybe_wrap_dim(q.integer(2), self.dim());
  at::DimVector pieces;
  for (int64_t left = self.size(dim); left > 0; left -= each) pieces.push_back(std::min(left, each));
  if (pieces.empty()) pieces.push_back(0);
  return add_pieces(q, dim, pieces);
}

Verdict unsafe_split_with_sizes(Question& q) {
  const at::Tensor& self = q.tensor(0);
  if (self.dim() == 0) return Verdict::Server;
  const int64_t dim = at::maybe_wrap_dim(q.integer(2), self.dim());
  const at::DimVector pieces = q.ints(1);
  int64_t total = 0;
  for (int64_t n : pieces) {
    if (n < 0) return Verdict::Server;
    total += n;
  }
  return total == self.size(dim) ? add_pieces(q, dim, pieces) : Verdict::Server;
}

}  // namespace

void add_copies(Table& table) {
  table.rule("clone", "", clone);
  table.rule("_to_copy", "", to_copy);
  table.rule("fill", "Scalar", like_first);
  table.rule("fill", "Tensor", like_first);
  table.rule("masked_fill", "Scalar", masked_fill);
  table.rule("masked_fill", "Tensor", masked_fill);
  table.rule("masked_scatter", "", masked_scatter);
  table.rule("_unsafe_view", "", unsafe_view);
  table.rule("_reshape_copy", "", reshape_copy);
  table.rule("repeat", "", repeat);
  table.rule("flip", "", flip);
  table.rule("roll", "", roll);
  table.rule("constant_pad_nd", "", constant_pad);
  table.rule("stack", "", stack);
  table.rule("_stack", "", stack);
  table.rule("unsafe_split", "Tensor", unsafe_split);
  table.rule("unsafe_split_with_sizes", "", unsafe_split_with_sizes);
}

}  // namespace skytorch::oracle
