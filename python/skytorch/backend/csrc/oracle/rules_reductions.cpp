// Reductions and scans that are not structured kernels, and overloads of structured ones with other arguments.
#include <ATen/WrapDimUtils.h>
#include <ATen/native/ReduceOpsUtils.h>
#include <ATen/ops/mean_meta.h>
#include <ATen/ops/sort_meta.h>
#include <ATen/ops/sum_meta.h>
#include <c10/core/DefaultDtype.h>

#include "structured.h"
#include "table.h"

namespace skytorch::oracle {
namespace {

at::ScalarType default_dtype() { return c10::typeMetaToScalarType(c10::get_default_dtype()); }

// `self` reduced over `dims`; all of them where `dims` is empty. Raises torch's message for a bad dimension.
at::DimVector reduced(const at::Tensor& self, at::IntArrayRef dims, bool keepdim) {
  const int64_t rank = self.dim();
  auto mask = dims.empty() ? std::bitset<at::dim_bitset_size>().flip() : at::dim_list_to_bitset(dims, rank);
  at::DimVector sizes;
  for (int64_t d = 0; d < rank; ++d) {
    if (!mask[d]) {
      sizes.push_back(self.size(d));
    } else if (keepdim) {
      sizes.push_back(1);
    }
  }
  return sizes;
}

at::DimVector dims_or_all(const at::IValue& v) {
  if (v.isNone()) return {};
  return v.isInt() ? at::DimVector{v.toInt()} : v.toDimVector();
}

at::ScalarType summed(at::ScalarType t) { return c10::isIntegralType(t, true) ? at::kLong : t; }

// (self, *, dtype): the structured kernel over all dimensions.
template <class Kernel>
Verdict over_all(Question& q) {
  const torch::jit::Stack whole{q[0], at::IValue(), false, q[1]};
  Question over(q.op, whole, q.target, q.out, q.written);
  return structured<Kernel>(over);
}

Verdict prod(Question& q) {
  q.add(q.dtype_or(1, summed(q.tensor(0).scalar_type())), {});
  return Verdict::Done;
}

Verdict nansum(Question& q) {
  const at::Tensor& self = q.tensor(0);
  if (self.is_complex()) return Verdict::Server;
  q.add(q.dtype_or(3, summed(self.scalar_type())), reduced(self, dims_or_all(q[1]), q.flag(2)));
  return Verdict::Done;
}

// max, min, median of everything.
Verdict one_of_all(Question& q) {
  if (q.tensor(0).numel() == 0) return Verdict::Server;
  q.add(q.tensor(0).scalar_type(), {});
  return Verdict::Done;
}

template <bool with_mean>
Verdict variance(Question& q) {
  const at::Tensor& self = q.tensor(0);
  if (!self.is_floating_point() && !self.is_complex()) return Verdict::Server;
  const at::DimVector sizes = reduced(self, dims_or_all(q[1]), q.flag(3));
  q.add(c10::toRealValueType(self.scalar_type()), sizes);
  if (with_mean) q.add(self.scalar_type(), sizes);
  return Verdict::Done;
}

Verdict logsumexp(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const at::ScalarType type = self.scalar_type();
  q.add(c10::isIntegralType(type, true) ? default_dtype() : type, reduced(self, q.ints(1), q.flag(2)));
  return Verdict::Done;
}

// (self, dim, keepdim) or (self, k, dim, keepdim): values and their positions.
template <size_t dim>
Verdict values_and_indices(Question& q) {
  const at::Tensor& self = q.tensor(0);
  if (self.numel() == 0) return Verdict::Dispatcher;
  const at::DimVector sizes = reduced(self, {q.integer(dim)}, q.flag(dim + 1));
  q.add(self.scalar_type(), sizes);
  q.add(at::kLong, sizes);
  return Verdict::Done;
}

Verdict kthvalue(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const int64_t dim = at::maybe_wrap_dim(q.integer(2), self.dim()), k = q.integer(1);
  if (k <= 0 || k > (self.dim() == 0 ? 1 : self.size(dim))) return Verdict::Server;
  return values_and_indices<2>(q);
}

Verdict scan_with_indices(Question& q) {
  const at::Tensor& self = q.tensor(0);
  at::maybe_wrap_dim(q.integer(1), self.dim());
  q.add(self.scalar_type(), self.sizes());
  q.add(at::kLong, self.sizes());
  return Verdict::Done;
}

Verdict logcumsumexp(Question& q) {
  const at::Tensor& self = q.tensor(0);
  at::maybe_wrap_dim(q.integer(1), self.dim());
  q.add(self.scalar_type(), self.sizes());
  return Verdict::Done;
}

Verdict sort(Question& q) {
  const torch::jit::Stack whole{q[0], false, q[1], q[2]};
  Question over(q.op, whole, q.target, q.out, q.written);
  return structured<at::meta::structured_sort_stable>(over);
}

// (self, size, fill_value): CUDA's lie column by column, as its Meta kernel says.
Verdict nonzero_static(Question& q) {
  if (q.target.server_is_cuda) return Verdict::Dispatcher;
  if (q.integer(1) < 0) return Verdict::Server;
  q.add(at::kLong, {q.integer(1), q.tensor(0).dim()});
  return Verdict::Done;
}

Verdict count_nonzero(Question& q) {
  q.add(at::kLong, reduced(q.tensor(0), dims_or_all(q[1]), false));
  return Verdict::Done;
}

Verdict trace(Question& q) {
  if (q.tensor(0).dim() != 2) return Verdict::Server;
  q.add(summed(q.tensor(0).scalar_type()), {});
  return Verdict::Done;
}

}  // namespace

void add_reductions(Table& table) {
  table.rule("sum", "", over_all<at::meta::structured_sum_dim_IntList>);
  table.rule("mean", "", over_all<at::meta::structured_mean_dim>);
  table.rule("prod", "", prod);
  table.rule("nansum", "", nansum);
  for (const char* name : {"max", "min", "median", "nanmedian"}) table.rule(name, "", one_of_all);
  for (const char* name : {"std", "var"}) table.rule(name, "correction", variance<false>);
  for (const char* name : {"std_mean", "var_mean"}) table.rule(name, "correction", variance<true>);
  table.rule("logsumexp", "", logsumexp);
  table.rule("median", "dim", values_and_indices<1>);
  table.rule("nanmedian", "dim", values_and_indices<1>);
  table.rule("mode", "", values_and_indices<1>);
  table.rule("kthvalue", "", kthvalue);
  table.rule("cummax", "", scan_with_indices);
  table.rule("cummin", "", scan_with_indices);
  table.rule("logcumsumexp", "", logcumsumexp);
  table.rule("_logcumsumexp", "", logcumsumexp);
  table.rule("sort", "", sort);
  table.rule("nonzero_static", "", nonzero_static);
  table.rule("count_nonzero", "dim_IntList", count_nonzero);
  table.rule("count_nonzero", "", count_nonzero);
  table.rule("trace", "", trace);
}

}  // namespace skytorch::oracle
