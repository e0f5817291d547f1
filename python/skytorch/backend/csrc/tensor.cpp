// See tensor.h.
#include "tensor.h"

#include <ATen/EmptyTensor.h>

#include "allocator.h"
#include "device.h"

namespace skytorch {

namespace {

const c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

at::Tensor over(c10::DataPtr data, uint64_t n_bytes, at::ScalarType dtype, at::IntArrayRef sizes,
                at::IntArrayRef strides, bool contiguous, c10::DispatchKeySet keys = kKeys) {
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), n_bytes, std::move(data),
                                                       &SkyAllocator::get(), /*resizable=*/true);
  auto tensor =
      at::detail::make_tensor_base<c10::TensorImpl>(std::move(storage), keys, c10::scalarTypeToTypeMeta(dtype));
  c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  if (contiguous) {
    impl->set_sizes_contiguous(sizes);
  } else {
    impl->set_sizes_and_strides(sizes, strides);
  }
  return at::Tensor(std::move(tensor));
}

}  // namespace

at::Tensor make_output(StorageContext* context, const OutputSpec& spec) {
  return over(make_data_ptr(context), spec.n_bytes, spec.dtype, spec.sizes, spec.strides, spec.contiguous);
}

at::Tensor make_empty(Device& device, at::ScalarType dtype, at::IntArrayRef sizes, at::IntArrayRef strides) {
  const uint64_t n_bytes = bytes_of(sizes, strides, dtype);
  return over(SkyAllocator::get().allocate_on(device, n_bytes), n_bytes, dtype, sizes, strides, false);
}

at::Tensor make_zero(Device& device, at::ScalarType dtype, at::IntArrayRef sizes) {
  return over(c10::DataPtr(nullptr, device.device()), 0, dtype, sizes, {}, true,
              kKeys | c10::DispatchKeySet(c10::DispatchKey::ZeroTensor));
}

at::Tensor make_alias(const at::Tensor& base, at::IntArrayRef sizes, at::IntArrayRef strides, int64_t offset) {
  auto alias = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(base.storage()), kKeys,
                                                        base.dtype());
  alias.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset);
  return alias;
}

bool is_sky(const at::Tensor& tensor) { return tensor.device().type() == c10::DeviceType::PrivateUse1; }

uint64_t bytes_of(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, int64_t offset) {
  return at::detail::computeStorageNbytes(sizes, strides, c10::elementSize(dtype), static_cast<size_t>(offset));
}

}  // namespace skytorch
