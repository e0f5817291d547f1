// See layouts.h.
#include "layouts.h"

#include "deny_list.h"
#include "failure.h"
#include "reply.h"

namespace skytorch::server {
namespace {

c10::DispatchKey key_of(at::Layout layout, bool cuda) {
  if (layout == at::kSparse) return cuda ? c10::DispatchKey::SparseCUDA : c10::DispatchKey::SparseCPU;
  return cuda ? c10::DispatchKey::SparseCsrCUDA : c10::DispatchKey::SparseCsrCPU;
}

// Whether there is one among them.
bool require_kernel(const c10::OperatorHandle& op, const ArgStep& step, bool cuda) {
  if (step.fill == Fill::Layout) {
    if (!op.hasKernelForDispatchKey(key_of(step.layout, cuda))) {
      throw Failure(SKY_ERR_OP_NOT_IMPLEMENTED, "operator " + op.schema().name() + " has no kernel for " +
                                                    c10::str(step.layout) + " tensors on " + (cuda ? "cuda" : "cpu"));
    }
    return true;
  }
  bool found = false;
  if (step.fill == Fill::List) {
    for (const ArgStep& element : step.elements) found |= require_kernel(op, element, cuda);
  }
  return found;
}

}  // namespace

bool has_layout(const at::Tensor& tensor) {
  return tensor.defined() && (tensor.layout() == at::kSparse || is_compressed(tensor.layout()));
}

void require_sizes(at::IntArrayRef sizes) {
  int64_t numel = 1;
  for (int64_t size : sizes) {
    if (size < 0 || __builtin_mul_overflow(numel, std::max<int64_t>(size, 1), &numel)) {
      throw Failure(SKY_ERR_INVALID_ARGUMENT, "the sizes of a sparse tensor are negative or overflow 63 bits");
    }
  }
}

void require_layout_kernels(const c10::OperatorHandle& op, const std::vector<ArgStep>& steps, c10::Device device) {
  bool found = false;
  for (const ArgStep& step : steps) found |= require_kernel(op, step, device.is_cuda());
  if (!found && is_sparse_only(op.schema().name())) {
    throw Failure(SKY_ERR_NOT_SUPPORTED, "operator " + op.schema().name() + " is for sparse tensors and got none");
  }
}

at::Tensor assemble(const ArgStep& step, std::vector<at::Tensor> parts) {
  const auto options = parts.back().options();
  if (step.layout == at::kSparse) {
    at::_validate_sparse_coo_tensor_args(parts[0], parts[1], step.sizes, step.coalesced);
    return at::_sparse_coo_tensor_unsafe(parts[0], parts[1], step.sizes, options.layout(step.layout), step.coalesced);
  }
  at::_validate_sparse_compressed_tensor_args(parts[0], parts[1], parts[2], step.sizes, step.layout);
  return at::_sparse_compressed_tensor_unsafe(parts[0], parts[1], parts[2], step.sizes, options.layout(step.layout));
}

std::vector<at::Tensor> take_apart(at::Tensor tensor) {
  if (tensor.layout() == at::kSparse) return {tensor._indices(), tensor._values()};
  const bool rows = tensor.layout() == at::kSparseCsr || tensor.layout() == at::kSparseBsr;
  return {rows ? tensor.crow_indices() : tensor.ccol_indices(), rows ? tensor.col_indices() : tensor.row_indices(),
          tensor.values()};
}

void LayoutList::add(int64_t value) { values_.push_back(int_value(value)); }

void LayoutList::add(const at::Tensor& tensor) {
  if (!has_layout(tensor)) return add(static_cast<int64_t>(at::kStrided));
  any_ = true;
  add(static_cast<int64_t>(tensor.layout()));
  add(tensor.dim());
  for (int64_t size : tensor.sizes()) add(size);
  add(tensor.layout() == at::kSparse && tensor.is_coalesced() ? 1 : 0);
}

}  // namespace skytorch::server
