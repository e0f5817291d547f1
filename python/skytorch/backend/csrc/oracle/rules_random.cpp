// Operators that fill their argument (random numbers, constants, copies), and the random ones that do not.
// What they write is not a question of shape; only the argument's geometry is given back.
#include <ATen/ExpandUtils.h>

#include "table.h"

namespace skytorch::oracle {
namespace {

Verdict keep_self(Question& q) {
  const at::Tensor& self = q.tensor(0);
  q.add(self.scalar_type(), self.sizes(), self.strides());
  return Verdict::Done;
}

// Argument 1 has to expand to argument 0.
Verdict keep_self_expanding(Question& q) {
  if (!at::is_expandable_to(q.tensor(1).sizes(), q.tensor(0).sizes())) return Verdict::Server;
  return keep_self(q);
}

Verdict keep_self_with_mask(Question& q) {
  return q.tensor(1).scalar_type() == at::kBool ? keep_self_expanding(q) : Verdict::Server;
}

Verdict keep_self_with_value(Question& q) { return q.tensor(1).dim() == 0 ? keep_self(q) : Verdict::Server; }

// dropout: the result and the mask.
Verdict native_dropout(Question& q) {
  q.add_like(q.tensor(0));
  q.add_like(q.tensor(0), at::kBool);
  return Verdict::Done;
}

double number(const Question& q, size_t i) { return q[i].toScalar().toDouble(); }

// Distributions whose parameters can be out of range.
Verdict uniform(Question& q) { return number(q, 1) <= number(q, 2) ? keep_self(q) : Verdict::Server; }
Verdict normal(Question& q) { return number(q, 2) >= 0 ? keep_self(q) : Verdict::Server; }
Verdict positive_scale(Question& q) { return number(q, 2) > 0 ? keep_self(q) : Verdict::Server; }
Verdict positive_rate(Question& q) { return number(q, 1) > 0 ? keep_self(q) : Verdict::Server; }
Verdict probability(Question& q) { return number(q, 1) > 0 && number(q, 1) < 1 ? keep_self(q) : Verdict::Server; }

// (mean, std, generator, out): of the forms of normal with out= the one that draws as many numbers as `out` has
// elements, and adds the mean to them. infer_size raises what that addition would.
Verdict normal_around(Question& q) {
  const at::Tensor& given = q.tensor(3);
  if (number(q, 1) < 0 || !given.is_floating_point() ||
      given.sizes() != at::IntArrayRef(at::infer_size_dimvector(q.tensor(0).sizes(), given.sizes())))
    return Verdict::Server;
  q.add(given.scalar_type(), given.sizes(), given.strides());
  return Verdict::Done;
}

Verdict multinomial(Question& q) {
  const at::Tensor& self = q.tensor(0);
  const int64_t samples = q.integer(1);
  if (self.dim() < 1 || self.dim() > 2 || !self.is_floating_point() || samples <= 0 || self.size(-1) > (1 << 24) ||
      (!q.flag(2) && samples > self.size(-1)))
    return Verdict::Server;
  if (self.dim() == 1) {
    q.add(at::kLong, {samples});
  } else {
    q.add(at::kLong, {self.size(0), samples});
  }
  return Verdict::Done;
}

}  // namespace

void add_random(Table& table) {
  for (const char* name : {"random_", "zero_"}) table.rule(name, "", keep_self);
  table.rule("uniform_", "", uniform);
  table.rule("normal_", "", normal);
  table.rule("normal", "Tensor_float_out", normal_around);
  table.rule("exponential_", "", positive_rate);
  table.rule("geometric_", "", probability);
  for (const char* name : {"cauchy_", "log_normal_"}) table.rule(name, "", positive_scale);
  table.rule("random_", "from", keep_self);
  table.rule("random_", "to", keep_self);
  table.rule("bernoulli_", "float", keep_self);
  table.rule("bernoulli_", "Tensor", keep_self_expanding);
  table.rule("fill_", "Scalar", keep_self);
  table.rule("fill_", "Tensor", keep_self_with_value);
  table.rule("copy_", "", keep_self_expanding);
  table.rule("masked_fill_", "Scalar", keep_self_with_mask);
  table.rule("masked_scatter_", "", keep_self_with_mask);
  table.rule("bernoulli", "", contiguous_like_first);
  table.rule("bernoulli", "p", contiguous_like_first);
  table.rule("native_dropout", "", native_dropout);
  table.rule("multinomial", "", multinomial);
}

}  // namespace skytorch::oracle
