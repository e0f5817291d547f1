// Pooling that is not structured in torch, and resizing by it.
#include "table.h"

namespace skytorch::oracle {
namespace {

// (self, output_size): the last `spatial` dimensions become output_size.
template <int64_t spatial>
Verdict adaptive(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const at::DimVector wanted = q.ints(1);
  if (wanted.size() != spatial || (self.dim() != spatial + 1 && self.dim() != spatial + 2)) return Verdict::Server;
  at::DimVector sizes(self.sizes());
  for (int64_t i = 0; i < spatial; ++i) {
    if (wanted[i] < 0 || self.size(i - spatial) == 0) return Verdict::Server;
    sizes[sizes.size() - spatial + i] = wanted[i];
  }
  if (spatial == 2) {
    q.add(self.scalar_type(), sizes, self.suggest_memory_format());
  } else {
    q.add(self.scalar_type(), sizes);
  }
  return Verdict::Done;
}

// (grad_output, self)
template <int64_t spatial>
Verdict adaptive_backward(Question& q) {
  const at::Tensor &grad = q.tensor(0), &self = q.tensor(1);
  if (grad.dim() != self.dim() || (self.dim() != spatial + 1 && self.dim() != spatial + 2)) return Verdict::Server;
  if (spatial == 2) {
    q.add(self.scalar_type(), self.sizes(), self.suggest_memory_format());
  } else {
    q.add(self.scalar_type(), self.sizes());
  }
  return Verdict::Done;
}

}  // namespace

void add_pools(Table& table) {
  table.rule("_adaptive_avg_pool2d", "", adaptive<2>);
  table.rule("_adaptive_avg_pool3d", "", adaptive<3>);
  table.rule("_adaptive_avg_pool2d_backward", "", adaptive_backward<2>);
  table.rule("_adaptive_avg_pool3d_backward", "", adaptive_backward<3>);
}

}  // namespace skytorch::oracle
