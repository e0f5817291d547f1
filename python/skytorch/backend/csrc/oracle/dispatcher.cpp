// Calls the Meta kernel of any operator, see dispatcher.h.
#include "dispatcher.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/enum_tag.h>

namespace skytorch::oracle {
namespace {

// A meta tensor with the geometry of `t`, or an undefined one if meta tensors cannot say what `t` is.
at::Tensor meta_twin(const at::Tensor& t) {
  if (!t.defined()) return t;
  if (t.layout() != at::kStrided || t.is_nested()) return {};
  at::Tensor twin(at::detail::empty_strided_meta(t.sizes(), t.strides(), t.scalar_type()));
  auto* impl = twin.unsafeGetTensorImpl();
  impl->set_storage_offset(t.storage_offset());
  if (t.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
  twin._set_conj(t.is_conj());
  twin._set_neg(t.is_neg());
  return twin;
}

// Replaces tensors and devices inside `v`; false if one of them has no twin.
bool to_meta(at::IValue& v) {
  if (v.isTensor()) {
    at::Tensor twin = meta_twin(v.toTensor());
    if (!twin.defined() && v.toTensor().defined()) return false;
    v = std::move(twin);
  } else if (v.isTensorList()) {
    c10::List<at::Tensor> twins;
    for (const at::Tensor& t : v.toTensorVector()) {
      twins.push_back(meta_twin(t));
      if (!twins.get(twins.size() - 1).defined() && t.defined()) return false;
    }
    v = std::move(twins);
  } else if (v.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> twins;
    for (const std::optional<at::Tensor>& t : v.toOptionalTensorVector()) {
      twins.push_back(t ? std::optional(meta_twin(*t)) : std::nullopt);
      if (t && t->defined() && !twins.get(twins.size() - 1)->defined()) return false;
    }
    v = std::move(twins);
  } else if (v.isDevice()) {
    v = at::Device(at::kMeta);
  } else if (v.isGenerator()) {
    v = at::IValue();
  }
  return true;
}

bool only_tensors(const c10::FunctionSchema& schema) {
  for (const auto& r : schema.returns()) {
    const auto& type = r.type();
    const bool tensor = type->kind() == c10::TypeKind::TensorType;
    const bool list = type->kind() == c10::TypeKind::ListType &&
                      type->expectRef<c10::ListType>().getElementType()->kind() == c10::TypeKind::TensorType;
    if (!tensor && !list) return false;
  }
  return true;
}

void add(Question& question, const at::Tensor& t, bool in_list) {
  Output& o = t.defined() ? question.add(t.scalar_type(), t.sizes(), t.strides()) : question.add_undefined();
  o.in_list = in_list;
}

}  // namespace

std::optional<torch::jit::Stack> meta_arguments(const torch::jit::Stack& args) {
  torch::jit::Stack stack(args);
  for (at::IValue& v : stack) {
    if (!to_meta(v)) return std::nullopt;
  }
  return stack;
}

Verdict ask_dispatcher(Question& question) {
  const c10::FunctionSchema& schema = question.op.schema();
  if (question.op.hasTag(at::Tag::dynamic_output_shape) || question.op.hasTag(at::Tag::data_dependent_output) ||
      !only_tensors(schema) || !question.op.hasComputedKernelForDispatchKey(c10::DispatchKey::Meta)) {
    return Verdict::Server;
  }
  auto meta = meta_arguments(question.args);
  if (!meta) return Verdict::Server;
  torch::jit::Stack& stack = *meta;
  try {
    Quiet quiet;
    question.op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::Meta), &stack);
  } catch (const std::exception&) {
    return Verdict::Server;
  }
  const bool any_fresh = std::any_of(schema.returns().begin(), schema.returns().end(),
                                     [](const c10::Argument& r) { return r.alias_info() == nullptr; });
  for (size_t i = 0; i < stack.size(); ++i) {
    const auto* alias = schema.returns()[i].alias_info();
    if (alias && (any_fresh || !alias->isWrite())) continue;
    if (stack[i].isTensor()) {
      add(question, stack[i].toTensor(), false);
    } else {
      for (const at::Tensor& t : stack[i].toTensorVector()) add(question, t, true);
    }
  }
  return Verdict::Done;
}

}  // namespace skytorch::oracle
