// Fused attention and the cells of recurrent networks.
#include <ATen/ExpandUtils.h>
#include <ATen/OpMathType.h>
#include <c10/core/DefaultDtype.h>

#include "structured.h"
#include "table.h"

namespace skytorch::oracle {
namespace {

// [batch, heads, length, width] lying in memory as [batch, length, heads, width]: what the kernels make.
void add_heads(Question& q, at::ScalarType dtype, int64_t batch, int64_t heads, int64_t length, int64_t width) {
  q.add(dtype, {batch, heads, length, width}, {length * heads * width, width, heads * width, 1});
}

bool usable(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  return query.dim() == 4 && key.dim() == 4 && value.dim() == 4 && query.scalar_type() == key.scalar_type() &&
         query.scalar_type() == value.scalar_type() && query.is_floating_point() && query.size(0) == key.size(0) &&
         query.size(3) == key.size(3) && key.size(2) == value.size(2) && key.size(1) == value.size(1);
}

// (query, key, value, dropout_p, is_causal, *, attn_mask, scale) -> (output, logsumexp)
Verdict flash_for_cpu(Question& q) {
  const at::Tensor &query = q.tensor(0), &key = q.tensor(1), &value = q.tensor(2);
  if (!usable(query, key, value)) return Verdict::Server;
  const int64_t batch = query.size(0), heads = query.size(1), length = query.size(2);
  // The result lies in memory as the query does.
  const at::DimVector sizes{batch, heads, length, value.size(3)};
  q.add(query.scalar_type(), sizes, at::infer_dense_strides(sizes, query.strides()));
  q.add(at::toOpMathType(query.scalar_type()), {batch, heads, length}, {length * heads, 1, heads});
  return Verdict::Done;
}

// (grad_out, query, key, value, ...) -> (grad_query, grad_key, grad_value)
Verdict flash_for_cpu_backward(Question& q) {
  if (!q.maybe_tensor(0).defined()) {
    for (int i = 0; i < 3; ++i) q.add_undefined();
    return Verdict::Done;
  }
  if (!usable(q.tensor(1), q.tensor(2), q.tensor(3))) return Verdict::Server;
  for (size_t i : {1, 2, 3}) {
    const at::Tensor& t = q.tensor(i);
    add_heads(q, t.scalar_type(), t.size(0), t.size(1), t.size(2), t.size(3));
  }
  return Verdict::Done;
}

// (query, key, value, attn_bias, compute_log_sumexp, dropout_p, is_causal, *, scale)
//   -> (output, log_sumexp, philox_seed, philox_offset)
Verdict efficient(Question& q) {
  const at::Tensor &query = q.tensor(0), &key = q.tensor(1), &value = q.tensor(2);
  if (!usable(query, key, value)) return Verdict::Server;
  const int64_t batch = query.size(0), heads = query.size(1), length = query.size(2);
  add_heads(q, query.scalar_type(), batch, heads, length, value.size(3));
  // The kernel pads the rows that its backward reads to its block of 32.
  q.add(at::kFloat, {batch, heads, q.flag(4) ? (length + 31) / 32 * 32 : 0});
  q.add(at::kLong, {});
  q.add(at::kLong, {});
  return Verdict::Done;
}

// (grad_out, query, key, value, attn_bias, out, logsumexp, philox_seed, philox_offset, dropout_p, grad_input_mask,
// ...)
//   -> (grad_query, grad_key, grad_value, grad_attn_bias)
Verdict efficient_backward(Question& q) {
  const at::Tensor& bias = q.maybe_tensor(4);
  if (!usable(q.tensor(1), q.tensor(2), q.tensor(3))) return Verdict::Server;
  const auto mask = q[10].toBoolList();
  for (size_t i : {1, 2, 3}) {
    const at::Tensor& t = q.tensor(i);
    add_heads(q, t.scalar_type(), t.size(0), t.size(1), t.size(2), t.size(3));
  }
  if (bias.defined() && mask[3]) {
    q.add(bias.scalar_type(), bias.sizes());
  } else {
    q.add_undefined();
  }
  return Verdict::Done;
}

// (query, key, value, embed_dim, num_head, qkv_weight, qkv_bias, proj_weight, proj_bias, mask, need_weights,
//  average_attn_weights, mask_type) -> (output, weights)
Verdict multi_head(Question& q) {
  const at::Tensor& query = q.tensor(0);
  if (query.dim() != 3 || !query.sizes().equals(q.tensor(1).sizes()) || query.is_nested()) return Verdict::Dispatcher;
  q.add(query.scalar_type(), query.sizes());
  if (!q.flag(10)) {
    q.add_undefined();
  } else if (q.flag(11)) {
    q.add(query.scalar_type(), {query.size(0), query.size(1), query.size(1)});
  } else {
    q.add(query.scalar_type(), {query.size(0), q.integer(4), query.size(1), query.size(1)});
  }
  return Verdict::Done;
}

// oneDNN alone knows how large the workspace is that it returns for the backward.
Verdict mkldnn_rnn(Question&) { return Verdict::Server; }

// (self, dim, dtype)
Verdict safe_softmax(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const at::ScalarType type = c10::isIntegralType(self.scalar_type(), true)
                                  ? c10::typeMetaToScalarType(c10::get_default_dtype())
                                  : self.scalar_type();
  q.add_like(self, q.dtype_or(2, type));
  return Verdict::Done;
}

// (input_gates, hidden_gates, cx, input_bias, hidden_bias) -> (hy, cy, workspace)
Verdict lstm_cell(Question& q) {
  const at::Tensor &gates = q.tensor(0), &cx = q.tensor(2);
  if (!gates.sizes().equals(q.tensor(1).sizes()) || gates.dim() != 2) return Verdict::Server;
  q.add(cx.scalar_type(), cx.sizes());
  q.add(cx.scalar_type(), cx.sizes());
  q.add(gates.scalar_type(), gates.sizes());
  return Verdict::Done;
}

// (input_gates, hidden_gates, hx, input_bias, hidden_bias) -> (hy, workspace)
Verdict gru_cell(Question& q) {
  const at::Tensor& hx = q.tensor(2);
  if (hx.dim() != 2) return Verdict::Server;
  q.add(hx.scalar_type(), hx.sizes());
  q.add(hx.scalar_type(), {hx.size(0), hx.size(1) * 5});
  return Verdict::Done;
}

}  // namespace

void add_attention(Table& table) {
  table.rule("_scaled_dot_product_flash_attention_for_cpu", "", flash_for_cpu);
  table.rule("_scaled_dot_product_flash_attention_for_cpu_backward", "", flash_for_cpu_backward);
  table.rule("_scaled_dot_product_efficient_attention", "", efficient);
  table.rule("_scaled_dot_product_efficient_attention_backward", "", efficient_backward);
  table.rule("_native_multi_head_attention", "", multi_head);
  table.rule("mkldnn_rnn_layer", "", mkldnn_rnn);
  table.rule("_safe_softmax", "", safe_softmax);
  table.rule("_thnn_fused_lstm_cell", "", lstm_cell);
  table.rule("_thnn_fused_gru_cell", "", gru_cell);
}

}  // namespace skytorch::oracle
