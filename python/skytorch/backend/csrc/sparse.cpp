// Which kernel each operator has for sparse `sky` tensors: those that the CPU has, by the running torch's own list.
// Torch's sparse CPU kernels that only compose dense operators work on any device, so they run here, over the
// components, and cost no round trip; kernels that look into memory run on the server (layouts.h).
#include <algorithm>
#include <string_view>

#include "borrowed.h"
#include "kernels.h"
#include "layouts.h"

namespace skytorch {

namespace {

// Functions of one tensor element by element, of its values here. With their in-place and out= forms.
constexpr std::string_view kElementwise[] = {"abs",        "angle",
                                             "asin",       "asinh",
                                             "atan",       "atanh",
                                             "ceil",       "conj_physical",
                                             "deg2rad",    "erf",
                                             "erfinv",     "expm1",
                                             "floor",      "frac",
                                             "isinf",      "isnan",
                                             "isneginf",   "isposinf",
                                             "log1p",      "neg",
                                             "nan_to_num", "rad2deg",
                                             "relu",       "round",
                                             "sgn",        "sign",
                                             "signbit",    "sin",
                                             "sinh",       "sqrt",
                                             "tan",        "tanh",
                                             "trunc",      "_conj_physical",
                                             "normal",     "fill",
                                             "zero",       "threshold_backward"};

// Metadata, and what moves whole components.
constexpr std::string_view kParts[] = {"_coalesced_",
                                       "_dimI",
                                       "_dimV",
                                       "_indices",
                                       "_nnz",
                                       "_sparse_broadcast_to",
                                       "_sparse_coo_tensor_with_dims",
                                       "_sparse_coo_tensor_with_dims_and_tensors",
                                       "_values",
                                       "any",
                                       "ccol_indices",
                                       "clone",
                                       "col_indices",
                                       "copy_",
                                       "copy_sparse_to_sparse_",
                                       "crow_indices",
                                       "dense_dim",
                                       "empty",
                                       "empty_like",
                                       "indices",
                                       "is_coalesced",
                                       "is_pinned",
                                       "permute",
                                       "resize_",
                                       "resize_as_sparse_",
                                       "row_indices",
                                       "select",
                                       "select_copy",
                                       "sparse_dim",
                                       "sparse_resize_",
                                       "sparse_resize_and_clear_",
                                       "unsqueeze",
                                       "values",
                                       "view_as_complex",
                                       "view_as_real",
                                       "zeros"};

// Of sparse COO tensors only.
constexpr std::string_view kCooParts[] = {"_to_dense", "cat", "sum"};

bool runs_here(const c10::OperatorName& name, bool coo) {
  std::string_view base = std::string_view(name.name).substr(std::string_view("aten::").size());
  if (is_one_of(base, kParts) || (coo && is_one_of(base, kCooParts) && name.overload_name.empty())) {
    return true;
  }
  if (base.back() == '_') {
    base.remove_suffix(1);
  }
  return is_one_of(base, kElementwise);
}

// Kernel of an operator that goes to the server with its components.
class LayoutOp final : public c10::OperatorKernel {
 public:
  explicit LayoutOp(const c10::OperatorHandle& handle) : handle_(handle) {}
  void operator()(const c10::OperatorHandle& /*handle*/, c10::DispatchKeySet /*keys*/, torch::jit::Stack* stack) {
    run_layouts(OperatorTable::get().of(handle_), *stack);
  }

 private:
  c10::OperatorHandle handle_;
};

// The gradient of an EmbeddingBag: with sparse=True torch makes it of dense operators.
class BagBackward final : public c10::OperatorKernel {
 public:
  explicit BagBackward(const c10::OperatorHandle& handle)
      : sparse_(handle, c10::DispatchKey::CPU),
        dense_(handle),
        from_end_(handle.schema().arguments().size() -
                  static_cast<size_t>(handle.schema().argumentIndexWithName("sparse").value())) {}
  void operator()(const c10::OperatorHandle& handle, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
    if ((*stack)[stack->size() - from_end_].toBool()) {
      sparse_(handle, keys, stack);
    } else {
      dense_(handle, keys, stack);
    }
  }

 private:
  BorrowedOp sparse_;
  BoxedOp dense_;
  size_t from_end_;
};

void register_as_cpu_has(torch::Library& m, c10::DispatchKey cpu) {
  auto& dispatcher = c10::Dispatcher::singleton();
  const bool coo = cpu == c10::DispatchKey::SparseCPU;
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    const auto op = dispatcher.findOp(name);
    if (name.name.rfind("aten::", 0) != 0 || !op.has_value() || !op->hasSchema() ||
        !op->hasKernelForDispatchKey(cpu)) {
      continue;
    }
    auto kernel = runs_here(name, coo)
                      ? torch::CppFunction::makeFromBoxedFunctor(std::make_unique<BorrowedOp>(*op, cpu))
                      : torch::CppFunction::makeFromBoxedFunctor(std::make_unique<LayoutOp>(*op));
    m.impl(toString(name).c_str(), std::move(kernel));
  }
}

TORCH_LIBRARY_IMPL(aten, SparsePrivateUse1, m) { register_as_cpu_has(m, c10::DispatchKey::SparseCPU); }
TORCH_LIBRARY_IMPL(aten, SparseCsrPrivateUse1, m) { register_as_cpu_has(m, c10::DispatchKey::SparseCsrCPU); }

}  // namespace

void register_sparse_makers(torch::Library& m) {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const char* name : {"_to_sparse", "_to_sparse.sparse_dim", "_to_sparse_csr", "_to_sparse_csc",
                           "_to_sparse_bsr", "_to_sparse_bsc"}) {
    const std::string full = std::string("aten::") + name;
    const size_t dot = full.find('.');
    const std::string overload = dot == std::string::npos ? "" : full.substr(dot + 1);
    const auto op = dispatcher.findOp({full.substr(0, dot), overload});
    if (op.has_value()) {
      m.impl(name, torch::CppFunction::makeFromBoxedFunctor(std::make_unique<LayoutOp>(*op)));
    }
  }
  const auto bag = dispatcher.findSchemaOrThrow("aten::_embedding_bag_backward", "");
  m.impl("_embedding_bag_backward", torch::CppFunction::makeFromBoxedFunctor(std::make_unique<BagBackward>(bag)));
}

}  // namespace skytorch
