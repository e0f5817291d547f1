// Convolutions and their backwards, under all the names by which they arrive.
// The result is channels-last where the input or the weight is, as oneDNN and cuDNN both have it.
#include <optional>

#include "table.h"

namespace skytorch::oracle {
namespace {

// The arguments from the stride on, at their position in the schema.
struct Parameters {
  Parameters(const Question& q, size_t at, size_t spatial)
      : stride(wide(q.ints(at), spatial)),
        padding(wide(q.ints(at + 1), spatial)),
        dilation(wide(q.ints(at + 2), spatial)),
        transposed(q.flag(at + 3)),
        output_padding(wide(q.ints(at + 4), spatial)),
        groups(q.integer(at + 5)) {}
  // One number stands for all dimensions.
  static at::DimVector wide(at::DimVector v, size_t spatial) {
    if (v.size() == 1) v.resize(spatial, v[0]);
    return v;
  }
  bool valid(size_t spatial) const {
    for (const at::DimVector* v : {&stride, &padding, &dilation}) {
      if (v->size() != spatial) return false;
    }
    if (transposed && output_padding.size() != spatial) return false;
    for (size_t i = 0; i < spatial; ++i) {
      if (stride[i] <= 0 || padding[i] < 0 || dilation[i] <= 0) return false;
      if (transposed && output_padding[i] < 0) return false;
    }
    return groups > 0;
  }
  at::DimVector stride, padding, dilation;
  bool transposed;
  at::DimVector output_padding;
  int64_t groups;
};

at::MemoryFormat format_of(const at::Tensor& input, const at::Tensor& weight) {
  for (const auto format : {at::MemoryFormat::ChannelsLast, at::MemoryFormat::ChannelsLast3d}) {
    const int64_t rank = format == at::MemoryFormat::ChannelsLast ? 4 : 5;
    if (input.dim() != rank || weight.dim() != rank) continue;
    if (input.suggest_memory_format() == format || weight.suggest_memory_format() == format) return format;
  }
  return at::MemoryFormat::Contiguous;
}

std::optional<at::DimVector> output_sizes(const at::Tensor& input, const at::Tensor& weight, const Parameters& p) {
  const size_t spatial = static_cast<size_t>(input.dim()) - 2;
  at::DimVector sizes{input.size(0)};
  if (p.transposed) {
    if (input.size(1) != weight.size(0) || weight.size(0) % p.groups != 0) return std::nullopt;
    sizes.push_back(weight.size(1) * p.groups);
  } else {
    if (input.size(1) != weight.size(1) * p.groups || weight.size(0) % p.groups != 0) return std::nullopt;
    sizes.push_back(weight.size(0));
  }
  for (size_t i = 0; i < spatial; ++i) {
    const int64_t n = input.size(static_cast<int64_t>(i) + 2), k = weight.size(static_cast<int64_t>(i) + 2);
    const int64_t reach = p.dilation[i] * (k - 1) + 1;
    if (k <= 0) return std::nullopt;
    int64_t out = 0;
    if (p.transposed) {
      out = (n - 1) * p.stride[i] - 2 * p.padding[i] + reach + p.output_padding[i];
      if (p.output_padding[i] >= std::max(p.stride[i], p.dilation[i])) return std::nullopt;
    } else {
      if (n + 2 * p.padding[i] < reach) return std::nullopt;
      out = (n + 2 * p.padding[i] - reach) / p.stride[i] + 1;
    }
    if (out < 0) return std::nullopt;
    sizes.push_back(out);
  }
  return sizes;
}

bool usable(const at::Tensor& input, const at::Tensor& weight) {
  return input.dim() >= 3 && input.dim() <= 5 && weight.dim() == input.dim() &&
         input.scalar_type() == weight.scalar_type();
}

// (input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
Verdict convolution(Question& q) {
  const at::Tensor &input = q.tensor(0), &weight = q.tensor(1), &bias = q.maybe_tensor(2);
  if (!usable(input, weight)) return Verdict::Server;
  const size_t spatial = static_cast<size_t>(input.dim()) - 2;
  const Parameters p(q, 3, spatial);
  if (!p.valid(spatial)) return Verdict::Server;
  const auto sizes = output_sizes(input, weight, p);
  if (!sizes) return Verdict::Server;
  if (bias.defined() && (bias.dim() != 1 || bias.size(0) != (*sizes)[1] || bias.scalar_type() != input.scalar_type()))
    return Verdict::Server;
  q.add(input.scalar_type(), *sizes, format_of(input, weight));
  return Verdict::Done;
}

// `mask` is the position of output_mask; the gradients are those of input, weight and bias.
Verdict gradients(Question& q, size_t mask_position) {
  const at::Tensor &grad = q.tensor(0), &input = q.tensor(1), &weight = q.tensor(2);
  if (!usable(input, weight) || grad.dim() != input.dim()) return Verdict::Server;
  const auto mask = q[mask_position].toBoolList();
  const at::MemoryFormat format = format_of(input, weight);
  for (size_t i : {0, 1}) {
    const at::Tensor& of = i == 0 ? input : weight;
    if (mask[i]) {
      q.add(of.scalar_type(), of.sizes(), format);
    } else {
      q.add_undefined();
    }
  }
  if (mask[2]) {
    q.add(weight.scalar_type(), {grad.size(1)});
  } else {
    q.add_undefined();
  }
  return Verdict::Done;
}

// (grad_output, input, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups,
// output_mask)
Verdict backward(Question& q) { return gradients(q, 10); }

// The same without bias_sizes.
Verdict overrideable_backward(Question& q) { return gradients(q, 9); }

}  // namespace

void add_convolution(Table& table) {
  for (const char* name : {"convolution", "convolution_overrideable", "_convolution"})
    table.rule(name, "", convolution);
  table.rule("convolution_backward", "", backward);
  table.rule("convolution_backward_overrideable", "", overrideable_backward);
}

}  // namespace skytorch::oracle
