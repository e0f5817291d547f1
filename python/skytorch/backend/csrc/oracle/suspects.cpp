// The operators whose kernels check dtypes that their meta functions do not. Asked on a new shape only.
#include "suspects.h"

#include <string>
#include <unordered_set>

namespace skytorch::oracle {
namespace {

// All tensors must have one dtype.
bool wants_one_dtype(const std::string& name) {
  static const std::unordered_set<std::string> names{
      "aten::mm",     "aten::addmm",    "aten::bmm",    "aten::baddbmm", "aten::addbmm", "aten::mv",
      "aten::addmv",  "aten::addr",     "aten::dot",    "aten::vdot",    "aten::linear", "aten::ger",
      "aten::addmm_", "aten::baddbmm_", "aten::addmv_", "aten::addr_"};
  return names.contains(name);
}

// Integers and booleans only.
bool wants_integers(const std::string& name) {
  return name.starts_with("aten::bitwise_") || name.starts_with("aten::__lshift") ||
         name.starts_with("aten::__rshift") || name.starts_with("aten::__ilshift") ||
         name.starts_with("aten::__irshift") || name.starts_with("aten::gcd") || name.starts_with("aten::lcm");
}

bool is_number(const at::Tensor& t) { return t.unsafeGetTensorImpl()->is_wrapped_number(); }

}  // namespace

bool suspect(const Question& question) {
  const std::string& name = question.op.operator_name().name;
  const bool one = wants_one_dtype(name), integers = wants_integers(name);
  if (!one && !integers) return false;
  std::optional<at::ScalarType> first;
  const size_t n_inputs = question.args.size() - (one ? question.written.size() : 0);  // out= is judged by the meta
  for (size_t i = 0; i < n_inputs; ++i) {
    const at::IValue& value = question.args[i];
    if (integers && value.isScalar() && !value.toScalar().isIntegral(/*includeBool=*/true)) return true;
    if (!value.isTensor() || !value.toTensor().defined()) continue;
    const at::Tensor& tensor = value.toTensor();
    if (integers && !at::isIntegralType(tensor.scalar_type(), /*includeBool=*/true)) return true;
    if (!one || is_number(tensor)) continue;
    if (first && *first != tensor.scalar_type()) return true;
    first = tensor.scalar_type();
  }
  return false;
}

}  // namespace skytorch::oracle
