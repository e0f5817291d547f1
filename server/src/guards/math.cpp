// Transforms, distances, special functions, selection and the making of tensors.
#include <torch/version.h>

#include <array>
#include <cmath>

#include "families.h"

namespace skytorch::server {
namespace {

// Far above what a program asks for, far below what takes for ever.
constexpr int64_t kMaxDegree = int64_t{1} << 20;

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

// The gradient of a distance has another name in torch 2.11.
const at::Tensor& gradient(const CallArguments& a) { return a.tensor(a.has("grad") ? "grad" : "grad_output"); }

void cdist_backward(const CallArguments& a) {
  const at::Tensor& x1 = a.tensor("x1");
  const at::Tensor& x2 = a.tensor("x2");
  a.require(x1.dim() >= 2 && x2.dim() >= 2 && x1.size(-1) == x2.size(-1), "'x1' and 'x2' must be rows of one length");
  auto sizes = at::infer_size(leading(x1, 2), leading(x2, 2));
  sizes.push_back(x1.size(-2));
  sizes.push_back(x2.size(-2));
  a.require(gradient(a).sizes() == at::IntArrayRef(sizes) && a.tensor("cdist").sizes() == at::IntArrayRef(sizes),
            "the gradient and 'cdist' must have the size of the distances");
}

void pdist_backward(const CallArguments& a) {
  const at::Tensor& self = a.tensor("self");
  a.require(self.dim() == 2, "'self' must be a matrix");
  const int64_t n = self.size(0) * std::max<int64_t>(self.size(0) - 1, 0) / 2;
  for (const at::Tensor& t : {gradient(a), a.tensor("pdist")}) {
    a.require(t.dim() == 1 && t.size(0) == n, "the gradient and 'pdist' are one number per pair");
  }
}

// Segments of a dimension by their lengths or their borders: they are walked as they are given.
void segments(const CallArguments& a) {
  const at::Tensor& data = a.tensor("data");
  const at::Tensor lengths = a.maybe("lengths"), offsets = a.maybe("offsets");
  const at::Tensor& given = lengths.defined() ? lengths : offsets;
  a.require(given.defined() && data.dim() > 0, "'lengths' or 'offsets' must say what the segments are");
  const int64_t axis = a.integer("axis") < 0 ? a.integer("axis") + data.dim() : a.integer("axis");
  a.require(axis >= 0 && axis < data.dim() && given.dim() == axis + 1 &&
                leading(data, data.dim() - axis) == leading(given, 1) &&
                (given.scalar_type() == at::kInt || given.scalar_type() == at::kLong),
            "the segments must be integers for each row of 'data' before 'axis'");
  const int64_t n = given.size(axis) - (lengths.defined() ? 0 : 1);
  a.require(n >= 0, "'offsets' must have a first and a last border");
  const at::Tensor borders = lengths.defined() ? given.cumsum(axis) : given;
  const bool inside =
      borders.numel() == 0 || (given.min().item<int64_t>() >= 0 && borders.max().item<int64_t>() <= data.size(axis) &&
                               !borders.diff(1, axis).lt(0).any().item<bool>());
  a.require(inside, "the segments must be in order and inside of 'data'");
  if (!a.has("grad")) return;
  at::DimVector sizes(data.sizes());
  sizes[axis] = n;
  a.require(
      a.tensor("grad").sizes() == at::IntArrayRef(sizes) && a.tensor("output").sizes() == at::IntArrayRef(sizes),
      "'grad' and 'output' must have one element for each segment");
}

void chunk_cat(const CallArguments& a) {
  const int64_t dim = a.integer("dim");
  const auto tensors = a.tensors("tensors");
  // Then torch looks itself.
  if (std::any_of(tensors.begin(), tensors.end(),
                  [&](const at::Tensor& t) { return t.dim() != tensors.front().dim(); })) {
    return;
  }
  for (const at::Tensor& t : tensors) {
    a.require(dim >= -t.dim() && dim < t.dim(), "'dim' must be one of every tensor");
  }
}

// Its slices of one address are partitioned as if they had one for each element.
void selection(const CallArguments& a) {
  if (a.has("self")) a.require_own_memory("self", a.tensor("self"));
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

at::ScalarType dtype_of_range(const CallArguments& a) {
  if (a.has("out")) return a.tensor("out").scalar_type();
  return a.given("dtype") ? a.dtype("dtype") : at::kFloat;
}

// A step that is rounded to none.
void range(const CallArguments& a) {
  if (!a.has("step")) return;
  a.require(!c10::isIntegralType(dtype_of_range(a), true) || std::abs(a.scalar("step").toDouble()) >= 1.0,
            "'step' must not be less than one for integers");
}

#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 14
// The number of steps was taken by a division of int64.
void arange(const CallArguments& a) {
  if (!a.has("step")) return;
  a.require(dtype_of_range(a) != at::kLong || std::abs(a.scalar("step").toDouble()) >= 1.0,
            "'step' must not be less than one for int64 before torch 2.14");
}
#endif

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

constexpr std::array kMathGuards = {
    GuardEntry{"aten::_fft_c2c", fft},
    GuardEntry{"aten::_fft_c2r", fft},
    GuardEntry{"aten::_fft_r2c", fft},
    GuardEntry{"aten::_cdist_backward", cdist_backward},
    GuardEntry{"aten::_pdist_backward", pdist_backward},
    GuardEntry{"aten::_chunk_cat", chunk_cat},
    GuardEntry{"aten::segment_reduce", segments},
    GuardEntry{"aten::_segment_reduce_backward", segments},
    GuardEntry{"aten::_linalg_eigvals", eigenvalues},
    GuardEntry{"aten::linalg_eigvals", eigenvalues},
    GuardEntry{"aten::linalg_eig", eigenvalues},
    GuardEntry{"aten::median", selection},
    GuardEntry{"aten::nanmedian", selection},
    GuardEntry{"aten::triu", triangle},
    GuardEntry{"aten::tril", triangle},
    GuardEntry{"aten::random", random_from},
    GuardEntry{"aten::random_", random_from},
    GuardEntry{"aten::range", range},
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 14
    GuardEntry{"aten::arange", arange},
#endif
    GuardEntry{"aten::polygamma", zeta},
    GuardEntry{"aten::polygamma_", zeta},
    GuardEntry{"aten::special_zeta", zeta},
    GuardEntry{"aten::_new_zeros_with_same_feature_meta", new_zeros_like_tangent},
    GuardEntry{"aten::_foreach_copy", foreach_copy},
    GuardEntry{"aten::_foreach_copy_", foreach_copy},
    GuardEntry{"aten::special_chebyshev_polynomial_t", polynomial},
    GuardEntry{"aten::special_chebyshev_polynomial_u", polynomial},
    GuardEntry{"aten::special_chebyshev_polynomial_v", polynomial},
    GuardEntry{"aten::special_chebyshev_polynomial_w", polynomial},
    GuardEntry{"aten::special_shifted_chebyshev_polynomial_t", polynomial},
    GuardEntry{"aten::special_shifted_chebyshev_polynomial_u", polynomial},
    GuardEntry{"aten::special_shifted_chebyshev_polynomial_v", polynomial},
    GuardEntry{"aten::special_shifted_chebyshev_polynomial_w", polynomial},
    GuardEntry{"aten::special_hermite_polynomial_h", polynomial},
    GuardEntry{"aten::special_hermite_polynomial_he", polynomial},
    GuardEntry{"aten::special_laguerre_polynomial_l", polynomial},
    GuardEntry{"aten::special_legendre_polynomial_p", polynomial},
};

}  // namespace

c10::ArrayRef<GuardEntry> math_guards() { return kMathGuards; }

}  // namespace skytorch::server
