// Operators that make tensors from sizes or in the likeness of another one.
#include <ATen/native/RangeUtils.h>
#include <c10/core/DefaultDtype.h>
#include <c10/util/typeid.h>

#include <cmath>

#include "table.h"
#include "torch_version.h"

namespace skytorch::oracle {
namespace {

at::ScalarType default_dtype() { return c10::typeMetaToScalarType(c10::get_default_dtype()); }

at::ScalarType dtype_of_number(const at::IValue& v) {
  const at::Scalar s = v.toScalar();
  if (s.isBoolean()) return at::kBool;
  if (s.isIntegral(false)) return at::kLong;
  if (s.isComplex()) return c10::typeMetaToScalarType(c10::get_default_complex_dtype());
  return default_dtype();
}

bool negative(at::IntArrayRef sizes) {
  return std::any_of(sizes.begin(), sizes.end(), [](int64_t n) { return n < 0; });
}

Verdict add_sized(Question& q, at::IntArrayRef sizes, at::ScalarType dtype) {
  if (negative(sizes)) return Verdict::Server;
  q.add(dtype, sizes);
  return Verdict::Done;
}

// (..., int[] size at `size`, ..., ScalarType? dtype at `dtype`, ...)
template <size_t size, size_t dtype>
Verdict sized(Question& q) {
  return add_sized(q, q.ints(size), q.dtype_or(dtype, default_dtype()));
}

template <size_t size, size_t dtype>
Verdict sized_long(Question& q) {
  return add_sized(q, q.ints(size), q.dtype_or(dtype, at::kLong));
}

Verdict empty(Question& q) {
  const at::DimVector sizes = q.ints(0);
  const auto format = q.memory_format(5).value_or(at::MemoryFormat::Contiguous);
  if (negative(sizes) || format == at::MemoryFormat::Preserve ||
      (format == at::MemoryFormat::ChannelsLast && sizes.size() != 4) ||
      (format == at::MemoryFormat::ChannelsLast3d && sizes.size() != 5))
    return Verdict::Server;
  q.add(q.dtype_or(1, default_dtype()), sizes, format);
  return Verdict::Done;
}

Verdict empty_strided(Question& q) {
  const at::DimVector sizes = q.ints(0), strides = q.ints(1);
  if (negative(sizes) || negative(strides) || sizes.size() != strides.size()) return Verdict::Server;
  q.add(q.dtype_or(2, default_dtype()), sizes, strides);
  return Verdict::Done;
}

Verdict full(Question& q) { return add_sized(q, q.ints(0), q.dtype_or(2, dtype_of_number(q[1]))); }

Verdict scalar_tensor(Question& q) {
  q.add(q.dtype_or(1, default_dtype()), {});
  return Verdict::Done;
}

Verdict new_sized(Question& q) { return add_sized(q, q.ints(1), q.dtype_or(2, q.tensor(0).scalar_type())); }

Verdict new_full(Question& q) { return add_sized(q, q.ints(1), q.dtype_or(3, q.tensor(0).scalar_type())); }

Verdict new_empty_strided(Question& q) {
  const at::DimVector sizes = q.ints(1), strides = q.ints(2);
  if (negative(sizes) || negative(strides) || sizes.size() != strides.size()) return Verdict::Server;
  q.add(q.dtype_or(3, q.tensor(0).scalar_type()), sizes, strides);
  return Verdict::Done;
}

// (Tensor self, ..., dtype, layout, device, pin_memory, memory_format), the last five from position `dtype`.
template <size_t dtype>
Verdict like(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const at::ScalarType type = q.dtype_or(dtype, self.scalar_type());
  const auto format = q.memory_format(dtype + 4).value_or(at::MemoryFormat::Preserve);
  if (format == at::MemoryFormat::Preserve) {
    q.add_like(self, type);
  } else if ((format == at::MemoryFormat::ChannelsLast && self.dim() != 4) ||
             (format == at::MemoryFormat::ChannelsLast3d && self.dim() != 5)) {
    return Verdict::Server;
  } else {
    q.add(type, self.sizes(), format);
  }
  return Verdict::Done;
}

Verdict arange_of(Question& q, const at::Scalar& start, const at::Scalar& end, const at::Scalar& step, size_t dtype) {
  if (start.isComplex() || end.isComplex() || step.isComplex()) return Verdict::Server;
  const bool whole = start.isIntegral(true) && end.isIntegral(true) && step.isIntegral(true);
  const at::ScalarType type = q.dtype_or(dtype, whole ? at::kLong : default_dtype());
  if (kDividesByIntegerStep && type == at::kLong && std::abs(step.to<double>()) < 1) return Verdict::Server;
  q.add(type, {type == at::kLong ? at::native::compute_arange_size<int64_t>(start, end, step)
                                 : at::native::compute_arange_size<double>(start, end, step)});
  return Verdict::Done;
}

Verdict arange_end(Question& q) { return arange_of(q, 0, q[0].toScalar(), 1, 1); }
Verdict arange_start(Question& q) { return arange_of(q, q[0].toScalar(), q[1].toScalar(), 1, 2); }
Verdict arange_step(Question& q) { return arange_of(q, q[0].toScalar(), q[1].toScalar(), q[2].toScalar(), 3); }

template <size_t dtype>
Verdict linspace(Question& q) {
  const int64_t steps = q.integer(2);
  if (q[0].isTensor() || q[1].isTensor() || q[0].isComplexDouble() || q[1].isComplexDouble())
    return Verdict::Dispatcher;
  if (steps < 0) return Verdict::Server;
  q.add(q.dtype_or(dtype, default_dtype()), {steps});
  return Verdict::Done;
}

Verdict eye(Question& q) {
  const int64_t n = q.integer(0);
  return add_sized(q, {n, n}, q.dtype_or(1, default_dtype()));
}

Verdict eye_m(Question& q) { return add_sized(q, {q.integer(0), q.integer(1)}, q.dtype_or(2, default_dtype())); }

template <size_t dtype>
Verdict randperm(Question& q) {
  return add_sized(q, {q.integer(0)}, q.dtype_or(dtype, at::kLong));
}

// How many (i, j) of a rows x columns matrix have j <= i + offset.
int64_t lower_triangle(int64_t rows, int64_t columns, int64_t offset) {
  int64_t count = 0;
  for (int64_t i = 0; i < rows; ++i) count += std::clamp<int64_t>(i + offset + 1, 0, columns);
  return count;
}

Verdict tril_indices(Question& q) {
  const int64_t rows = q.integer(0), columns = q.integer(1);
  if (rows < 0 || columns < 0) return Verdict::Server;
  return add_sized(q, {2, lower_triangle(rows, columns, q.integer(2))}, q.dtype_or(3, at::kLong));
}

Verdict triu_indices(Question& q) {
  const int64_t rows = q.integer(0), columns = q.integer(1);
  if (rows < 0 || columns < 0) return Verdict::Server;
  return add_sized(q, {2, rows * columns - lower_triangle(rows, columns, q.integer(2) - 1)},
                   q.dtype_or(3, at::kLong));
}

}  // namespace

void add_factories(Table& table) {
  table.rule("empty", "memory_format", empty);
  table.rule("empty_strided", "", empty_strided);
  for (const char* name : {"zeros", "ones", "rand", "randn"}) table.rule(name, "", sized<0, 1>);
  table.rule("rand", "generator", sized<0, 2>);
  table.rule("randn", "generator", sized<0, 2>);
  table.rule("randint", "", sized_long<1, 2>);
  table.rule("randint", "generator", sized_long<1, 3>);
  table.rule("randint", "low", sized_long<2, 3>);
  table.rule("randint", "low_generator", sized_long<2, 4>);
  table.rule("full", "", full);
  table.rule("scalar_tensor", "", scalar_tensor);
  for (const char* name : {"new_empty", "new_zeros", "new_ones"}) table.rule(name, "", new_sized);
  table.rule("new_full", "", new_full);
  table.rule("new_empty_strided", "", new_empty_strided);
  for (const char* name : {"empty_like", "zeros_like", "ones_like", "rand_like", "randn_like"})
    table.rule(name, "", like<1>);
  table.rule("rand_like", "generator", like<2>);
  table.rule("randn_like", "generator", like<2>);
  table.rule("full_like", "", like<2>);
  table.rule("randint_like", "", like<2>);
  table.rule("randint_like", "low_dtype", like<3>);
  table.rule("arange", "", arange_end);
  table.rule("arange", "start", arange_start);
  table.rule("arange", "start_step", arange_step);
  table.rule("linspace", "", linspace<3>);
  table.rule("logspace", "", linspace<4>);
  table.rule("eye", "", eye);
  table.rule("eye", "m", eye_m);
  table.rule("randperm", "", randperm<1>);
  table.rule("randperm", "generator", randperm<2>);
  table.rule("tril_indices", "", tril_indices);
  table.rule("triu_indices", "", triu_indices);
}

}  // namespace skytorch::oracle
