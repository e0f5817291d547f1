// Operators that select by index tensors or by positions, and their backwards.
// A mask used as an index makes the shape depend on data: that is for the server, unless the result is the argument.
#include <ATen/EmptyTensor.h>
#include <ATen/ExpandUtils.h>
#include <ATen/WrapDimUtils.h>

#include "structured.h"
#include "table.h"

namespace skytorch::oracle {
namespace {

bool is_position(at::ScalarType t) { return t == at::kLong || t == at::kInt; }

at::Tensor stand_in(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype) {
  return at::Tensor(at::detail::empty_strided_meta(sizes, strides, dtype));
}

// What self[indices] looks like: its operands, as torch lays them out for its iterator.
struct Selection {
  at::Tensor source;
  std::vector<at::Tensor> indices;
};

// Nothing if an index is a mask, or if the arguments are bad.
std::optional<Selection> select(const at::Tensor& self, const c10::List<std::optional<at::Tensor>>& list) {
  const int64_t rank = self.dim();
  if (static_cast<int64_t>(list.size()) > rank) return std::nullopt;
  c10::SmallVector<at::Tensor, 4> given;
  at::DimVector indexed, others, shape;
  for (int64_t d = 0; d < rank; ++d) {
    const std::optional<at::Tensor> index =
        d < static_cast<int64_t>(list.size()) ? std::optional<at::Tensor>(list.get(d)) : std::nullopt;
    if (!index || !index->defined()) {
      others.push_back(d);
      continue;
    }
    if (!is_position(index->scalar_type())) return std::nullopt;
    shape = given.empty() ? at::DimVector(index->sizes()) : at::infer_size_dimvector(shape, index->sizes());
    given.push_back(*index);
    indexed.push_back(d);
  }
  if (given.empty()) return std::nullopt;
  int64_t count = 1;
  for (int64_t n : shape) count *= n;
  const bool adjacent = indexed.back() - indexed.front() + 1 == static_cast<int64_t>(indexed.size());
  const size_t before = adjacent ? static_cast<size_t>(indexed.front()) : 0;
  at::DimVector sizes, strides;
  const auto keep = [&](size_t from, size_t to) {
    for (size_t i = from; i < to; ++i) {
      sizes.push_back(self.size(others[i]));
      strides.push_back(self.stride(others[i]));
    }
  };
  keep(0, before);
  sizes.append(shape.begin(), shape.end());
  strides.append(shape.size(), 0);
  keep(before, others.size());
  for (int64_t d : indexed) {
    if (self.size(d) == 0 && count != 0) return std::nullopt;
  }
  Selection s{stand_in(sizes, strides, self.scalar_type()), {}};
  for (const at::Tensor& index : given) {
    const auto [_, expanded] = at::inferExpandGeometry_dimvector(index.sizes(), index.strides(), shape);
    at::DimVector wide_sizes(before, 1), wide_strides(before, 0);
    wide_sizes.append(shape.begin(), shape.end());
    wide_strides.append(expanded.begin(), expanded.end());
    wide_sizes.append(others.size() - before, 1);
    wide_strides.append(others.size() - before, 0);
    s.indices.push_back(stand_in(wide_sizes, wide_strides, at::kLong));
  }
  return s;
}

Verdict index(Question& q) {
  if (!q.written.empty()) return Verdict::Dispatcher;
  const auto selection = select(q.tensor(0), q[1].to<c10::List<std::optional<at::Tensor>>>());
  if (!selection) return Verdict::Server;
  Probe<at::TensorIteratorBase> it(q);
  auto config = at::TensorIteratorConfig();
  config.set_check_mem_overlap(false)
      .check_all_same_dtype(false)
      .check_all_same_device(false)
      .declare_static_dtype_and_device(q.tensor(0).scalar_type(), at::kMeta)
      .add_output(it.maybe_get_output(0))
      .add_const_input(selection->source);
  for (const at::Tensor& i : selection->indices) config.add_const_input(i);
  it.build(config);
  return Verdict::Done;
}

// Whether the values fit, as far as it can be known: with a mask among the indices it is known to the server alone.
bool values_fit(Question& q) {
  const auto list = q[1].to<c10::List<std::optional<at::Tensor>>>();
  for (const std::optional<at::Tensor>& i : list) {
    if (i && i->defined() && !is_position(i->scalar_type())) return true;
  }
  const auto selection = select(q.tensor(0), list);
  return selection && at::is_expandable_to(q.tensor(2).sizes(), selection->source.sizes()) &&
         q.tensor(2).scalar_type() == q.tensor(0).scalar_type();
}

Verdict index_put(Question& q) {
  if (!values_fit(q)) return Verdict::Server;
  q.add_like(q.tensor(0));
  return Verdict::Done;
}

Verdict index_put_in_place(Question& q) {
  if (!values_fit(q)) return Verdict::Server;
  q.add(q.tensor(0).scalar_type(), q.tensor(0).sizes(), q.tensor(0).strides());
  return Verdict::Done;
}

Verdict index_select(Question& q) {
  const at::Tensor &self = q.tensor(0), &positions = q.tensor(2);
  const int64_t dim = at::maybe_wrap_dim(q.integer(1), self.dim());
  if (positions.dim() > 1 || !is_position(positions.scalar_type())) return Verdict::Server;
  at::DimVector sizes(self.sizes());
  if (self.dim() > 0) sizes[dim] = positions.numel();
  q.add(self.scalar_type(), sizes);
  return Verdict::Done;
}

Verdict index_fill(Question& q) {
  at::maybe_wrap_dim(q.integer(1), q.tensor(0).dim());
  if (q.tensor(2).scalar_type() != at::kLong || q.tensor(2).dim() > 1) return Verdict::Server;
  return like_first(q);
}

Verdict take(Question& q) {
  if (q.tensor(1).scalar_type() != at::kLong) return Verdict::Server;
  q.add(q.tensor(0).scalar_type(), q.tensor(1).sizes());
  return Verdict::Done;
}

Verdict put(Question& q) {
  if (q.tensor(1).scalar_type() != at::kLong || q.tensor(1).numel() != q.tensor(2).numel() ||
      q.tensor(2).scalar_type() != q.tensor(0).scalar_type())
    return Verdict::Server;
  return like_first(q);
}

Verdict embedding(Question& q) {
  const at::Tensor &weight = q.tensor(0), &positions = q.tensor(1);
  if (weight.dim() != 2 || !is_position(positions.scalar_type())) return Verdict::Server;
  at::DimVector sizes(positions.sizes());
  sizes.push_back(weight.size(1));
  q.add(weight.scalar_type(), sizes);
  return Verdict::Done;
}

// (grad_output, indices, num_weights, padding_idx, scale_grad_by_freq)
Verdict embedding_backward(Question& q) {
  const at::Tensor& grad = q.tensor(0);
  if (grad.dim() == 0 || !is_position(q.tensor(1).scalar_type())) return Verdict::Server;
  q.add(grad.scalar_type(), {q.integer(2), grad.size(-1)});
  return Verdict::Done;
}

// (weight, indices, offsets, scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset, padding_idx)
//   -> (output, offset2bag, bag_size, max_indices)
// The last three are what the backward wants; which of them the CPU fills depends on whether it took its fast path.
template <bool forward_only>
Verdict embedding_bag(Question& q) {
  constexpr int64_t sum = 0, max = 2;
  const at::Tensor &weight = q.tensor(0), &positions = q.tensor(1), &offsets = q.tensor(2),
                   &scale = q.maybe_tensor(6);
  if (q.target.server_is_cuda) return Verdict::Dispatcher;
  if (weight.dim() != 2 || positions.dim() != 1 || offsets.dim() != 1 || !is_position(positions.scalar_type()) ||
      positions.scalar_type() != offsets.scalar_type())
    return Verdict::Server;
  const int64_t mode = q.integer(4), bags = offsets.size(0) - (q.flag(7) ? 1 : 0);
  if (bags < 0) return Verdict::Server;
  const auto type = weight.scalar_type(), whole = positions.scalar_type();
  const bool fast = mode == sum && (type == at::kFloat || type == at::kHalf || type == at::kBFloat16) &&
                    weight.stride(1) == 1 && q.integer(8) < 0 && (!scale.defined() || scale.stride(0) == 1);
  const int64_t sizes = forward_only && mode == sum ? offsets.size(0) : bags;
  q.add(type, {bags, weight.size(1)});
  q.add(whole, {fast ? 0 : positions.size(0)});
  q.add(whole, {sizes});
  if (mode == max) {
    q.add(whole, {bags, weight.size(1)});
  } else {
    q.add(whole, {sizes});
  }
  return Verdict::Done;
}

// (grad, indices, offsets, offset2bag, bag_size, maximum_indices, num_weights, scale_grad_by_freq, mode, sparse, ...)
Verdict embedding_bag_backward(Question& q) {
  if (q.flag(9) || q.tensor(0).dim() != 2) return Verdict::Server;
  q.add(q.tensor(0).scalar_type(), {q.integer(6), q.tensor(0).size(1)});
  return Verdict::Done;
}

// (grad, input_sizes, ...): zeros of the input's sizes, partly filled.
Verdict zeros_of_sizes(Question& q) {
  q.add(q.tensor(0).scalar_type(), q.ints(1));
  return Verdict::Done;
}

// slice_scatter and its kin start from a copy of argument 0 that keeps its strides, gaps included.
Verdict scatter_of(Question& q, at::IntArrayRef wanted) {
  const at::Tensor &self = q.tensor(0), &source = q.tensor(1);
  if (!source.sizes().equals(wanted) || !self.is_non_overlapping_and_dense()) return Verdict::Dispatcher;
  q.add(self.scalar_type(), self.sizes(), self.strides());
  return Verdict::Done;
}

Verdict select_scatter(Question& q) {
  const at::Tensor& self = q.tensor(0);
  if (self.dim() == 0) return Verdict::Server;
  const int64_t dim = at::maybe_wrap_dim(q.integer(2), self.dim()), at = q.integer(3);
  if (at < -self.size(dim) || at >= self.size(dim)) return Verdict::Server;
  at::DimVector sizes(self.sizes());
  sizes.erase(sizes.begin() + dim);
  return scatter_of(q, sizes);
}

Verdict slice_scatter(Question& q) {
  const at::Tensor& self = q.tensor(0);
  if (self.dim() == 0) return Verdict::Server;
  const int64_t dim = at::maybe_wrap_dim(q.integer(2), self.dim()), length = self.size(dim), step = q.integer(5);
  if (step <= 0) return Verdict::Server;
  const auto clamped = [&](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + length : i, 0, length); };
  const int64_t start = q.none(3) ? 0 : clamped(q.integer(3));
  const int64_t end = std::max(start, q.none(4) ? length : clamped(q.integer(4)));
  at::DimVector sizes(self.sizes());
  sizes[dim] = (end - start + step - 1) / step;
  return scatter_of(q, sizes);
}

}  // namespace

void add_indexing(Table& table) {
  table.rule("index", "Tensor", index);
  table.rule("_unsafe_index", "Tensor", index);
  table.rule("index_put", "", index_put);
  table.rule("_unsafe_index_put", "", index_put);
  table.rule("index_put_", "", index_put_in_place);
  table.rule("_index_put_impl_", "", index_put_in_place);
  table.rule("index_select", "", index_select);
  table.rule("index_fill", "int_Scalar", index_fill);
  table.rule("index_fill", "int_Tensor", index_fill);
  table.rule("index_fill_", "int_Scalar", index_fill);
  table.rule("index_fill_", "int_Tensor", index_fill);
  table.rule("take", "", take);
  table.rule("put", "", put);
  table.rule("embedding", "", embedding);
  table.rule("embedding_dense_backward", "", embedding_backward);
  table.rule("_embedding_bag", "", embedding_bag<false>);
  table.rule("_embedding_bag_forward_only", "", embedding_bag<true>);
  table.rule("_embedding_bag_backward", "", embedding_bag_backward);
  for (const char* name : {"select_backward", "slice_backward", "diagonal_backward", "unfold_backward"}) {
    table.rule(name, "", zeros_of_sizes);
  }
  table.rule("select_scatter", "", select_scatter);
  table.rule("slice_scatter", "", slice_scatter);
}

}  // namespace skytorch::oracle
