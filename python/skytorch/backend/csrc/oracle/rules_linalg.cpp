// Decompositions whose results lie in memory as LAPACK leaves them, which torch's Meta kernels do not know.
#include "table.h"

namespace skytorch::oracle {
namespace {

// Matrices column by column.
at::DimVector column_major(at::IntArrayRef sizes) {
  at::DimVector turned(sizes);
  const size_t n = sizes.size();
  std::swap(turned[n - 1], turned[n - 2]);
  at::DimVector strides = c10::contiguous_strides(turned);
  std::swap(strides[n - 1], strides[n - 2]);
  return strides;
}

// -> (values, vectors)
Verdict eig(Question& q) {
  const at::Tensor& self = q.tensor(0);
  if (self.dim() < 2 || self.size(-1) != self.size(-2) ||
      c10::elementSize(c10::toRealValueType(self.scalar_type())) < 4 ||
      !(self.is_floating_point() || self.is_complex()))
    return Verdict::Server;
  const at::ScalarType type = c10::toComplexType(self.scalar_type());
  q.add(type, self.sizes().slice(0, static_cast<size_t>(self.dim() - 1)));
  q.add(type, self.sizes(), column_major(self.sizes()));
  return Verdict::Done;
}

}  // namespace

void add_linalg(Table& table) { table.rule("linalg_eig", "", eig); }

}  // namespace skytorch::oracle
