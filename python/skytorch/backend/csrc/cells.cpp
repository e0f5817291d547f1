// LSTM and GRU cells. torch gives every PrivateUse1 device the fused cells, which only a CUDA server has; for a CPU
// server they are composed here the way the cpu computes them, forward and backward. The workspace that torch carries
// from one to the other holds the activated gates.
#include <ATen/Functions.h>

#include "device.h"
#include "kernels.h"
#include "unboxed.h"

namespace skytorch {

namespace {

using at::Tensor;
using MaybeTensor = std::optional<Tensor>;

bool on_cuda(const Tensor& t) {
  const StorageContext* context = context_of(t.unsafeGetTensorImpl());
  return context != nullptr && context->device->is_cuda();
}

template <class Op>
UnboxedOp<typename Op::schema>& whole() {
  static UnboxedOp<typename Op::schema> kernel(
      c10::Dispatcher::singleton().findSchemaOrThrow(Op::name, Op::overload_name));
  return kernel;
}

Tensor biased(const Tensor& gates, const MaybeTensor& bias) {
  return bias.has_value() && bias->defined() ? gates + *bias : gates;
}

// Gradient of an activation, given its value.
Tensor sigmoid_grad(const Tensor& grad, const Tensor& value) { return at::sigmoid_backward(grad, value); }
Tensor tanh_grad(const Tensor& grad, const Tensor& value) { return at::tanh_backward(grad, value); }

std::tuple<Tensor, Tensor, Tensor> lstm_cell(const Tensor& input_gates, const Tensor& hidden_gates, const Tensor& cx,
                                             const MaybeTensor& input_bias, const MaybeTensor& hidden_bias) {
  if (on_cuda(cx)) {
    return whole<at::_ops::_thnn_fused_lstm_cell>()(input_gates, hidden_gates, cx, input_bias, hidden_bias);
  }
  const Tensor gates = biased(hidden_gates, hidden_bias) + biased(input_gates, input_bias);
  const auto parts = gates.unsafe_chunk(4, 1);
  const Tensor in = parts[0].sigmoid_();
  const Tensor forget = parts[1].sigmoid_();
  const Tensor cell = parts[2].tanh_();
  const Tensor out = parts[3].sigmoid_();
  Tensor cy = (forget * cx).add_(in * cell);
  Tensor hy = out * cy.tanh();
  return {std::move(hy), std::move(cy), gates};
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell_backward(const MaybeTensor& grad_hy, const MaybeTensor& grad_cy,
                                                      const Tensor& cx, const Tensor& cy, const Tensor& workspace,
                                                      bool has_bias) {
  if (on_cuda(cx)) {
    return whole<at::_ops::_thnn_fused_lstm_cell_backward_impl>()(grad_hy, grad_cy, cx, cy, workspace, has_bias);
  }
  const bool has_hy = grad_hy.has_value() && grad_hy->defined();
  const bool has_cy = grad_cy.has_value() && grad_cy->defined();
  if (!has_hy && !has_cy) {
    return {};
  }
  const auto parts = workspace.unsafe_chunk(4, 1);
  const Tensor tanh_cy = cy.tanh();
  const Tensor through_hy = has_hy ? tanh_grad(*grad_hy * parts[3], tanh_cy) : Tensor();
  const Tensor grad_c = !has_hy ? *grad_cy : (has_cy ? through_hy + *grad_cy : through_hy);
  const Tensor grad_out = has_hy ? sigmoid_grad(*grad_hy * tanh_cy, parts[3]) : at::zeros_like(cx);
  Tensor grad_gates = at::cat({sigmoid_grad(grad_c * parts[2], parts[0]), sigmoid_grad(grad_c * cx, parts[1]),
                               tanh_grad(grad_c * parts[0], parts[2]), grad_out},
                              1);
  Tensor grad_bias = has_bias ? grad_gates.sum(0) : Tensor();
  return {std::move(grad_gates), grad_c * parts[1], std::move(grad_bias)};
}

std::tuple<Tensor, Tensor> gru_cell(const Tensor& input_gates, const Tensor& hidden_gates, const Tensor& hx,
                                    const MaybeTensor& input_bias, const MaybeTensor& hidden_bias) {
  if (on_cuda(hx)) {
    return whole<at::_ops::_thnn_fused_gru_cell>()(input_gates, hidden_gates, hx, input_bias, hidden_bias);
  }
  const auto in = biased(input_gates, input_bias).unsafe_chunk(3, 1);
  const auto hidden = biased(hidden_gates, hidden_bias).unsafe_chunk(3, 1);
  const Tensor reset = (hidden[0] + in[0]).sigmoid_();
  const Tensor update = (hidden[1] + in[1]).sigmoid_();
  const Tensor fresh = (in[2] + hidden[2] * reset).tanh_();
  Tensor hy = (hx - fresh).mul_(update).add_(fresh);
  return {std::move(hy), at::cat({reset, update, fresh, hx, hidden[2]}, 1)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gru_cell_backward(const Tensor& grad_hy, const Tensor& workspace,
                                                                     bool has_bias) {
  if (on_cuda(grad_hy)) {
    return whole<at::_ops::_thnn_fused_gru_cell_backward>()(grad_hy, workspace, has_bias);
  }
  const auto parts = workspace.unsafe_chunk(5, 1);
  const Tensor& reset = parts[0];
  const Tensor& update = parts[1];
  const Tensor& fresh = parts[2];
  const Tensor grad_update = sigmoid_grad(grad_hy * (parts[3] - fresh), update);
  const Tensor grad_fresh = tanh_grad(grad_hy * (1 - update), fresh);
  const Tensor grad_reset = sigmoid_grad(grad_fresh * parts[4], reset);
  Tensor grad_input = at::cat({grad_reset, grad_update, grad_fresh}, 1);
  Tensor grad_hidden = at::cat({grad_reset, grad_update, grad_fresh * reset}, 1);
  Tensor input_bias = has_bias ? grad_input.sum(0) : Tensor();
  Tensor hidden_bias = has_bias ? grad_hidden.sum(0) : Tensor();
  return {std::move(grad_input), std::move(grad_hidden), grad_hy * update, std::move(input_bias),
          std::move(hidden_bias)};
}

}  // namespace

void register_cells(torch::Library& m) {
  m.impl("_thnn_fused_lstm_cell", TORCH_FN(lstm_cell));
  m.impl("_thnn_fused_lstm_cell_backward_impl", TORCH_FN(lstm_cell_backward));
  m.impl("_thnn_fused_gru_cell", TORCH_FN(gru_cell));
  m.impl("_thnn_fused_gru_cell_backward", TORCH_FN(gru_cell_backward));
}

}  // namespace skytorch
