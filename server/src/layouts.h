// Tensors of another layout than strided (sparse COO, CSR, CSC, BSR, BSC): put together of dense components before an
// operator runs, and taken apart into them for the answer. Storages only ever hold dense tensors.
//
// Sparse kernels read and write where the indices say. So what a client sends is checked as torch checks what a user
// builds with check_invariants=True, each time: its components may have been written to since.
#pragma once

#include <skytorch/wire.h>

#include "op_template.h"

namespace skytorch::server {

inline bool is_compressed(at::Layout layout) {
  return layout == at::kSparseCsr || layout == at::kSparseCsc || layout == at::kSparseBsr || layout == at::kSparseBsc;
}

// Not dense. Undefined tensors are.
bool has_layout(const at::Tensor& tensor);

// Throws Failure unless they are sizes of a tensor.
void require_sizes(at::IntArrayRef sizes);

// The operator must have a kernel of its own for every layout among its arguments; one for dense tensors would take
// them for what they are not.
void require_layout_kernels(const c10::OperatorHandle& op, const std::vector<ArgStep>& steps, c10::Device device);

// Throws torch's own error if the components do not make a tensor.
at::Tensor assemble(const ArgStep& step, std::vector<at::Tensor> parts);

// Components in the order of the wire.
std::vector<at::Tensor> take_apart(at::Tensor tensor);

// What an answer says of its tensors if not all of them are dense.
class LayoutList {
 public:
  void add(const at::Tensor& tensor);
  bool any() const { return any_; }
  const std::vector<SkyScalar>& values() const { return values_; }

 private:
  void add(int64_t value);

  bool any_ = false;
  std::vector<SkyScalar> values_;
};

}  // namespace skytorch::server
