// Validates, interns and materialises geometries.
#include "geometry.h"

#include <c10/util/hash.h>

#include <sstream>

#include "failure.h"

namespace skytorch::server {
namespace {

constexpr size_t kMaxDims = 64;

[[noreturn]] void refuse(const std::string& why) {
  throw Failure(SKY_ERR_INVALID_ARGUMENT, "tensor geometry refused: " + why);
}

uint64_t multiply(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product) || product > static_cast<uint64_t>(INT64_MAX)) {
    refuse("its size overflows 63 bits");
  }
  return product;
}

uint64_t add(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum) || sum > static_cast<uint64_t>(INT64_MAX)) {
    refuse("its end overflows 63 bits");
  }
  return sum;
}

// Fills what follows from dtype, offset, sizes and strides.
void complete(Geometry& g) {
  const uint64_t item = c10::elementSize(g.dtype);
  uint64_t numel = 1;
  for (int64_t size : g.sizes) {
    if (size < 0) refuse("a negative size");
    numel = size == 0 ? 0 : multiply(numel, size);
    if (numel == 0) break;
  }
  uint64_t last = g.offset;
  for (size_t d = 0; d < g.sizes.size(); ++d) {
    if (g.sizes[d] < 0 || g.strides[d] < 0) refuse("a negative size or stride");
    if (numel != 0) last = add(last, multiply(g.sizes[d] - 1, g.strides[d]));
  }
  g.numel = static_cast<int64_t>(numel);
  g.n_bytes = multiply(numel, item);
  g.required_bytes = numel == 0 ? 0 : multiply(add(last, 1), item);

  int64_t expected = 1;
  g.contiguous = true;
  for (size_t d = g.sizes.size(); d-- > 0;) {
    if (g.sizes[d] == 1) continue;
    if (g.strides[d] != expected) g.contiguous = numel == 0;
    expected *= std::max<int64_t>(g.sizes[d], 1);
    if (!g.contiguous || numel == 0) break;
  }
  // Each element once, and the span as long as the elements: with distinct addresses that is a permutation.
  at::DimVector order;
  for (size_t d = 0; d < g.sizes.size(); ++d) {
    if (g.sizes[d] != 1) order.push_back(static_cast<int64_t>(d));
  }
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return g.strides[a] < g.strides[b]; });
  g.dense = true;
  expected = 1;
  for (int64_t d : order) {
    if (numel == 0) break;
    g.dense = g.dense && g.strides[d] == expected;
    if (!g.dense) break;
    expected *= g.sizes[d];
  }
}

uint64_t hash_of(const Geometry& g) {
  size_t seed = c10::get_hash(static_cast<int>(g.dtype), g.conj, g.neg, g.offset);
  for (int64_t v : g.sizes) seed = c10::hash_combine(seed, static_cast<size_t>(v));
  for (int64_t v : g.strides) seed = c10::hash_combine(seed, static_cast<size_t>(v));
  return seed;
}

bool same(const Geometry& a, const Geometry& b) {
  return a.dtype == b.dtype && a.conj == b.conj && a.neg == b.neg && a.offset == b.offset && a.sizes == b.sizes &&
         a.strides == b.strides;
}

std::string describe(at::ScalarType dtype, at::IntArrayRef sizes) {
  std::ostringstream out;
  out << c10::getDtypeNames(dtype).first << '[';
  for (size_t d = 0; d < sizes.size(); ++d) out << (d ? ", " : "") << sizes[d];
  out << ']';
  return out.str();
}

}  // namespace

std::string describe(const Geometry& geometry) { return describe(geometry.dtype, geometry.sizes); }

std::string describe(const at::Tensor& tensor) {
  if (!tensor.defined()) return "undefined";
  return describe(tensor.scalar_type(), tensor.sizes());
}

at::ScalarType dtype_from_wire(int64_t number) {
  const auto dtype = static_cast<at::ScalarType>(number);
  if (number < 0 || number >= static_cast<int64_t>(at::ScalarType::NumOptions) ||
      dtype == at::ScalarType::Undefined || c10::isQIntType(dtype)) {
    refuse("dtype number " + std::to_string(number) + " is not one that a tensor on a SkyTorch server can have");
  }
  return dtype;
}

at::Tensor make_view(const c10::Storage& storage, const Geometry& g) {
  const auto key = storage.device().is_cuda() ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU;
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(storage), c10::DispatchKeySet(key), c10::scalarTypeToTypeMeta(g.dtype));
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(g.sizes, g.strides, g.offset);
  if (g.conj) impl->_set_conj(true);
  if (g.neg) impl->_set_neg(true);
  return tensor;
}

GeometryRef GeometryTable::intern(const SkyGeometry& wire) {
  Geometry g;
  g.dtype = dtype_from_wire(wire.dtype);
  if (wire.ndim > kMaxDims) refuse("more than 64 dimensions");
  if (wire.offset < 0) refuse("a negative offset");
  g.conj = (wire.flags & SKY_GEOMETRY_CONJ) != 0;
  g.neg = (wire.flags & SKY_GEOMETRY_NEG) != 0;
  if (g.conj && !c10::isComplexType(g.dtype)) refuse("a conjugate bit on a real dtype");
  g.offset = wire.offset;
  g.sizes = at::DimVector(wire.sizes, wire.sizes + wire.ndim);
  g.strides = at::DimVector(wire.strides, wire.strides + wire.ndim);
  complete(g);
  return intern(std::move(g));
}

GeometryRef GeometryTable::intern(const at::Tensor& tensor) {
  Geometry g;
  g.dtype = dtype_from_wire(static_cast<int64_t>(tensor.scalar_type()));
  g.conj = tensor.is_conj();
  g.neg = tensor.is_neg();
  g.offset = tensor.storage_offset();
  g.sizes = at::DimVector(tensor.sizes());
  g.strides = at::DimVector(tensor.strides());
  complete(g);
  return intern(std::move(g));
}

GeometryRef GeometryTable::intern(Geometry&& candidate) {
  const uint64_t hash = hash_of(candidate);
  auto [begin, end] = known_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    auto existing = it->second.lock();
    if (existing && same(*existing, candidate)) return existing;
  }
  if (known_.size() >= sweep_at_) sweep();
  candidate.id = next_id_++;
  auto fresh = std::make_shared<const Geometry>(std::move(candidate));
  known_.emplace(hash, fresh);
  return fresh;
}

void GeometryTable::sweep() {
  for (auto it = known_.begin(); it != known_.end();) it = it->second.expired() ? known_.erase(it) : std::next(it);
  sweep_at_ = std::max<size_t>(1024, 2 * known_.size());
}

}  // namespace skytorch::server
