// Look-ups and the checks that guards share.
#include "call_arguments.h"

#include "failure.h"

namespace skytorch::server {
namespace {

std::string quoted(std::string_view name) { return "'" + std::string(name) + "'"; }

}  // namespace

void CallArguments::refuse(std::string_view what) const {
  throw Failure(SKY_ERR_INVALID_ARGUMENT, "operator " + schema_.name() + " does not run with these arguments: " +
                                              std::string(what) + "; call the function of torch that uses it");
}

const c10::IValue& CallArguments::value(std::string_view name) const {
  const auto index = schema_.argumentIndexWithName(std::string(name));
  if (!index.has_value()) {
    throw Failure(SKY_ERR_INTERNAL, "operator " + schema_.name() + " has no argument " + quoted(name) +
                                        " in this torch, and its guard asks for it; please report this");
  }
  return stack_[stack_.size() - schema_.arguments().size() + static_cast<size_t>(*index)];
}

bool CallArguments::is_out(std::string_view name) const {
  const auto index = schema_.argumentIndexWithName(std::string(name));
  return index.has_value() && schema_.arguments()[static_cast<size_t>(*index)].is_out();
}

at::Tensor CallArguments::maybe(std::string_view name) const {
  const c10::IValue& found = value(name);
  return found.isNone() ? at::Tensor() : found.toTensor();
}

const at::Tensor& CallArguments::tensor(std::string_view name) const {
  const c10::IValue& found = value(name);
  require(found.isTensor() && found.toTensor().defined(), quoted(name) + " must be a tensor");
  return found.toTensor();
}

std::vector<at::Tensor> CallArguments::tensors(std::string_view name) const {
  std::vector<at::Tensor> found = value(name).toTensorVector();
  for (const at::Tensor& t : found) require(t.defined(), quoted(name) + " must be tensors");
  return found;
}

int64_t CallArguments::integer(std::string_view name) const {
  const c10::IValue& found = value(name);
  require(found.isInt(), quoted(name) + " must be given");
  return found.toInt();
}

std::vector<int64_t> CallArguments::ints(std::string_view name) const {
  const c10::IValue& found = value(name);
  return found.isNone() ? std::vector<int64_t>() : found.toIntVector();
}

at::Scalar CallArguments::scalar(std::string_view name) const { return value(name).toScalar(); }

void CallArguments::require_dims(std::string_view name, const at::Tensor& tensor) const {
  std::vector<bool> seen(static_cast<size_t>(tensor.dim()));
  for (int64_t dim : ints(name)) {
    require(dim >= -tensor.dim() && dim < tensor.dim(), quoted(name) + " must name dimensions of its tensor");
    const auto d = static_cast<size_t>(dim < 0 ? dim + tensor.dim() : dim);
    require(!seen[d], quoted(name) + " must not name a dimension twice");
    seen[d] = true;
  }
}

void CallArguments::require_indices(std::string_view name, const at::Tensor& indices, int64_t end) const {
  require(c10::isIntegralType(indices.scalar_type(), false), quoted(name) + " must be integers");
  if (!indices.is_cpu() || indices.numel() == 0) return;
  const auto [low, high] = indices.aminmax();
  require(low.item<int64_t>() >= 0 && high.item<int64_t>() < end,
          quoted(name) + " must be from 0 to less than " + std::to_string(end));
}

void CallArguments::require_indices(std::string_view name, int64_t end) const {
  require_indices(name, tensor(name), end);
}

void CallArguments::require_per_channel(std::string_view name, int64_t channels) const {
  const at::Tensor t = maybe(name);
  require(!t.defined() || (t.dim() == 1 && t.size(0) == channels),
          quoted(name) + " must have " + std::to_string(channels) + " elements, one per channel");
}

void CallArguments::require_own_memory(std::string_view name, const at::Tensor& tensor) const {
  require(has_own_memory(tensor.sizes(), tensor.strides()), quoted(name) + " must not overlap itself");
}

bool has_own_memory(at::IntArrayRef sizes, at::IntArrayRef strides) {
  uint64_t elements = 1, addresses = 1;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] == 0) return true;
    elements *= static_cast<uint64_t>(sizes[d]);
    addresses += static_cast<uint64_t>(sizes[d] - 1) * static_cast<uint64_t>(strides[d]);
  }
  return elements <= addresses;
}

}  // namespace skytorch::server
