// Operators of sparse tensors. That the tensors themselves are sound was checked when they were put together.
#include <array>

#include "families.h"

namespace skytorch::server {
namespace {

// One matrix, reduced over its dimensions by number.
void csr_reduction(const CallArguments& a) {
  const at::Tensor& self = a.tensor("self");
  a.require(self.layout() == at::kSparseCsr && self.dim() == 2, "'self' must be a CSR matrix");
  a.require_dims("dim", self);
}

// MKL takes the numbers of the matrix for those of the others.
void triangular_solve(const CallArguments& a) {
  const at::Tensor& matrix = a.tensor("A");
  const at::Tensor& right = a.tensor("self");
  const auto dense = [](const at::Tensor& t) { return !t.defined() || t.layout() == at::kStrided; };
  const bool out = a.has("X");
  const bool all_dense = dense(right) && (!out || (dense(a.tensor("X")) && dense(a.tensor("M"))));
  if (dense(matrix) && all_dense) return;
  a.require(all_dense && matrix.layout() == at::kSparseCsr && matrix.dim() == 2 && right.dim() == 2 &&
                matrix.size(0) == matrix.size(1) && matrix.size(1) == right.size(0),
            "a sparse 'A' must be a square CSR matrix, and the others dense ones that fit it");
  a.require(!out || (a.tensor("X").sizes() == right.sizes() && a.tensor("X").scalar_type() == right.scalar_type()),
            "'X' must be like 'self'");
  a.require(matrix.scalar_type() == right.scalar_type(), "all must have one dtype");
}

// The kernel goes where `arg_out` says: one position among the values for each element, their number for none.
// Forward leaves it empty where no input requires a gradient, as on every server.
void mm_reduce_backward(const CallArguments& a) {
  const std::string reduce = a.text("reduce");
  if (reduce != "amax" && reduce != "amin") return;
  const at::Tensor& arg_out = a.tensor("arg_out");
  a.require(a.tensor("self").layout() == at::kSparseCsr, "'self' must be a CSR matrix");
  a.require(arg_out.sizes() == a.tensor("grad_out").sizes() && arg_out.is_contiguous(),
            "'arg_out' must have a position for each element of 'grad_out'");
  a.require_indices("arg_out", a.tensor("self")._nnz() + 1);
}

constexpr std::array kSparseGuards = {
    GuardEntry{"aten::_sparse_mm_reduce_impl_backward", mm_reduce_backward},
    GuardEntry{"aten::_sparse_csr_prod", csr_reduction},
    GuardEntry{"aten::_sparse_csr_sum", csr_reduction},
    GuardEntry{"aten::triangular_solve", triangular_solve},
};

}  // namespace

c10::ArrayRef<GuardEntry> sparse_guards() { return kSparseGuards; }

}  // namespace skytorch::server
