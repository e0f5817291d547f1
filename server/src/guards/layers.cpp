// What else a network is made of: normalisation, embeddings, attention, losses, and the optimizers that train it.
#include <array>

#include "families.h"

namespace skytorch::server {
namespace {

// Batch norm: every statistic is indexed by the channel.
void batch_norm(const CallArguments& a) {
  const at::Tensor& input = a.tensor("input");
  a.require(input.dim() >= 2 && input.numel() > 0, "'input' must have a batch and channels, and elements");
  for (const char* name : {"weight", "bias", "running_mean", "running_var", "save_mean", "save_var", "save_invstd"}) {
    if (!a.has(name) || a.is_out(name)) continue;
    const at::Tensor t = a.maybe(name);
    // In evaluation the forward saves nothing.
    const bool nothing = std::string_view(name).substr(0, 5) == "save_" && t.defined() && t.numel() == 0;
    if (!nothing) a.require_per_channel(name, input.size(1));
  }
  for (const char* name : {"grad_out", "grad_output"}) {
    if (a.has(name)) a.require(same_size(a.tensor(name), input), "the gradient must have the size of 'input'");
  }
  // Which statistics are used: the batch's or the running ones.
  const char* mode = a.has("training") ? "training" : a.has("train") ? "train" : "update";
  const bool of_batch = a.has(mode) ? a.boolean(mode) : !a.has("bias");
  if (!of_batch) {
    a.require(a.has("running_mean") && a.maybe("running_mean").defined() && a.maybe("running_var").defined(),
              "running statistics must be given");
  } else if (a.has("grad_out")) {
    const char* save_var = a.has("save_var") ? "save_var" : "save_invstd";
    a.require(a.maybe("save_mean").defined() && a.maybe("save_mean").numel() > 0 && a.maybe(save_var).defined() &&
                  a.maybe(save_var).numel() > 0,
              "the statistics of the batch must be given");
  }
}

void ctc(const CallArguments& a) {
  const at::Tensor& log_probs = a.tensor("log_probs");
  const at::Tensor& targets = a.tensor("targets");
  a.require(log_probs.dim() == 3 && log_probs.numel() > 0, "'log_probs' must be time, batch and classes");
  const int64_t classes = log_probs.size(2), batch = log_probs.size(1);
  a.require(targets.dim() == 1 || targets.dim() == 2, "'targets' must be a list or a row for each of the batch");
  a.require(a.integer("blank") >= 0 && a.integer("blank") < classes, "'blank' must be a class");
  const bool as_tensors = a.has("input_lengths") && a.is_tensor("input_lengths");
  const auto lengths = [&](std::string_view name, int64_t most) {
    std::vector<int64_t> values;
    if (as_tensors) {
      const at::Tensor t = a.tensor(name).to(at::kCPU, at::kLong).contiguous();
      values.assign(t.const_data_ptr<int64_t>(), t.const_data_ptr<int64_t>() + t.numel());
    } else {
      values = a.ints(name);
    }
    a.require(static_cast<int64_t>(values.size()) == batch, "the lengths must be one for each of the batch");
    for (int64_t value : values) a.require(value >= 0 && value <= most, "a length must be within its data");
    return values;
  };
  lengths("input_lengths", log_probs.size(0));
  const auto target_lengths = lengths("target_lengths", targets.size(-1));
  a.require(targets.dim() == 1 || targets.size(0) == batch, "'targets' must be a row for each of the batch");
  // What lies behind the end of a row is nobody's.
  int64_t begin = 0, longest = 0;
  for (int64_t i = 0; i < batch; ++i) {
    const int64_t length = target_lengths[static_cast<size_t>(i)];
    const at::Tensor row = targets.dim() == 1 ? targets : targets.select(0, i);
    a.require(begin + length <= row.size(0), "'target_lengths' must be within 'targets'");
    a.require_indices("targets", row.narrow(0, begin, length), classes);
    if (targets.dim() == 1) begin += length;
    longest = std::max(longest, length);
  }
  if (!a.has("log_alpha")) return;
  const at::Tensor& alpha = a.tensor("log_alpha");
  a.require(alpha.dim() == 3 && alpha.size(0) == batch && alpha.size(1) == log_probs.size(0) &&
                alpha.size(2) >= 2 * longest + 1,
            "'log_alpha' must be what the forward gave");
  for (const char* name : {"grad", "neg_log_likelihood"}) {
    a.require(a.tensor(name).dim() == 1 && a.tensor(name).size(0) == batch, "one loss for each of the batch");
  }
  for (const char* name : {"grad", "neg_log_likelihood", "log_alpha"}) {
    a.require(a.tensor(name).scalar_type() == log_probs.scalar_type(), "all must have the dtype of 'log_probs'");
  }
}

void fused_fake_quantize(const CallArguments& a) {
  const at::Tensor& self = a.tensor("self");
  a.require(self.numel() > 0, "'self' must have elements");
  int64_t n = 1;
  if (a.boolean("per_row_fake_quant")) {
    const int64_t axis = a.integer("ch_axis");
    a.require(axis >= 0 && axis < self.dim(), "'ch_axis' must be a dimension of 'self'");
    n = self.size(axis);
  }
  for (const char* name : {"running_min", "running_max", "scale", "zero_point"}) {
    a.require(a.tensor(name).numel() == n, "the observer must have one number, or one for each of 'ch_axis'");
    a.require_own_memory(name, a.tensor(name));
  }
}

void embedding_dense_backward(const CallArguments& a) {
  const at::Tensor& grad = a.tensor("grad_output");
  const at::Tensor& indices = a.tensor("indices");
  a.require(grad.dim() == indices.dim() + 1 && leading(grad, 1) == indices.sizes(),
            "'grad_output' must have a row for each index");
  a.require(a.integer("num_weights") >= 0, "'num_weights' must not be negative");
  a.require_indices("indices", a.integer("num_weights"));
}

void embedding_bag(const CallArguments& a) {
  const at::Tensor& weight = a.tensor("weight");
  const at::Tensor& indices = a.tensor("indices");
  const at::Tensor& offsets = a.tensor("offsets");
  a.require(weight.dim() == 2 && indices.dim() == 1 && offsets.dim() == 1,
            "'weight' must be a matrix, 'indices' and 'offsets' lists");
  a.require(a.integer("mode") >= 0 && a.integer("mode") <= 2, "'mode' must be 0, 1 or 2");
  a.require(a.integer("padding_idx") < weight.size(0), "'padding_idx' must be a row of 'weight'");
  a.require_indices("indices", weight.size(0));
  a.require_indices("offsets", indices.numel() + 1);
  const at::Tensor weights = a.maybe("per_sample_weights");
  a.require(!weights.defined() || same_size(weights, indices), "'per_sample_weights' must be one for each index");
}

void embedding_bag_backward(const CallArguments& a) {
  const at::Tensor& indices = a.tensor("indices");
  const at::Tensor& bags = a.tensor("offset2bag");
  const at::Tensor& grad = a.tensor("grad");
  a.require(grad.dim() == 2 && indices.dim() == 1, "'grad' must be a matrix and 'indices' a list");
  a.require(a.integer("mode") >= 0 && a.integer("mode") <= 2, "'mode' must be 0, 1 or 2");
  // Of a sum without padding, the forward leaves it to the backward.
  a.require(bags.numel() == 0 || same_size(bags, indices), "'offset2bag' must be one for each index");
  a.require_indices("offset2bag", grad.size(0));
  const int64_t rows = a.has("num_weights") ? a.integer("num_weights") : a.tensor("weight").size(0);
  a.require_indices("indices", rows);
  if (a.has("offsets")) a.require_indices("offsets", indices.numel() + 1);
  for (const char* name : {"bag_size", "_bag_size"}) {
    if (a.has(name)) {
      const at::Tensor& size = a.tensor(name);
      a.require(size.numel() == 0 || size.numel() >= grad.size(0), "'bag_size' must be one for each bag");
    }
  }
  if (a.has("maximum_indices")) {
    const at::Tensor& maximum = a.tensor("maximum_indices");
    a.require(a.integer("mode") != 2 || same_size(maximum, grad), "'maximum_indices' must be one for each maximum");
    if (a.integer("mode") == 2 && maximum.is_cpu() && maximum.numel() > 0) {
      a.require(maximum.max().item<int64_t>() < rows && maximum.min().item<int64_t>() >= -1,
                "'maximum_indices' must be rows");
    }
  }
  if (a.has("per_sample_weights")) {
    const at::Tensor weights = a.maybe("per_sample_weights");
    a.require(!weights.defined() || same_size(weights, indices), "'per_sample_weights' must be one for each index");
  }
  if (a.has("weight")) {
    const at::Tensor& weight = a.tensor("weight");
    a.require(weight.dim() == 2 && weight.size(1) == grad.size(1), "'weight' must be rows like those of 'grad'");
  }
}

// Every tensor of every list is walked with the element count of the parameter's.
void fused_optimizer(const CallArguments& a) {
  const auto params = a.tensors("self");
  a.require(!params.empty(), "the lists must not be empty");
  for (const char* name :
       {"grads", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "state_sums", "momentum_buffer_list"}) {
    if (!a.has(name)) continue;
    const auto list = a.tensors(name);
    if (list.empty() && std::string_view(name)[0] == 'm') continue;  // amsgrad and momentum may be off
    require_same_lengths(a, name, params.size());
    for (size_t i = 0; i < list.size(); ++i) {
      a.require(list[i].numel() == params[i].numel(), "the tensors must have the sizes of the parameters");
      a.require(list[i].scalar_type() == params[i].scalar_type(),
                "the tensors must have the dtypes of the parameters");
      a.require_own_memory(name, list[i]);
    }
  }
  for (const at::Tensor& param : params) a.require_own_memory("self", param);
  if (a.has("state_steps")) {
    require_same_lengths(a, "state_steps", params.size());
    for (const at::Tensor& step : a.tensors("state_steps")) a.require(step.numel() > 0, "a step must be a number");
  }
  for (const char* name : {"grad_scale", "found_inf", "lr"}) {
    if (!a.has(name) || !a.is_tensor(name)) continue;
    const at::Tensor t = a.maybe(name);
    a.require(!t.defined() || t.numel() > 0, "a factor must be a number");
  }
}

void softmax_backward(const CallArguments& a) {
  a.require(same_size(a.tensor("grad_output"), a.tensor("output")), "'grad_output' must have the size of 'output'");
}

void gelu_backward(const CallArguments& a) {
  a.require(same_size(a.tensor("grad_output"), a.tensor("self")), "'grad_output' must have the size of 'self'");
}

// With an integer `beta` that is rounded to none.
void smooth_l1_backward(const CallArguments& a) {
  a.require(!c10::isIntegralType(a.tensor("self").scalar_type(), true), "'self' must not be integers");
}

void masked_softmax(const CallArguments& a) {
  a.require(a.tensor("self").numel() > 0, "'self' must have elements");
  if (!a.given("mask_type")) return;
  a.require(a.integer("mask_type") >= 0 && a.integer("mask_type") <= 2, "'mask_type' must be 0, 1 or 2");
}

void masked_softmax_backward(const CallArguments& a) {
  softmax_backward(a);
  a.require(same_size(a.tensor("mask"), a.tensor("output")), "'mask' must have the size of 'output'");
}

// Attention: batch, heads, sequence and features, of each.
void attention(const CallArguments& a) {
  const at::Tensor& q = a.tensor("query");
  const at::Tensor& k = a.tensor("key");
  const at::Tensor& v = a.tensor("value");
  for (const at::Tensor* t : {&q, &k, &v}) {
    a.require(t->dim() == 4 && t->numel() > 0 && t->scalar_type() == q.scalar_type() && t->size(0) == q.size(0),
              "'query', 'key' and 'value' must be four-dimensional, of one batch and dtype");
  }
  a.require(k.size(1) == v.size(1) && q.size(1) % k.size(1) == 0 && k.size(2) == v.size(2) && q.size(3) == k.size(3),
            "'key' must fit 'query', and 'value' must fit 'key'");
  const std::vector<int64_t> scores{q.size(0), q.size(1), q.size(2), k.size(2)};
  const at::Tensor mask = a.maybe("attn_mask");
  if (mask.defined()) {
    a.require(mask.dim() == 2 || mask.dim() == 4, "'attn_mask' must be a matrix or four-dimensional");
    for (int64_t d = 1; d <= mask.dim(); ++d) {
      a.require(mask.size(-d) == 1 || mask.size(-d) == scores[static_cast<size_t>(4 - d)],
                "'attn_mask' must fit the scores");
    }
  }
  // Without a gradient there is nothing to do, and torch does nothing.
  if (!a.has("grad_out") || !a.maybe("grad_out").defined()) return;
  const std::vector<int64_t> sizes{q.size(0), q.size(1), q.size(2), v.size(3)};
  for (const char* name : {"grad_out", "out"}) {
    a.require(a.tensor(name).sizes() == at::IntArrayRef(sizes) && a.tensor(name).scalar_type() == q.scalar_type(),
              "'grad_out' and 'out' must have the size of the result");
  }
  a.require(a.tensor("logsumexp").sizes() == at::IntArrayRef(sizes).slice(0, 3),
            "'logsumexp' must be what the forward gave");
}

void weight_norm(const CallArguments& a) {
  const bool backward = a.has("saved_v");
  const at::Tensor& v = a.tensor(backward ? "saved_v" : "v");
  const int64_t dim = a.integer("dim");
  a.require(v.dim() >= 1 && v.numel() > 0 && (dim == 0 || dim == v.dim() - 1), "'dim' must be the first or the last");
  std::vector<int64_t> norms(static_cast<size_t>(v.dim()), 1);
  norms[static_cast<size_t>(dim)] = v.size(dim);
  a.require(a.tensor(backward ? "saved_g" : "g").sizes() == at::IntArrayRef(norms),
            "'g' must be one number for each of 'dim'");
  a.require(v.is_contiguous() && a.tensor(backward ? "saved_g" : "g").is_contiguous(), "all must be contiguous");
  if (!backward) return;
  a.require(a.tensor("grad_w").is_contiguous() && a.tensor("saved_norms").is_contiguous(), "all must be contiguous");
  a.require(same_size(a.tensor("grad_w"), v), "'grad_w' must have the size of 'saved_v'");
  a.require(a.tensor("saved_norms").sizes() == at::IntArrayRef(norms), "'saved_norms' must be what the forward gave");
}

void rrelu(const CallArguments& a) {
  const at::Tensor& noise = a.tensor("noise");
  a.require(noise.numel() == a.tensor("self").numel(), "'noise' must have the size of 'self'");
  a.require_own_memory("noise", noise);
  a.require(!a.has("out") || same_size(a.tensor("out"), a.tensor("self")), "'out' must have the size of 'self'");
}

constexpr std::array kLayerGuards = {
    GuardEntry{"aten::native_batch_norm", batch_norm},
    GuardEntry{"aten::native_batch_norm_backward", batch_norm},
    GuardEntry{"aten::_native_batch_norm_legit", batch_norm},
    GuardEntry{"aten::_native_batch_norm_legit_functional", batch_norm},
    GuardEntry{"aten::_native_batch_norm_legit_no_training", batch_norm},
    GuardEntry{"aten::_batch_norm_with_update", batch_norm},
    GuardEntry{"aten::_batch_norm_with_update_functional", batch_norm},
    GuardEntry{"aten::_batch_norm_no_update", batch_norm},
    GuardEntry{"aten::batch_norm_backward", batch_norm},
    GuardEntry{"aten::batch_norm_update_stats", batch_norm},
    GuardEntry{"aten::_ctc_loss", ctc},
    GuardEntry{"aten::_ctc_loss_backward", ctc},
    GuardEntry{"aten::_fused_moving_avg_obs_fq_helper", fused_fake_quantize},
    GuardEntry{"aten::_fused_moving_avg_obs_fq_helper_functional", fused_fake_quantize},
    GuardEntry{"aten::embedding_dense_backward", embedding_dense_backward},
    GuardEntry{"aten::_embedding_bag", embedding_bag},
    GuardEntry{"aten::_embedding_bag_forward_only", embedding_bag},
    GuardEntry{"aten::_embedding_bag_dense_backward", embedding_bag_backward},
    GuardEntry{"aten::_embedding_bag_per_sample_weights_backward", embedding_bag_backward},
    GuardEntry{"aten::_fused_adam", fused_optimizer},
    GuardEntry{"aten::_fused_adam_", fused_optimizer},
    GuardEntry{"aten::_fused_adamw", fused_optimizer},
    GuardEntry{"aten::_fused_adamw_", fused_optimizer},
    GuardEntry{"aten::_fused_sgd", fused_optimizer},
    GuardEntry{"aten::_fused_sgd_", fused_optimizer},
    GuardEntry{"aten::_fused_adagrad", fused_optimizer},
    GuardEntry{"aten::_fused_adagrad_", fused_optimizer},
    GuardEntry{"aten::_softmax_backward_data", softmax_backward},
    GuardEntry{"aten::_log_softmax_backward_data", softmax_backward},
    GuardEntry{"aten::_masked_softmax", masked_softmax},
    GuardEntry{"aten::_masked_softmax_backward", masked_softmax_backward},
    GuardEntry{"aten::_scaled_dot_product_flash_attention_for_cpu", attention},
    GuardEntry{"aten::_scaled_dot_product_flash_attention_for_cpu_backward", attention},
    GuardEntry{"aten::smooth_l1_loss_backward", smooth_l1_backward},
    GuardEntry{"aten::gelu_backward", gelu_backward},
    GuardEntry{"aten::_weight_norm_interface", weight_norm},
    GuardEntry{"aten::_weight_norm_interface_backward", weight_norm},
    GuardEntry{"aten::rrelu_with_noise", rrelu},
    GuardEntry{"aten::rrelu_with_noise_", rrelu},
    GuardEntry{"aten::rrelu_with_noise_functional", rrelu},
};

}  // namespace

c10::ArrayRef<GuardEntry> layer_guards() { return kLayerGuards; }

}  // namespace skytorch::server
