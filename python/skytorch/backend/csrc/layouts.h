// Tensors of another layout than strided: sparse COO, CSR, CSC, BSR, BSC. On the client they are torch's own
// SparseTensorImpl and SparseCsrTensorImpl over dense `sky` tensors, whose life, storage and bytes are solved. An
// operator gets them as their components, and answers with components (docs/wire.md, "Tensors of other layouts").
//
// What torch itself composes of dense operators runs here, over the components; the rest goes to the server, in one
// round trip where only the server knows how many values the result has.
#pragma once

#include "dispatch.h"

namespace skytorch {

struct LayoutParts {
  at::Layout layout;
  at::IntArrayRef sizes;
  bool coalesced = false;
  c10::SmallVector<at::Tensor, 3> components;

  uint32_t n_args() const { return static_cast<uint32_t>(components.size()) + (layout == at::kSparse ? 3 : 2); }
};

// Raises for a layout that does not travel; `op` is for the message.
LayoutParts take_apart(const c10::TensorImpl& impl, std::string_view op);

// A whole boxed operator that has, or makes, tensors of another layout.
void run_layouts(const Operator& op, torch::jit::Stack& stack);

}  // namespace skytorch
