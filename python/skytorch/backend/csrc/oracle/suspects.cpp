// The operators whose kernels check dtypes that their meta functions do not. Asked on a new shape only.
#include "suspects.h"

#include <ATen/EmptyTensor.h>
#include <ATen/MemoryOverlap.h>

#include <string>
#include <unordered_set>

#include "refused_dtypes.h"

namespace skytorch::oracle {
namespace {

bool is_number(const at::Tensor& t) { return t.unsafeGetTensorImpl()->is_wrapped_number(); }

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

// Arguments whose dtype is not that of the kernel.
bool is_position(const std::string& name) {
  return name == "index" || name == "indices" || name == "mask" || name == "condition" || name == "target";
}

// The dtype of all tensors promoted: what a kernel is chosen by. Nothing without a tensor, or if none is promoted to.
std::optional<at::ScalarType> promoted_of_all(const Question& q) {
  std::optional<at::ScalarType> all;
  bool unknown = false;
  const auto add = [&](const at::Tensor& t) {
    if (!t.defined() || is_number(t) || unknown) return;
    unknown = c10::isBarebonesUnsignedType(t.scalar_type()) || c10::isFloat8Type(t.scalar_type());
    if (!unknown) all = all ? c10::promoteTypes(*all, t.scalar_type()) : t.scalar_type();
  };
  for (size_t i = 0; i < q.args.size(); ++i) {
    const at::IValue& value = q.args[i];
    if (!value.isTensor() && !value.isTensorList()) continue;
    if (is_position(q.op.schema().arguments()[i].name())) continue;
    if (value.isTensor()) {
      add(value.toTensor());
    } else {
      for (const at::Tensor& t : value.toTensorVector()) add(t);
    }
  }
  return unknown ? std::nullopt : all;
}

// Written where an input lies, whether or not it is the very tensor.
bool written_onto_input(const Question& q) {
  const at::Tensor& out = q.tensor(q.written[0]);
  for (const at::Tensor& t : q.args[0].toTensorVector()) {
    // An empty one will grow.
    if (out.has_storage() && t.has_storage() && out.storage().is_alias_of(t.storage()) &&
        (out.numel() == 0 || at::get_overlap_status(out, t) != at::MemOverlapStatus::No))
      return true;
  }
  return false;
}

// What single operators check on the device alone.
bool bad_arguments(const Question& q, const std::string& name) {
  if (name == "aten::bucketize" && q.args[0].isTensor()) return q.tensor(1).dim() != 1;
  if (name == "aten::complex") {
    const at::ScalarType type = q.tensor(0).scalar_type();
    return type != q.tensor(1).scalar_type() || (type != at::kFloat && type != at::kDouble && type != at::kHalf);
  }
  if (name == "aten::exponential_" || name == "aten::cauchy_" || name == "aten::log_normal_")
    return !at::isFloatingType(q.tensor(0).scalar_type());
  if (name == "aten::ldexp_") return !at::isFloatingType(q.tensor(0).scalar_type()) && !q.tensor(0).is_complex();
  if (name == "aten::random_") return q.tensor(0).is_complex();
  if (name == "aten::cat" && !q.written.empty()) return written_onto_input(q);
  if (name == "aten::as_strided_scatter") {
    const auto needed = at::detail::computeStorageNbytes(
        q.ints(2), q.ints(3), q.tensor(0).element_size(),
        static_cast<size_t>(q.none(4) ? q.tensor(0).storage_offset() : q.integer(4)));
    return needed > q.tensor(0).nbytes();
  }
  return false;
}

}  // namespace

bool suspect(const Question& question) {
  const std::string& name = question.op.operator_name().name;
  if (!question.target.server_is_cuda) {
    const auto type = promoted_of_all(question);
    if (type && refuses_dtype(question.op.operator_name(), *type)) return true;
  }
  if (bad_arguments(question, name)) return true;
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
