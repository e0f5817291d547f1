// Losses and their backwards, where they are not structured, or where the structured function resizes its output
// itself.
#include <ATen/core/Reduction.h>
#include <ATen/ops/mse_loss_meta.h>
#include <ATen/ops/smooth_l1_loss_meta.h>

#include "structured.h"
#include "table.h"

namespace skytorch::oracle {
namespace {

void to_scalar(Question& q) {
  q.out[0].sizes.clear();
  q.out[0].strides.clear();
}

// (self, target, reduction, ...): elementwise, then reduced. The kernel resizes the output of its own accord.
template <class Kernel>
Verdict structured_loss(Question& q) {
  if (!q.written.empty()) return Verdict::Dispatcher;
  structured<Kernel>(q);
  if (q.integer(2) != at::Reduction::None) to_scalar(q);
  return Verdict::Done;
}

// (self, target, reduction), and for the Huber loss delta
Verdict elementwise_loss(Question& q) {
  if (q.size() > 3 && q[3].toDouble() <= 0) return Verdict::Server;
  if (!q.written.empty()) return Verdict::Dispatcher;
  Probe<at::TensorIteratorBase> it(q);
  it.build_borrowing_binary_op(it.maybe_get_output(0), q.tensor(0), q.tensor(1));
  if (q.integer(2) != at::Reduction::None) to_scalar(q);
  return Verdict::Done;
}

// (self, target, weight, reduction)
Verdict cross_entropy(Question& q) {
  const at::Tensor& self = q.tensor(0);
  if (!self.is_floating_point() || !self.sizes().equals(q.tensor(1).sizes()) ||
      q.tensor(1).scalar_type() != self.scalar_type())
    return Verdict::Dispatcher;
  if (q.integer(3) != at::Reduction::None) {
    q.add(self.scalar_type(), {});
  } else {
    q.add_like(self);
  }
  return Verdict::Done;
}

// (grad_output, self, target, weight, reduction)
Verdict cross_entropy_backward(Question& q) {
  q.add_like(q.tensor(1));
  return Verdict::Done;
}

// (self, target, weight, pos_weight, reduction)
Verdict cross_entropy_with_logits(Question& q) {
  const at::Tensor& self = q.tensor(0);
  if (!self.is_floating_point() || !self.sizes().equals(q.tensor(1).sizes()) || !q.none(3) ||
      q.tensor(1).scalar_type() != self.scalar_type())
    return Verdict::Dispatcher;
  if (q.integer(4) != at::Reduction::None) {
    q.add(self.scalar_type(), {});
  } else {
    q.add_like(self);
  }
  return Verdict::Done;
}

// (grad_output, self, target, ...): zeros like self, contiguous, filled in.
Verdict contiguous_like_second(Question& q) {
  if (!q.written.empty()) return Verdict::Dispatcher;
  const at::Tensor& self = q.tensor(1);
  if (!self.sizes().equals(q.tensor(2).sizes()) || !self.is_floating_point()) return Verdict::Dispatcher;
  q.add(self.scalar_type(), self.sizes());
  return Verdict::Done;
}

// (self, target, weight, reduction, ignore_index) -> (output, total_weight)
Verdict nll_2d(Question& q) {
  const at::Tensor &self = q.tensor(0), &target = q.tensor(1), &weight = q.maybe_tensor(2);
  if (self.dim() != 4 || target.dim() != 3 || self.size(0) != target.size(0) || self.size(2) != target.size(1) ||
      self.size(3) != target.size(2) || (weight.defined() && weight.numel() != self.size(1)))
    return Verdict::Server;
  if (q.integer(3) == at::Reduction::None) {
    q.add(self.scalar_type(), target.sizes());
  } else {
    q.add(self.scalar_type(), {});
  }
  q.add(self.scalar_type(), {});
  return Verdict::Done;
}

// (grad_output, self, target, ...)
Verdict nll_2d_backward(Question& q) {
  q.add(q.tensor(1).scalar_type(), q.tensor(1).sizes());
  return Verdict::Done;
}

}  // namespace

void add_losses(Table& table) {
  table.rule("mse_loss", "", structured_loss<at::meta::structured_mse_loss>);
  table.rule("mse_loss", "out", structured_loss<at::meta::structured_mse_loss>);
  table.rule("smooth_l1_loss", "", structured_loss<at::meta::structured_smooth_l1_loss>);
  table.rule("smooth_l1_loss", "out", structured_loss<at::meta::structured_smooth_l1_loss>);
  for (const char* name : {"huber_loss", "soft_margin_loss"}) table.rule(name, "", elementwise_loss);
  for (const char* name : {"mse_loss_backward", "smooth_l1_loss_backward", "huber_loss_backward"}) {
    table.rule(name, "", contiguous_like_second);
  }
  table.rule("binary_cross_entropy", "", cross_entropy);
  table.rule("binary_cross_entropy_backward", "", cross_entropy_backward);
  table.rule("binary_cross_entropy_with_logits", "", cross_entropy_with_logits);
  table.rule("nll_loss2d_forward", "", nll_2d);
  table.rule("nll_loss2d_backward", "", nll_2d_backward);
}

}  // namespace skytorch::oracle
