// Fourier transforms: how MKL's results lie in memory. torch's Meta kernels know how cuFFT's do; they are asked for a
// server with CUDA, and where this process's torch has no MKL, which stands for the server's. A wrong guess costs the
// server a copy, since it lays results out as it is told.
//
// MKL transforms the last dimensions of a batch, so that the transformed dimensions are moved behind the others, and
// the result keeps that order. With equal strides the order is what the standard library's partition leaves, so that
// is what is used here too.
#include <ATen/Context.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "table.h"

namespace skytorch::oracle {
namespace {

struct Descending {
  at::IntArrayRef strides;
  bool operator()(int64_t a, int64_t b) const {
    return strides[static_cast<size_t>(a)] > strides[static_cast<size_t>(b)];
  }
};

at::DimVector by_stride(at::DimVector dims, at::IntArrayRef strides, size_t fixed_at_the_end) {
  std::sort(dims.begin(), dims.end() - static_cast<std::ptrdiff_t>(fixed_at_the_end), Descending{strides});
  return dims;
}

// Strides of the result of one transform along `dims`, in their order. Nothing is empty.
at::DimVector result_strides(at::IntArrayRef strides, at::IntArrayRef sizes, at::IntArrayRef dims) {
  std::vector<int64_t> order(sizes.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto batch_end = std::partition(
      order.begin(), order.end(), [&](int64_t d) { return std::find(dims.begin(), dims.end(), d) == dims.end(); });
  std::sort(order.begin(), batch_end, Descending{strides});
  std::copy(dims.begin(), dims.end(), batch_end);
  at::DimVector result(sizes.size());
  int64_t step = 1;
  for (auto d = order.rbegin(); d != order.rend(); ++d) {
    result[static_cast<size_t>(*d)] = step;
    step *= sizes[static_cast<size_t>(*d)];
  }
  return result;
}

// The dimensions to transform, or nothing where the real kernel or the Meta kernel should say what is wrong.
std::optional<at::DimVector> mkl_dims(const Question& q, bool complex) {
  const at::ScalarType type = q.tensor(0).scalar_type();
  const bool single_or_double =
      complex ? type == at::kComplexFloat || type == at::kComplexDouble : type == at::kFloat || type == at::kDouble;
  if (q.target.server_is_cuda || !at::hasMKL() || !single_or_double || q.tensor(0).numel() == 0) return std::nullopt;
  at::DimVector dims = q.ints(1);
  c10::SmallVector<bool, 5> seen(static_cast<size_t>(q.tensor(0).dim()));
  for (const int64_t d : dims) {
    if (d < 0 || d >= q.tensor(0).dim() || seen[static_cast<size_t>(d)]) return std::nullopt;
    seen[static_cast<size_t>(d)] = true;
  }
  return dims.empty() ? std::nullopt : std::optional(std::move(dims));
}

// (self, dim, normalization, forward)
Verdict complex_to_complex(Question& q) {
  const auto dims = mkl_dims(q, true);
  if (!dims) return Verdict::Dispatcher;
  const at::Tensor& self = q.tensor(0);
  q.add(self.scalar_type(), self.sizes(),
        result_strides(self.strides(), self.sizes(), by_stride(*dims, self.strides(), 0)));
  return Verdict::Done;
}

// (self, dim, normalization, onesided)
Verdict real_to_complex(Question& q) {
  const auto dims = mkl_dims(q, false);
  if (!dims) return Verdict::Dispatcher;
  const at::Tensor& self = q.tensor(0);
  at::DimVector sizes(self.sizes());
  if (q.flag(3)) {
    int64_t& last = sizes[static_cast<size_t>(dims->back())];
    last = last / 2 + 1;
  }
  q.add(c10::toComplexType(self.scalar_type()), sizes,
        result_strides(self.strides(), sizes, by_stride(*dims, self.strides(), 1)));
  return Verdict::Done;
}

// (self, dim, normalization, last_dim_size): all dimensions but the last are transformed before, complex to complex.
Verdict complex_to_real(Question& q) {
  const auto dims = mkl_dims(q, true);
  if (!dims || q.integer(3) < 1) return Verdict::Dispatcher;
  const at::Tensor& self = q.tensor(0);
  at::DimVector strides(self.strides());
  if (dims->size() > 1) {
    at::DimVector first(dims->begin(), dims->end() - 1);
    strides = result_strides(strides, self.sizes(), by_stride(std::move(first), self.strides(), 0));
  }
  at::DimVector sizes(self.sizes());
  sizes[static_cast<size_t>(dims->back())] = q.integer(3);
  q.add(c10::toRealValueType(self.scalar_type()), sizes, result_strides(strides, sizes, dims->back()));
  return Verdict::Done;
}

}  // namespace

void add_fft(Table& table) {
  table.rule("_fft_c2c", "", complex_to_complex);
  table.rule("_fft_r2c", "", real_to_complex);
  table.rule("_fft_c2r", "", complex_to_real);
}

}  // namespace skytorch::oracle
