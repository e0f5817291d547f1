// One guard per family, and the table. Each was found by tests/fuzz/sessions.py or by calling every operator with
// hostile arguments: torch reads or writes outside of a storage, divides by zero or never comes back without it.
#include "op_guards.h"

#include <array>
#include <cmath>

namespace skytorch::server {
namespace {

using Sizes = at::IntArrayRef;

// Far above what a program asks for, far below what takes for ever.
constexpr int64_t kMaxDegree = int64_t{1} << 20;
constexpr uint64_t kMaxOutputs = uint64_t{1} << 32;

bool same_size(const at::Tensor& a, const at::Tensor& b) { return a.sizes() == b.sizes(); }

// The first sizes of `a`, without the last `k`.
Sizes leading(const at::Tensor& a, int64_t k) { return a.sizes().slice(0, static_cast<size_t>(a.dim() - k)); }

int64_t last_numel(const at::Tensor& a, int64_t k) { return c10::multiply_integers(a.sizes().slice(a.dim() - k)); }

// The gradient of an operator that changes only the last `k` sizes of `self`, which come after channels and perhaps a
// batch.
void require_image_gradient(const CallArguments& a, int64_t k) {
  const at::Tensor& self = a.tensor("self");
  a.require(self.dim() == k + 1 || self.dim() == k + 2,
            "'self' must have channels and perhaps a batch before its sides");
  const at::Tensor& grad = a.tensor("grad_output");
  a.require(grad.dim() == self.dim() && leading(grad, k) == leading(self, k), "'grad_output' must fit 'self'");
}

void require_same_lengths(const CallArguments& a, std::string_view name, size_t n) {
  a.require(a.tensors(name).size() == n, "the lists must have the same length");
}

// fft: the dimensions are looked up unchecked, and the last one is where half of the values are.
void fft(const CallArguments& a) {
  const at::Tensor& self = a.tensor("self");
  a.require_dims("dim", self);
  const auto dims = a.ints("dim");
  a.require(a.integer("normalization") >= 0 && a.integer("normalization") <= 2, "'normalization' must be 0, 1 or 2");
  for (int64_t d : dims) a.require(self.size(d) > 0, "the sides of 'dim' must not be empty");
  const bool to_real = a.has("last_dim_size");
  a.require(!a.has("out") || a.tensor("out").scalar_type() == (to_real ? c10::toRealValueType(self.scalar_type())
                                                                       : c10::toComplexType(self.scalar_type())),
            "'out' must have the dtype of the result");
  if (a.has("onesided") || to_real) a.require(!dims.empty(), "'dim' must not be empty");
  if (to_real) {
    const int64_t last = a.integer("last_dim_size");
    a.require(last >= 1 && self.size(dims.back()) >= last / 2 + 1, "'last_dim_size' must fit 'self'");
  }
}

// Padding, backward: the gradient has the size of what the forward gave.
template <int64_t k>
void pad_backward(const CallArguments& a) {
  constexpr int64_t kMaxPad = int64_t{1} << 40;
  require_image_gradient(a, k);
  const at::Tensor& self = a.tensor("self");
  const at::Tensor& grad = a.tensor("grad_output");
  const auto padding = a.ints("padding");
  a.require(padding.size() == 2 * k, "'padding' must have two numbers for each side");
  for (int64_t i = 0; i < k; ++i) {
    const int64_t before = padding[2 * i], after = padding[2 * i + 1];
    a.require(std::abs(before / 2) < kMaxPad && std::abs(after / 2) < kMaxPad, "'padding' must be small");
    a.require(grad.size(-1 - i) == self.size(-1 - i) + before + after, "'grad_output' must fit 'self' and 'padding'");
  }
}

// Pooling that remembers where its values came from, backward: each index is a place in an image of `self`.
template <int64_t k>
void pool_with_indices_backward(const CallArguments& a) {
  require_image_gradient(a, k);
  const at::Tensor& self = a.tensor("self");
  const at::Tensor& grad = a.tensor("grad_output");
  a.require(same_size(grad, a.tensor("indices")), "'indices' must have the size of 'grad_output'");
  a.require(a.tensor("indices").scalar_type() == at::kLong, "'indices' must be int64");
  a.require_indices("indices", last_numel(self, k));
  if (a.has("kernel_size")) {
    const size_t n = a.ints("kernel_size").size();
    a.require(n == 1 || n == k, "'kernel_size' must have one number for each side");
  }
  if (a.has("output_size")) {
    a.require(Sizes(a.ints("output_size")) == grad.sizes().slice(grad.dim() - k),
              "'output_size' must be the gradient's");
  }
}

template <int64_t k>
void adaptive_pool_backward(const CallArguments& a) {
  require_image_gradient(a, k);
  const at::Tensor& self = a.tensor("self");
  const at::Tensor& grad = a.tensor("grad_output");
  a.require(grad.scalar_type() == self.scalar_type(), "'grad_output' must have the dtype of 'self'");
}

// An output without elements is walked over all the same.
void adaptive_pool(const CallArguments& a) {
  uint64_t n = 1;
  for (int64_t size : a.ints("output_size")) {
    a.require(size >= 0 && static_cast<uint64_t>(size) <= kMaxOutputs, "'output_size' must not be negative or huge");
    n *= std::max<uint64_t>(static_cast<uint64_t>(size), 1);
    a.require(n <= kMaxOutputs, "'output_size' must not be huge");
  }
}

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

void cdist_backward(const CallArguments& a) {
  const at::Tensor& x1 = a.tensor("x1");
  const at::Tensor& x2 = a.tensor("x2");
  a.require(x1.dim() >= 2 && x2.dim() >= 2 && x1.size(-1) == x2.size(-1), "'x1' and 'x2' must be rows of one length");
  auto sizes = at::infer_size(leading(x1, 2), leading(x2, 2));
  sizes.push_back(x1.size(-2));
  sizes.push_back(x2.size(-2));
  a.require(a.tensor("grad_output").sizes() == Sizes(sizes) && a.tensor("cdist").sizes() == Sizes(sizes),
            "'grad_output' and 'cdist' must have the size of the distances");
}

void pdist_backward(const CallArguments& a) {
  const at::Tensor& self = a.tensor("self");
  a.require(self.dim() == 2, "'self' must be a matrix");
  const int64_t n = self.size(0) * std::max<int64_t>(self.size(0) - 1, 0) / 2;
  for (const char* name : {"grad_output", "pdist"}) {
    a.require(a.tensor(name).dim() == 1 && a.tensor(name).size(0) == n,
              "'grad_output' and 'pdist' are one number per pair");
  }
}

void chunk_cat(const CallArguments& a) {
  const int64_t dim = a.integer("dim");
  for (const at::Tensor& t : a.tensors("tensors")) {
    a.require(dim >= -t.dim() && dim < t.dim(), "'dim' must be one of every tensor");
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
  if (!a.has("grad_out")) return;
  const std::vector<int64_t> sizes{q.size(0), q.size(1), q.size(2), v.size(3)};
  for (const char* name : {"grad_out", "out"}) {
    a.require(a.tensor(name).sizes() == Sizes(sizes) && a.tensor(name).scalar_type() == q.scalar_type(),
              "'grad_out' and 'out' must have the size of the result");
  }
  a.require(a.tensor("logsumexp").sizes() == Sizes(sizes).slice(0, 3), "'logsumexp' must be what the forward gave");
}

// A scale says how much larger the output is, and is believed.
void antialiased(const CallArguments& a) {
  const auto output = a.ints("output_size");
  const bool backward = a.has("input_size");
  const auto input = backward ? a.ints("input_size") : a.tensor("self").sizes().vec();
  a.require(output.size() == 2 && input.size() == 4, "an image has a batch, channels and two sides");
  for (size_t side = 0; side < 2; ++side) {
    const char* name = side == 0 ? "scales_h" : "scales_w";
    if (!a.given(name)) continue;
    const double scaled = static_cast<double>(input[2 + side]) * a.real(name);
    a.require(std::abs(scaled - static_cast<double>(output[side])) <= 1 + scaled / 2,
              "the scales must be what 'output_size' is of the input");
  }
}

void weight_norm(const CallArguments& a) {
  const bool backward = a.has("saved_v");
  const at::Tensor& v = a.tensor(backward ? "saved_v" : "v");
  const int64_t dim = a.integer("dim");
  a.require(v.dim() >= 1 && v.numel() > 0 && (dim == 0 || dim == v.dim() - 1), "'dim' must be the first or the last");
  std::vector<int64_t> norms(static_cast<size_t>(v.dim()), 1);
  norms[static_cast<size_t>(dim)] = v.size(dim);
  a.require(a.tensor(backward ? "saved_g" : "g").sizes() == Sizes(norms), "'g' must be one number for each of 'dim'");
  a.require(v.is_contiguous() && a.tensor(backward ? "saved_g" : "g").is_contiguous(), "all must be contiguous");
  if (!backward) return;
  a.require(a.tensor("grad_w").is_contiguous() && a.tensor("saved_norms").is_contiguous(), "all must be contiguous");
  a.require(same_size(a.tensor("grad_w"), v), "'grad_w' must have the size of 'saved_v'");
  a.require(a.tensor("saved_norms").sizes() == Sizes(norms), "'saved_norms' must be what the forward gave");
}

// Its slices of one address are partitioned as if they had one for each element.
void selection(const CallArguments& a) {
  if (a.has("self")) a.require_own_memory("self", a.tensor("self"));
}

void rrelu(const CallArguments& a) {
  const at::Tensor& noise = a.tensor("noise");
  a.require(noise.numel() == a.tensor("self").numel(), "'noise' must have the size of 'self'");
  a.require_own_memory("noise", noise);
  a.require(!a.has("out") || same_size(a.tensor("out"), a.tensor("self")), "'out' must have the size of 'self'");
}

// Written as if all batch dimensions were one.
void triangle(const CallArguments& a) {
  if (!a.has("out")) return;
  a.require(a.tensor("out").dim() <= 3 || a.tensor("out").is_contiguous(), "'out' must be contiguous");
}

// A recurrence of `n` steps for each element.
void polynomial(const CallArguments& a) {
  if (!a.is_tensor("n")) {
    a.require(!(a.scalar("n").toDouble() > static_cast<double>(kMaxDegree)), "'n' must not be huge");
    return;
  }
  const at::Tensor& n = a.tensor("n");
  if (n.is_cpu() && n.numel() > 0 && !n.is_complex()) {
    a.require(!n.gt(kMaxDegree).any().item<bool>(), "'n' must not be huge");
  }
}

// Walks up to zero in steps of one.
void zeta(const CallArguments& a) {
  const char* name = a.has("other") ? "other" : "self";
  constexpr std::string_view what = "the fractions must not be far below zero";
  if (!a.is_tensor(name)) {
    const double x = a.scalar(name).toDouble();
    a.require(!(x < -static_cast<double>(kMaxDegree) && x != std::floor(x)), what);
    return;
  }
  const at::Tensor& x = a.tensor(name);
  if (!x.is_cpu() || !x.is_floating_point()) return;
  a.require(!x.lt(-kMaxDegree).logical_and_(x.ne(x.floor())).any().item<bool>(), what);
}

// The end of the range is looked for one power of two at a time, in numbers that wrap.
void random_from(const CallArguments& a) {
  for (const char* name : {"from", "to"}) {
    if (!a.has(name) || !a.given(name)) continue;
    const int64_t bound = a.integer(name);
    a.require(bound > INT64_MIN + 1 && bound < INT64_MAX, "the bounds must be within int64");
  }
}

// A step that is rounded to none.
void range(const CallArguments& a) {
  if (!a.has("step")) return;
  const bool has_dtype = !a.has("out") && a.given("dtype");
  const at::ScalarType dtype = a.has("out") ? a.tensor("out").scalar_type()
                               : has_dtype  ? a.dtype("dtype")
                                            : at::kFloat;
  a.require(!c10::isIntegralType(dtype, true) || std::abs(a.scalar("step").toDouble()) >= 1.0,
            "'step' must not be less than one for integers");
}

void new_zeros_like_tangent(const CallArguments& a) {
  const int64_t n = a.integer("self_num_batch_dims");
  a.require(n >= 0 && n <= a.tensor("self").dim(), "'self_num_batch_dims' must be dimensions of 'self'");
}

void foreach_copy(const CallArguments& a) {
  a.require(!a.tensors("self").empty(), "the lists must not be empty");
  require_same_lengths(a, "src", a.tensors("self").size());
}

// LAPACK's eigenvalues of what is no number.
void eigenvalues(const CallArguments& a) {
  const at::Tensor& self = a.tensor("self");
  a.require(!self.is_cpu() || self.isfinite().all().item<bool>(), "'self' must be finite");
}

struct Entry {
  std::string_view name;  // without the overload
  Guard guard;
};

constexpr std::array kEntries = {
    Entry{"aten::_fft_c2c", fft},
    Entry{"aten::_fft_c2r", fft},
    Entry{"aten::_fft_r2c", fft},
    Entry{"aten::reflection_pad1d_backward", pad_backward<1>},
    Entry{"aten::reflection_pad2d_backward", pad_backward<2>},
    Entry{"aten::reflection_pad3d_backward", pad_backward<3>},
    Entry{"aten::replication_pad1d_backward", pad_backward<1>},
    Entry{"aten::replication_pad2d_backward", pad_backward<2>},
    Entry{"aten::replication_pad3d_backward", pad_backward<3>},
    Entry{"aten::max_pool2d_with_indices_backward", pool_with_indices_backward<2>},
    Entry{"aten::max_pool3d_with_indices_backward", pool_with_indices_backward<3>},
    Entry{"aten::fractional_max_pool2d_backward", pool_with_indices_backward<2>},
    Entry{"aten::fractional_max_pool3d_backward", pool_with_indices_backward<3>},
    Entry{"aten::adaptive_max_pool2d_backward", pool_with_indices_backward<2>},
    Entry{"aten::adaptive_max_pool3d_backward", pool_with_indices_backward<3>},
    Entry{"aten::_adaptive_avg_pool2d_backward", adaptive_pool_backward<2>},
    Entry{"aten::_adaptive_avg_pool3d_backward", adaptive_pool_backward<3>},
    Entry{"aten::adaptive_avg_pool3d_backward", adaptive_pool_backward<3>},
    Entry{"aten::adaptive_avg_pool2d", adaptive_pool},
    Entry{"aten::adaptive_avg_pool3d", adaptive_pool},
    Entry{"aten::_adaptive_avg_pool2d", adaptive_pool},
    Entry{"aten::_adaptive_avg_pool3d", adaptive_pool},
    Entry{"aten::adaptive_max_pool2d", adaptive_pool},
    Entry{"aten::adaptive_max_pool3d", adaptive_pool},
    Entry{"aten::native_batch_norm", batch_norm},
    Entry{"aten::native_batch_norm_backward", batch_norm},
    Entry{"aten::_native_batch_norm_legit", batch_norm},
    Entry{"aten::_native_batch_norm_legit_functional", batch_norm},
    Entry{"aten::_native_batch_norm_legit_no_training", batch_norm},
    Entry{"aten::_batch_norm_with_update", batch_norm},
    Entry{"aten::_batch_norm_with_update_functional", batch_norm},
    Entry{"aten::_batch_norm_no_update", batch_norm},
    Entry{"aten::batch_norm_backward", batch_norm},
    Entry{"aten::batch_norm_update_stats", batch_norm},
    Entry{"aten::_cdist_backward", cdist_backward},
    Entry{"aten::_pdist_backward", pdist_backward},
    Entry{"aten::_chunk_cat", chunk_cat},
    Entry{"aten::_ctc_loss", ctc},
    Entry{"aten::_ctc_loss_backward", ctc},
    Entry{"aten::_fused_moving_avg_obs_fq_helper", fused_fake_quantize},
    Entry{"aten::_fused_moving_avg_obs_fq_helper_functional", fused_fake_quantize},
    Entry{"aten::embedding_dense_backward", embedding_dense_backward},
    Entry{"aten::_embedding_bag", embedding_bag},
    Entry{"aten::_embedding_bag_forward_only", embedding_bag},
    Entry{"aten::_embedding_bag_dense_backward", embedding_bag_backward},
    Entry{"aten::_embedding_bag_per_sample_weights_backward", embedding_bag_backward},
    Entry{"aten::_fused_adam", fused_optimizer},
    Entry{"aten::_fused_adam_", fused_optimizer},
    Entry{"aten::_fused_adamw", fused_optimizer},
    Entry{"aten::_fused_adamw_", fused_optimizer},
    Entry{"aten::_fused_sgd", fused_optimizer},
    Entry{"aten::_fused_sgd_", fused_optimizer},
    Entry{"aten::_fused_adagrad", fused_optimizer},
    Entry{"aten::_fused_adagrad_", fused_optimizer},
    Entry{"aten::_softmax_backward_data", softmax_backward},
    Entry{"aten::_log_softmax_backward_data", softmax_backward},
    Entry{"aten::_masked_softmax", masked_softmax},
    Entry{"aten::_masked_softmax_backward", masked_softmax_backward},
    Entry{"aten::_scaled_dot_product_flash_attention_for_cpu", attention},
    Entry{"aten::_scaled_dot_product_flash_attention_for_cpu_backward", attention},
    Entry{"aten::_upsample_bilinear2d_aa", antialiased},
    Entry{"aten::_upsample_bilinear2d_aa_backward", antialiased},
    Entry{"aten::_upsample_bicubic2d_aa", antialiased},
    Entry{"aten::_upsample_bicubic2d_aa_backward", antialiased},
    Entry{"aten::_upsample_lanczos2d_aa", antialiased},
    Entry{"aten::_upsample_lanczos2d_aa_backward", antialiased},
    Entry{"aten::smooth_l1_loss_backward", smooth_l1_backward},
    Entry{"aten::gelu_backward", gelu_backward},
    Entry{"aten::_linalg_eigvals", eigenvalues},
    Entry{"aten::linalg_eigvals", eigenvalues},
    Entry{"aten::linalg_eig", eigenvalues},
    Entry{"aten::_weight_norm_interface", weight_norm},
    Entry{"aten::_weight_norm_interface_backward", weight_norm},
    Entry{"aten::median", selection},
    Entry{"aten::nanmedian", selection},
    Entry{"aten::rrelu_with_noise", rrelu},
    Entry{"aten::rrelu_with_noise_", rrelu},
    Entry{"aten::rrelu_with_noise_functional", rrelu},
    Entry{"aten::triu", triangle},
    Entry{"aten::tril", triangle},
    Entry{"aten::random", random_from},
    Entry{"aten::random_", random_from},
    Entry{"aten::range", range},
    Entry{"aten::polygamma", zeta},
    Entry{"aten::polygamma_", zeta},
    Entry{"aten::special_zeta", zeta},
    Entry{"aten::_new_zeros_with_same_feature_meta", new_zeros_like_tangent},
    Entry{"aten::_foreach_copy", foreach_copy},
    Entry{"aten::_foreach_copy_", foreach_copy},
    Entry{"aten::special_chebyshev_polynomial_t", polynomial},
    Entry{"aten::special_chebyshev_polynomial_u", polynomial},
    Entry{"aten::special_chebyshev_polynomial_v", polynomial},
    Entry{"aten::special_chebyshev_polynomial_w", polynomial},
    Entry{"aten::special_shifted_chebyshev_polynomial_t", polynomial},
    Entry{"aten::special_shifted_chebyshev_polynomial_u", polynomial},
    Entry{"aten::special_shifted_chebyshev_polynomial_v", polynomial},
    Entry{"aten::special_shifted_chebyshev_polynomial_w", polynomial},
    Entry{"aten::special_hermite_polynomial_h", polynomial},
    Entry{"aten::special_hermite_polynomial_he", polynomial},
    Entry{"aten::special_laguerre_polynomial_l", polynomial},
    Entry{"aten::special_legendre_polynomial_p", polynomial},
};

}  // namespace

Guard guard_of(std::string_view base) {
  for (const Entry& entry : kEntries) {
    if (entry.name == base) return entry.guard;
  }
  return nullptr;
}

}  // namespace skytorch::server
