// Which kernel each aten operator has on `sky`, decided when the library is loaded by walking the running torch's own
// list, so that a new torch needs no new list here. Composite-implicit operators are never registered (that would cut
// them out of autograd); views and metadata stay with torch; everything else goes to the server whole.
#include <ATen/MemoryOverlap.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <string_view>

#include "dispatch.h"
#include "hot.h"
#include "kernels.h"

namespace skytorch {

namespace {

// Left to torch's own composite kernels: they only look at metadata, give back something local or (the unsafe ones) a
// view that their schema does not tell of, or must wait for the server where torch says so.
constexpr std::string_view kLeftToTorch[] = {"_assert_tensor_metadata",

                                             "_fused_sdp_choice",
                                             "_fw_primal_copy",
                                             "_lazy_clone",
                                             "_linalg_check_errors",
                                             "_make_dual_copy",
                                             "_pack_padded_sequence",
                                             "_pin_memory",
                                             "_resize_output",
                                             "_resize_output_",
                                             "_unsafe_view",
                                             "empty",
                                             "empty_like",
                                             "empty_permuted",
                                             "from_file",
                                             "is_coalesced",
                                             "is_pinned",
                                             "is_same_size",
                                             "lift",
                                             "new_empty",
                                             "new_empty_strided",
                                             "resize",
                                             "resize_as",
                                             "unsafe_split",
                                             "unsafe_split_with_sizes"};

// Families that mean layouts which are not here: refused by name, before anything is asked or sent.
constexpr std::string_view kRefusedPrefixes[] = {"_sparse_", "sparse_", "_to_sparse", "to_sparse", "_nested_",
                                                 "_test_",   "q_",      "quantized_", "mkldnn_",   "_mkldnn_"};

std::string_view base_name(const c10::OperatorName& name) {
  const std::string_view full = name.name;
  return full.substr(full.find("::") + 2);
}

bool left_to_torch(std::string_view base) {
  return std::find(std::begin(kLeftToTorch), std::end(kLeftToTorch), base) != std::end(kLeftToTorch);
}

bool is_refused(std::string_view base) {
  return std::any_of(std::begin(kRefusedPrefixes), std::end(kRefusedPrefixes),
                     [&](std::string_view prefix) { return base.substr(0, prefix.size()) == prefix; });
}

// Composed of others unless a device has a kernel of its own, and then with a derivative of its own: the cpu has, so
// that composing would round otherwise.
bool is_composite(const c10::OperatorHandle& op) {
  return op.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd) &&
         !(op.hasKernelForDispatchKey(c10::DispatchKey::CPU) &&
           op.hasKernelForDispatchKey(c10::DispatchKey::Autograd));
}

bool goes_whole(const c10::OperatorHandle& op) {
  if (!op.hasSchema() || is_composite(op) || op.hasKernelForDispatchKey(c10::DispatchKey::PrivateUse1) ||
      op.hasTag(at::Tag::inplace_view)) {
    return false;
  }
  const std::string_view base = base_name(op.operator_name());
  if (left_to_torch(base) || is_refused(base)) {
    return false;
  }
  bool placed = false;
  for (const c10::Argument& argument : op.schema().arguments()) {
    if (argument.alias_info() != nullptr && !argument.alias_info()->isWrite()) {
      return false;
    }
    switch (kind_of(argument)) {
      case ArgKind::Unsupported:
        return false;
      case ArgKind::Tensor:
      case ArgKind::TensorList:
      case ArgKind::OptionalTensorList:
      case ArgKind::Device:
        placed = true;
        break;
      default:
        break;
    }
  }
  return placed;
}

// Of what lies over itself (expanded) the server takes none: its kernel partitions in place. It gets a copy.
class OwnMemoryOp final : public c10::OperatorKernel {
 public:
  explicit OwnMemoryOp(const c10::OperatorHandle& handle) : whole_(handle) {}
  void operator()(const c10::OperatorHandle& handle, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
    c10::IValue& self = (*stack)[stack->size() - handle.schema().arguments().size()];
    if (at::has_internal_overlap(self.toTensor()) != at::MemOverlap::No) {
      self = self.toTensor().contiguous();
    }
    whole_(handle, keys, stack);
  }

 private:
  BoxedOp whole_;
};

bool wants_own_memory(std::string_view base) { return base == "median" || base == "nanmedian"; }

void register_others(torch::Library& m) {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    if (name.name.rfind("aten::", 0) != 0) {
      continue;
    }
    const auto op = dispatcher.findOp(name);
    if (op.has_value() && goes_whole(*op) && wants_own_memory(base_name(name))) {
      m.impl(toString(name).c_str(), torch::CppFunction::makeFromBoxedFunctor(std::make_unique<OwnMemoryOp>(*op)));
    } else if (op.has_value() && goes_whole(*op)) {
      m.impl(toString(name).c_str(), torch::CppFunction::makeFromBoxedFunctor(std::make_unique<BoxedOp>(*op)));
    }
  }
}

// Operators of other libraries, and of aten when nothing above took them.
void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::OperatorName& name = op.operator_name();
  if (name.name.rfind("aten::", 0) == 0 && is_refused(base_name(name))) {
    raise_unsupported(toString(name), "sky tensors");
  }
  run_boxed(OperatorTable::get().of(op), *stack);
}

template <class Layout>
void refuse(const c10::OperatorHandle& op, torch::jit::Stack* /*stack*/) {
  raise_unsupported(toString(op.operator_name()), Layout::kName);
}

struct Sparse {
  static constexpr const char* kName = "sparse tensors";
};
struct Quantized {
  static constexpr const char* kName = "quantized tensors";
};

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  register_factories(m);
  register_views(m);
  register_copies(m);
  register_cells(m);
  register_sparse_makers(m);
  register_hot();
  register_others(m);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(_, SparsePrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&refuse<Sparse>>());
}
TORCH_LIBRARY_IMPL(_, SparseCsrPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&refuse<Sparse>>());
}
TORCH_LIBRARY_IMPL(_, QuantizedPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&refuse<Quantized>>());
}

}  // namespace

}  // namespace skytorch
