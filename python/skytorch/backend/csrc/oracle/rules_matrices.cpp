// Products of matrices and vectors that are not structured kernels.
#include "table.h"

namespace skytorch::oracle {
namespace {

bool same_type(const at::Tensor& a, const at::Tensor& b) { return a.scalar_type() == b.scalar_type(); }

Verdict dot(Question& q) {
  const at::Tensor &a = q.tensor(0), &b = q.tensor(1);
  if (a.dim() != 1 || b.dim() != 1 || a.numel() != b.numel() || !same_type(a, b)) return Verdict::Server;
  q.add(a.scalar_type(), {});
  return Verdict::Done;
}

Verdict mv(Question& q) {
  const at::Tensor &a = q.tensor(0), &b = q.tensor(1);
  if (a.dim() != 2 || b.dim() != 1 || a.size(1) != b.size(0) || !same_type(a, b)) return Verdict::Server;
  q.add(a.scalar_type(), {a.size(0)});
  return Verdict::Done;
}

// (input, weight, bias)
Verdict linear(Question& q) {
  const at::Tensor &input = q.tensor(0), &weight = q.tensor(1), &bias = q.maybe_tensor(2);
  if (input.dim() < 1 || weight.dim() != 2 || input.size(-1) != weight.size(1) || !same_type(input, weight))
    return Verdict::Server;
  if (bias.defined() && (bias.dim() != 1 || bias.size(0) != weight.size(0) || !same_type(input, bias)))
    return Verdict::Server;
  at::DimVector sizes(input.sizes());
  sizes.back() = weight.size(0);
  q.add(input.scalar_type(), sizes);
  return Verdict::Done;
}

// (self, batch1, batch2, beta, alpha): the products of the pairs, summed.
Verdict addbmm(Question& q) {
  const at::Tensor &a = q.tensor(1), &b = q.tensor(2);
  if (a.dim() != 3 || b.dim() != 3 || a.size(0) != b.size(0) || a.size(2) != b.size(1)) return Verdict::Server;
  if (!same_type(a, b) || !same_type(a, q.tensor(0))) return Verdict::Dispatcher;
  q.add(a.scalar_type(), {a.size(1), b.size(2)});
  return Verdict::Done;
}

}  // namespace

void add_matrices(Table& table) {
  table.rule("dot", "", dot);
  table.rule("vdot", "", dot);
  table.rule("mv", "", mv);
  table.rule("linear", "", linear);
  table.rule("addbmm", "", addbmm);
}

}  // namespace skytorch::oracle
