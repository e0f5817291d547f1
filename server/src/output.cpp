// Re-lays results out.
#include "output.h"

#include <algorithm>

#include "failure.h"

namespace skytorch::server {
namespace {

void require_plain(const at::Tensor& tensor, c10::Device device) {
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  const c10::DispatchKeySet keys = impl->key_set();
  if (impl->layout() != at::kStrided || tensor.is_nested() || tensor.is_quantized() ||
      (!keys.has(c10::DispatchKey::CPU) && !keys.has(c10::DispatchKey::CUDA))) {
    throw Failure(
        SKY_ERR_NOT_SUPPORTED,
        "the result is a sparse, nested or quantized tensor, which SkyTorch does not carry; use a dense one");
  }
  if (impl->device() != device) {
    throw Failure(SKY_ERR_INTERNAL, "the result is on " + impl->device().str() + " and not on " + device.str());
  }
}

// Strides of dimensions that have one element, and of empty tensors, mean nothing.
bool same_addresses(const at::Tensor& tensor, const Geometry& expected) {
  if (tensor.numel() == 0) return true;
  for (size_t d = 0; d < expected.sizes.size(); ++d) {
    if (expected.sizes[d] != 1 && tensor.strides()[d] != expected.strides[d]) return false;
  }
  return true;
}

// Whether no two elements share memory, which for strides that interleave is left open: false.
bool elements_apart(const at::Tensor& tensor) {
  c10::SmallVector<std::pair<int64_t, int64_t>, 5> dims;  // stride, size
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) != 1) dims.emplace_back(tensor.stride(d), tensor.size(d));
  }
  std::sort(dims.begin(), dims.end());
  int64_t reach = 0;
  for (const auto& [stride, size] : dims) {
    if (stride <= reach) return false;
    reach += stride * (size - 1);
  }
  return true;
}

// Uninitialised.
at::Tensor allocate(const Geometry& geometry, c10::Allocator* allocator) {
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), geometry.required_bytes,
                                                       allocator->allocate(geometry.required_bytes), allocator, true);
  return make_view(c10::Storage(std::move(storage)), geometry);
}

}  // namespace

at::Tensor make_exact(at::Tensor tensor, const Geometry& expected, const Device& device) {
  if (!tensor.defined()) {
    throw Failure(SKY_ERR_INTERNAL, "the operator returned no tensor where the client expects " + describe(expected));
  }
  require_plain(tensor, device.torch_device());
  if (tensor.scalar_type() != expected.dtype || tensor.sizes() != at::IntArrayRef(expected.sizes)) {
    throw Failure(SKY_ERR_INTERNAL, "the operator returned " + describe(tensor) + " and the client expects " +
                                        describe(expected) +
                                        "; its shape rule is wrong, please report the operator and these shapes");
  }
  auto* impl = tensor.unsafeGetTensorImpl();
  if (tensor.use_count() == 1 && same_addresses(tensor, expected)) {
    impl->set_sizes_and_strides(expected.sizes, expected.strides);
    if (is_exact(tensor, expected, device.torch_device())) return tensor;
  }
  auto exact = allocate(expected, device.allocator());
  if (tensor._is_zerotensor()) return exact.zero_();
  exact.copy_(tensor);
  return exact;
}

at::Tensor make_exclusive(at::Tensor tensor, c10::Device device) {
  require_plain(tensor, device);
  if (tensor._is_zerotensor()) return at::zeros(tensor.sizes(), at::dtype(tensor.scalar_type()).device(device));
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  const auto& storage = impl->unsafe_storage();
  if (tensor.use_count() == 1 && storage.use_count() == 1 && impl->storage_offset() == 0 &&
      tensor.is_non_overlapping_and_dense() && storage.nbytes() == tensor.nbytes() && !tensor.is_conj() &&
      !tensor.is_neg()) {
    return tensor;
  }
  if (tensor.numel() == 0 || !elements_apart(tensor)) {
    return tensor.resolve_conj().resolve_neg().clone(at::MemoryFormat::Contiguous);
  }
  // Where it lies is a part of the answer: the solution of lstsq has gaps between its columns.
  return at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options()).copy_(tensor);
}

}  // namespace skytorch::server
