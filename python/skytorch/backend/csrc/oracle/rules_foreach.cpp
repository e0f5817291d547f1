// Operators on lists of tensors: _foreach_*, the fused optimizers, gradient scaling. They are elementwise, tensor by
// tensor; those that write in place return nothing, and here only their arguments are checked.
#include <ATen/ExpandUtils.h>
#include <ATen/ScalarOps.h>

#include "structured.h"
#include "table.h"

namespace skytorch::oracle {
namespace {

using Iterator = Probe<at::TensorIteratorBase>;

// Argument `i` as the second operand for tensor number `n` of the list: the same for all, or one for each.
// The second member is false where there is none.
std::pair<at::Tensor, bool> operand(const at::IValue& v, size_t n) {
  if (v.isTensor()) return {v.toTensor(), true};
  if (v.isTensorList()) {
    const auto list = v.toTensorList();
    return n < list.size() ? std::pair(list.get(n), true) : std::pair(at::Tensor(), false);
  }
  if (v.isList()) {
    const auto list = v.toListRef();
    return n < list.size() ? std::pair(at::native::wrapped_scalar_tensor(list[n].toScalar()), true)
                           : std::pair(at::Tensor(), false);
  }
  return {at::native::wrapped_scalar_tensor(v.toScalar()), true};
}

size_t length(const at::IValue& v, size_t otherwise) { return v.isList() ? v.toListRef().size() : otherwise; }

bool alike(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes().equals(b.sizes()) && a.strides().equals(b.strides());
}

// A number, or a 0-dim tensor, that does not change the type of a floating-point tensor.
bool harmless(const at::Tensor& self, const at::Tensor& other) {
  return other.dim() == 0 && self.is_floating_point() && !other.is_complex();
}

void add_element(Question& q, const at::Tensor& self, at::ScalarType dtype) {
  q.add_like(self, dtype).in_list = true;
}

void add_binary(Question& q, const at::Tensor& a, const at::Tensor& b, bool to_float) {
  std::vector<Output> one;
  Question element(q.op, q.args, q.target, one, {});
  Iterator it(element);
  if (to_float) {
    it.build_borrowing_binary_float_op(it.maybe_get_output(0), a, b);
  } else {
    it.build_borrowing_binary_op(it.maybe_get_output(0), a, b);
  }
  one[0].in_list = true;
  q.out.push_back(std::move(one[0]));
}

template <bool to_float>
Verdict unary(Question& q) {
  for (const at::Tensor& t : q[0].toTensorVector()) {
    const bool whole = c10::isIntegralType(t.scalar_type(), true);
    add_element(q, t, to_float && whole ? c10::typeMetaToScalarType(at::get_default_dtype()) : t.scalar_type());
  }
  return Verdict::Done;
}

template <bool to_float>
Verdict binary(Question& q) {
  const auto self = q[0].toTensorVector();
  if (length(q[1], self.size()) != self.size()) return Verdict::Server;
  for (size_t n = 0; n < self.size(); ++n) {
    const auto [other, found] = operand(q[1], n);
    if (!found) return Verdict::Server;
    const bool simple = self[n].is_floating_point() && (harmless(self[n], other) || alike(self[n], other));
    if (simple && self[n].dim() > 0) {
      add_element(q, self[n], self[n].scalar_type());
    } else {
      add_binary(q, self[n], other, to_float);
    }
  }
  return Verdict::Done;
}

// self, two lists, and numbers or a tensor of them: only where all of a kind, else torch is asked.
Verdict ternary(Question& q) {
  const auto self = q[0].toTensorVector();
  for (size_t i : {1, 2}) {
    if (!q[i].isTensorList()) continue;
    const auto list = q[i].toTensorVector();
    if (list.size() != self.size()) return Verdict::Server;
    for (size_t n = 0; n < self.size(); ++n) {
      if (!alike(self[n], list[n]) || !self[n].is_floating_point()) return Verdict::Dispatcher;
    }
  }
  for (const at::Tensor& t : self) add_element(q, t, t.scalar_type());
  return Verdict::Done;
}

// Whether each tensor can take the result of an operation with the operands of argument `i`, if that is a list.
bool can_take(const std::vector<at::Tensor>& self, const at::IValue& v) {
  if (length(v, self.size()) != self.size()) return false;
  const bool all_float =
      std::all_of(self.begin(), self.end(), [](const at::Tensor& t) { return t.is_floating_point(); });
  if (all_float && (v.isInt() || v.isDouble() || v.isBool())) return true;
  for (size_t n = 0; n < self.size(); ++n) {
    const auto [other, found] = operand(v, n);
    if (!found) return false;
    if (!other.sizes().equals(self[n].sizes()) && other.dim() > 0 &&
        !at::is_expandable_to(other.sizes(), self[n].sizes()))
      return false;
    if (other.scalar_type() != self[n].scalar_type() &&
        !c10::canCast(promoted(self[n], other), self[n].scalar_type()))
      return false;
  }
  return true;
}

// In place. Bad arguments go to the server, which raises.
Verdict in_place(Question& q) {
  const auto self = q[0].toTensorVector();
  for (size_t i = 1; i < q.size(); ++i) {
    if ((q[i].isTensorList() || q[i].isTensor()) && !can_take(self, q[i])) return Verdict::Server;
    if (!q[i].isList() && !q[i].isTensor() && q[i].isScalar() && !can_take(self, q[i])) return Verdict::Server;
  }
  return Verdict::Done;
}

Verdict absolute(Question& q) {
  for (const at::Tensor& t : q[0].toTensorVector()) add_element(q, t, c10::toRealValueType(t.scalar_type()));
  return Verdict::Done;
}

Verdict nothing(Question&) { return Verdict::Done; }

template <bool real>
Verdict to_scalars(Question& q) {
  for (const at::Tensor& t : q[0].toTensorVector()) {
    at::ScalarType dtype = real ? c10::toRealValueType(t.scalar_type()) : t.scalar_type();
    if (real && q.size() > 2) dtype = q.dtype_or(2, dtype);
    q.add(dtype, {}).in_list = true;
  }
  return Verdict::Done;
}

Verdict keep_self(Question& q) {
  const at::Tensor& self = q.tensor(0);
  q.add(self.scalar_type(), self.sizes(), self.strides());
  return Verdict::Done;
}

void add_in_place(Table& table, const std::string& name) {
  for (const char* overload : {"", "Scalar", "List", "ScalarList", "Tensor"}) {
    table.rule("_foreach_" + name + "_", overload, in_place);
  }
}

}  // namespace

void add_foreach(Table& table) {
  for (const char* name : {"ceil", "floor", "frac", "neg", "round", "sign", "trunc", "clone", "zero"}) {
    table.rule(std::string("_foreach_") + name, "", unary<false>);
    add_in_place(table, name);
  }
  for (const char* name :
       {"acos",  "asin",  "atan", "cos",        "cosh",  "erf",     "erfc", "exp",  "expm1", "lgamma", "log",
        "log10", "log1p", "log2", "reciprocal", "rsqrt", "sigmoid", "sin",  "sinh", "sqrt",  "tan",    "tanh"}) {
    table.rule(std::string("_foreach_") + name, "", unary<true>);
    add_in_place(table, name);
  }
  for (const char* name : {"add", "sub", "mul", "clamp_max", "clamp_min", "maximum", "minimum", "pow", "div"}) {
    const Rule rule = name == std::string("div") ? binary<true> : binary<false>;
    for (const char* overload : {"Scalar", "List", "ScalarList", "Tensor"}) {
      table.rule(std::string("_foreach_") + name, overload, rule);
    }
    add_in_place(table, name);
  }
  for (const char* name : {"addcdiv", "addcmul", "lerp"}) {
    for (const char* overload : {"Scalar", "ScalarList", "Tensor", "List"}) {
      table.rule(std::string("_foreach_") + name, overload, ternary);
    }
    add_in_place(table, name);
  }
  table.rule("_foreach_abs", "", absolute);
  add_in_place(table, "abs");
  add_in_place(table, "copy");
  table.rule("_foreach_norm", "Scalar", to_scalars<true>);
  table.rule("_foreach_powsum", "Scalar", to_scalars<true>);
  table.rule("_foreach_max", "", to_scalars<false>);
  for (const char* name : {"_fused_adam_", "_fused_adamw_", "_fused_sgd_", "_fused_adagrad_"}) {
    table.rule(name, "", nothing);
    table.rule(name, "tensor_lr", nothing);
  }
  table.rule("_amp_foreach_non_finite_check_and_unscale_", "", nothing);
  table.rule("_amp_update_scale_", "", keep_self);
}

}  // namespace skytorch::oracle
