// Layer, RMS, group and batch normalisation and their backwards.
// The saved statistics are where CPU and CUDA differ: CUDA keeps them in the accumulation type, the CPU in the type
// of the parameters; and in evaluation the CPU's batch norm saves nothing.
#include <ATen/AccumulateType.h>
#include <ATen/OpMathType.h>

#include "table.h"

namespace skytorch::oracle {
namespace {

// float parameters beside a half or bfloat16 input.
bool mixed(const at::Tensor& input, std::initializer_list<const at::Tensor*> parameters) {
  if (input.scalar_type() != at::kBFloat16 && input.scalar_type() != at::kHalf) return false;
  return std::any_of(parameters.begin(), parameters.end(), [](const at::Tensor* t) { return t->defined(); }) &&
         std::all_of(parameters.begin(), parameters.end(),
                     [](const at::Tensor* t) { return !t->defined() || t->scalar_type() == at::kFloat; });
}

at::ScalarType parameter_type(const at::Tensor& input, bool is_mixed) {
  return is_mixed ? at::kFloat : input.scalar_type();
}

at::ScalarType accumulated(const at::Tensor& input) {
  return at::toAccumulateType(input.scalar_type(), /*is_cuda=*/true);
}

bool is_float(const at::Tensor& t) { return t.is_floating_point(); }

bool ends_with(at::IntArrayRef sizes, at::IntArrayRef end) {
  return !end.empty() && sizes.size() >= end.size() && sizes.slice(sizes.size() - end.size()).equals(end);
}

bool fits(const at::Tensor& parameter, at::IntArrayRef sizes) {
  return !parameter.defined() || parameter.sizes().equals(sizes);
}

at::DimVector statistics(const at::Tensor& input, size_t normalized) {
  at::DimVector sizes(input.sizes());
  std::fill(sizes.end() - static_cast<std::ptrdiff_t>(normalized), sizes.end(), 1);
  return sizes;
}

// (input, normalized_shape, weight, bias, eps) -> (out, mean, rstd)
Verdict layer_norm(Question& q) {
  const at::Tensor &input = q.tensor(0), &weight = q.maybe_tensor(2), &bias = q.maybe_tensor(3);
  const at::DimVector normalized = q.ints(1);
  if (!is_float(input) || !ends_with(input.sizes(), normalized) || !fits(weight, normalized) ||
      !fits(bias, normalized))
    return Verdict::Server;
  const at::ScalarType stats =
      q.target.server_is_cuda ? accumulated(input) : parameter_type(input, mixed(input, {&weight, &bias}));
  const at::DimVector sizes = statistics(input, normalized.size());
  q.add(input.scalar_type(), input.sizes());
  q.add(stats, sizes);
  q.add(stats, sizes);
  return Verdict::Done;
}

void add_if(Question& q, bool wanted, const at::Tensor& like) {
  if (wanted && like.defined()) {
    q.add_like(like);
  } else {
    q.add_undefined();
  }
}

// (grad_out, input, normalized_shape, mean, rstd, weight, bias, output_mask)
Verdict layer_norm_backward(Question& q) {
  const at::Tensor& input = q.tensor(1);
  const auto mask = q[7].toBoolList();
  if (mask[0]) {
    q.add(input.scalar_type(), input.sizes());
  } else {
    q.add_undefined();
  }
  add_if(q, mask[1], q.maybe_tensor(5));
  add_if(q, mask[2], q.maybe_tensor(6));
  return Verdict::Done;
}

// (input, normalized_shape, weight, eps) -> (out, rstd)
Verdict rms_norm(Question& q) {
  const at::Tensor &input = q.tensor(0), &weight = q.maybe_tensor(2);
  const at::DimVector normalized = q.ints(1);
  if (!is_float(input) || !ends_with(input.sizes(), normalized) || !fits(weight, normalized)) return Verdict::Server;
  if (!q.target.server_is_cuda) return Verdict::Dispatcher;
  q.add(input.scalar_type(), input.sizes());
  q.add(accumulated(input), statistics(input, normalized.size()));
  return Verdict::Done;
}

// (grad_out, input, normalized_shape, rstd, weight, output_mask)
Verdict rms_norm_backward(Question& q) {
  if (!q.target.server_is_cuda) return Verdict::Dispatcher;
  const auto mask = q[5].toBoolList();
  if (mask[0]) {
    q.add(q.tensor(1).scalar_type(), q.tensor(1).sizes());
  } else {
    q.add_undefined();
  }
  add_if(q, mask[1], q.maybe_tensor(4));
  return Verdict::Done;
}

at::MemoryFormat format_of(const Question& q, const at::Tensor& t) {
  return q.target.server_is_cuda ? at::MemoryFormat::Contiguous : t.suggest_memory_format();
}

// (input, weight, bias, N, C, HxW, group, eps) -> (out, mean, rstd)
Verdict group_norm(Question& q) {
  const at::Tensor &input = q.tensor(0), &weight = q.maybe_tensor(1), &bias = q.maybe_tensor(2);
  const int64_t n = q.integer(3), channels = q.integer(4), inner = q.integer(5), groups = q.integer(6);
  if (!is_float(input) || groups <= 0 || channels % groups != 0 || input.numel() != n * channels * inner ||
      !fits(weight, {channels}) || !fits(bias, {channels}))
    return Verdict::Server;
  const at::ScalarType stats = parameter_type(input, mixed(input, {&weight, &bias}));
  q.add(input.scalar_type(), input.sizes(), format_of(q, input));
  q.add(stats, {n, groups});
  q.add(stats, {n, groups});
  return Verdict::Done;
}

// (grad_out, input, mean, rstd, weight, N, C, HxW, group, output_mask)
Verdict group_norm_backward(Question& q) {
  const at::Tensor &input = q.tensor(1), &weight = q.maybe_tensor(4);
  const auto mask = q[9].toBoolList();
  if ((mask[1] || mask[2]) && !weight.defined()) return Verdict::Dispatcher;
  if (mask[0]) {
    q.add(input.scalar_type(), input.sizes(), format_of(q, input));
  } else {
    q.add_undefined();
  }
  add_if(q, mask[1], weight);
  add_if(q, mask[2], weight);
  return Verdict::Done;
}

Verdict batch_norm_of(Question& q, const at::Tensor& running_mean, const at::Tensor& running_var, bool training) {
  const at::Tensor &input = q.tensor(0), &weight = q.maybe_tensor(1), &bias = q.maybe_tensor(2);
  if (!is_float(input) || input.dim() < 2) return Verdict::Server;
  const int64_t channels = input.size(1);
  for (const at::Tensor* t : {&weight, &bias, &running_mean, &running_var}) {
    if (!fits(*t, {channels})) return Verdict::Server;
  }
  if (!training && !(running_mean.defined() && running_var.defined())) return Verdict::Server;
  if (q.target.server_is_cuda) {
    q.add_like(input);
    q.add(accumulated(input), {channels});
    q.add(accumulated(input), {channels});
    return Verdict::Done;
  }
  const bool is_mixed = mixed(input, {&weight, &bias, &running_mean, &running_var});
  const at::ScalarType stats = parameter_type(input, is_mixed);
  q.add(input.scalar_type(), input.sizes(), input.suggest_memory_format());
  q.add(stats, {training ? channels : 0});
  q.add(stats, {training ? channels : 0});
  return Verdict::Done;
}

// (input, weight, bias, running_mean, running_var, training, momentum, eps)
Verdict batch_norm(Question& q) { return batch_norm_of(q, q.maybe_tensor(3), q.maybe_tensor(4), q.flag(5)); }

Verdict batch_norm_no_training(Question& q) { return batch_norm_of(q, q.maybe_tensor(3), q.maybe_tensor(4), false); }

// The same with a fourth result, of which cuDNN alone knows the size.
Verdict with_reserve(Question& q, bool training) {
  if (q.target.server_is_cuda) return Verdict::Dispatcher;
  const Verdict verdict = batch_norm_of(q, q.maybe_tensor(3), q.maybe_tensor(4), training);
  q.add(at::kByte, {0});
  return verdict;
}

Verdict batch_norm_with_update(Question& q) { return with_reserve(q, true); }
Verdict batch_norm_no_update(Question& q) { return with_reserve(q, false); }

Verdict batch_norm_no_stats(Question& q) { return batch_norm_of(q, at::Tensor(), at::Tensor(), q.flag(3)); }

// (grad_out, input, weight, running_mean, running_var, save_mean, save_invstd, train, eps, output_mask)
Verdict batch_norm_backward(Question& q) {
  const at::Tensor &input = q.tensor(1), &weight = q.maybe_tensor(2);
  const auto mask = q[9].toBoolList();
  if (input.dim() < 2) return Verdict::Server;
  const at::MemoryFormat format = input.suggest_memory_format();
  at::ScalarType parameters = parameter_type(
      input, mixed(input, {&weight, &q.maybe_tensor(3), &q.maybe_tensor(4), &q.maybe_tensor(5), &q.maybe_tensor(6)}));
  if (q.target.server_is_cuda) parameters = weight.defined() ? weight.scalar_type() : input.scalar_type();
  if (mask[0]) {
    q.add(input.scalar_type(), input.sizes(), format);
  } else {
    q.add_undefined();
  }
  for (size_t i : {1, 2}) {
    if (mask[i]) {
      q.add(parameters, {input.size(1)});
    } else {
      q.add_undefined();
    }
  }
  return Verdict::Done;
}

}  // namespace

void add_norms(Table& table) {
  table.rule("native_layer_norm", "", layer_norm);
  table.rule("native_layer_norm_backward", "", layer_norm_backward);
  table.rule("_fused_rms_norm", "", rms_norm);
  table.rule("_fused_rms_norm_backward", "", rms_norm_backward);
  table.rule("native_group_norm", "", group_norm);
  table.rule("native_group_norm_backward", "", group_norm_backward);
  table.rule("native_batch_norm", "", batch_norm);
  table.rule("_native_batch_norm_legit", "", batch_norm);
  table.rule("_native_batch_norm_legit", "no_stats", batch_norm_no_stats);
  table.rule("_native_batch_norm_legit_no_training", "", batch_norm_no_training);
  table.rule("_batch_norm_with_update", "", batch_norm_with_update);
  table.rule("_batch_norm_no_update", "", batch_norm_no_update);
  table.rule("native_batch_norm_backward", "", batch_norm_backward);
}

}  // namespace skytorch::oracle
