// Elementwise operators that are not structured kernels in torch. The strides, the promotion of types and the
// messages are those of torch's own iterator, which is run here without memory.
#include <ATen/ScalarOps.h>
#include <ATen/ops/clamp_meta.h>
#include <ATen/ops/gelu_meta.h>
#include <ATen/ops/sub_meta.h>

#include "structured.h"
#include "table.h"

namespace skytorch::oracle {
namespace {

using Iterator = Probe<at::TensorIteratorBase>;

Verdict unary(Question& q) {
  Iterator it(q);
  it.build_borrowing_unary_op(it.maybe_get_output(0), q.tensor(0));
  return Verdict::Done;
}

Verdict unary_not_bool(Question& q) { return q.tensor(0).scalar_type() == at::kBool ? Verdict::Server : unary(q); }

Verdict unary_float(Question& q) {
  Iterator it(q);
  it.build_borrowing_unary_float_op(it.maybe_get_output(0), q.tensor(0));
  return Verdict::Done;
}

Verdict unary_bool(Question& q) {
  Iterator it(q);
  it.build_borrowing_unary_force_boolean_op(it.maybe_get_output(0), q.tensor(0));
  return Verdict::Done;
}

// abs and angle: a complex argument gives a real result.
Verdict unary_real(Question& q) {
  const at::Tensor& self = q.tensor(0);
  if (!self.is_complex()) return unary(q);
  if (!q.written.empty()) return Verdict::Dispatcher;
  Iterator it(q);
  auto config = at::TensorIteratorConfig();
  config.check_all_same_dtype(false)
      .declare_static_dtype(c10::toRealValueType(self.scalar_type()))
      .add_output(it.maybe_get_output(0))
      .add_const_input(self);
  it.build(config);
  return Verdict::Done;
}

Verdict angle(Question& q) { return q.tensor(0).is_complex() ? unary_real(q) : unary_float(q); }

Verdict binary_of(Question& q, const at::Tensor& a, const at::Tensor& b) {
  Iterator it(q);
  it.build_borrowing_binary_op(it.maybe_get_output(0), a, b);
  return Verdict::Done;
}

Verdict binary(Question& q) { return binary_of(q, q.tensor(0), q.tensor(1)); }

Verdict binary_with_number(Question& q) {
  const at::Tensor number = at::native::wrapped_scalar_tensor(q[1].toScalar());
  return binary_of(q, q.tensor(0), number);
}

Verdict comparison(Question& q) {
  Iterator it(q);
  it.build_borrowing_comparison_op(it.maybe_get_output(0), q.tensor(0), q.tensor(1));
  return Verdict::Done;
}

Verdict rsub(Question& q) {
  torch::jit::Stack swapped{q[1], q[0], q[2]};
  if (!swapped[0].isTensor()) swapped[0] = at::native::wrapped_scalar_tensor(swapped[0].toScalar());
  Question whole(q.op, swapped, q.target, q.out, q.written);
  return structured<at::meta::structured_sub_Tensor>(whole);
}

Verdict gelu(Question& q) {
  const auto approximate = q[1].toStringView();
  return approximate == "none" || approximate == "tanh" ? structured<at::meta::structured_gelu>(q) : Verdict::Server;
}

Verdict hardtanh(Question& q) {
  return q.tensor(0).is_floating_point() ? structured<at::meta::structured_clamp>(q) : Verdict::Dispatcher;
}

Verdict where(Question& q) {
  const at::Tensor &condition = q.tensor(0), &self = q.tensor(1), &other = q.tensor(2);
  if (condition.scalar_type() != at::kBool && condition.scalar_type() != at::kByte) return Verdict::Server;
  if (!q.written.empty()) return Verdict::Dispatcher;
  Iterator it(q);
  auto config = at::TensorIteratorConfig();
  config.check_all_same_dtype(false)
      .check_all_same_device(false)
      .declare_static_dtype_and_device(promoted(self, other), at::kMeta)
      .add_output(it.maybe_get_output(0))
      .add_const_input(condition)
      .add_const_input(self)
      .add_const_input(other);
  it.build(config);
  return Verdict::Done;
}

// (grad_output, mask, scale): the scale is a floating-point number.
Verdict dropout_backward(Question& q) {
  Iterator it(q);
  it.build_borrowing_binary_float_op(it.maybe_get_output(0), q.tensor(0), q.tensor(1));
  return Verdict::Done;
}

Verdict glu(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const int64_t dim = q.integer(1);
  if (self.dim() == 0 || dim < -self.dim() || dim >= self.dim() || self.size(dim) % 2 != 0) return Verdict::Server;
  at::DimVector half(self.sizes());
  half[dim < 0 ? dim + self.dim() : dim] /= 2;
  const at::Tensor part(at::detail::empty_strided_meta(half, self.strides(), self.scalar_type()));
  return binary_of(q, part, part);
}

Verdict glu_backward(Question& q) {
  const at::Tensor& self = q.tensor(1);
  q.add(self.scalar_type(), self.sizes());
  return Verdict::Done;
}

// The buffer is a by-product of the CPU's kernel only.
Verdict log_sigmoid(Question& q) {
  if (!q.written.empty()) return Verdict::Dispatcher;
  const at::Tensor& self = q.tensor(0);
  if (q.target.server_is_cuda) {
    q.add_like(self);
    q.add(self.scalar_type(), {0});
  } else {
    q.add(self.scalar_type(), self.sizes());
    q.add(self.scalar_type(), self.sizes());
  }
  return Verdict::Done;
}

Verdict log_sigmoid_backward(Question& q) {
  return q.written.empty() ? binary_of(q, q.tensor(0), q.tensor(1)) : Verdict::Dispatcher;
}

Verdict prelu_backward(Question& q) {
  q.add_like(q.tensor(1));
  q.add_like(q.tensor(1));
  return Verdict::Done;
}

}  // namespace

void add_pointwise(Table& table) {
  for (const char* name : {"celu", "celu_", "hardswish", "hardswish_", "nan_to_num", "nan_to_num_", "_conj_physical",
                           "conj_physical_"}) {
    table.rule(name, "", unary);
  }
  for (const char* name : {"relu", "relu_"}) table.rule(name, "", unary_not_bool);
  for (const char* name : {"deg2rad", "deg2rad_", "rad2deg", "rad2deg_", "logit", "logit_", "mvlgamma"}) {
    table.rule(name, "", unary_float);
  }
  for (const char* name : {"isnan", "isinf", "logical_not", "logical_not_"}) table.rule(name, "", unary_bool);
  for (const char* name : {"abs", "abs_"}) table.rule(name, "", unary_real);
  table.rule("abs", "out", unary_real);
  table.rule("logical_not", "out", unary_bool);
  table.rule("angle", "", angle);
  for (const char* name :
       {"logical_and", "logical_and_", "logical_or", "logical_or_", "logical_xor", "logical_xor_"}) {
    table.rule(name, "", comparison);
    table.rule(name, "out", comparison);
  }
  table.rule("floor_divide", "", binary);
  table.rule("floor_divide", "out", binary);
  table.rule("floor_divide_", "Tensor", binary);
  table.rule("floor_divide", "Scalar", binary_with_number);
  table.rule("floor_divide_", "Scalar", binary_with_number);
  for (const char* name : {"hardswish_backward", "hardtanh_backward", "mish_backward"}) {
    table.rule(name, "", binary);
  }
  table.rule("native_dropout_backward", "", dropout_backward);
  table.rule("rsub", "Tensor", rsub);
  table.rule("rsub", "Scalar", rsub);
  table.rule("gelu", "", gelu);
  table.rule("hardtanh", "", hardtanh);
  table.rule("hardtanh_", "", hardtanh);
  table.rule("where", "self", where);
  table.rule("_prelu_kernel", "", like_first);
  table.rule("_prelu_kernel_backward", "", prelu_backward);
  table.rule("glu", "", glu);
  table.rule("glu_backward", "", glu_backward);
  table.rule("log_sigmoid_forward", "", log_sigmoid);
  table.rule("log_sigmoid_backward", "", log_sigmoid_backward);
}

}  // namespace skytorch::oracle
