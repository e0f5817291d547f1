// What an operator returned, made into what the client expects: a storage of its own, offset 0, exactly the geometry
// of the template. Most operators return just that, and then nothing is copied.
#pragma once

#include "device/device.h"
#include "geometry.h"

namespace skytorch::server {

// True if `tensor` can be stored as it is under a fresh id whose geometry the client believes to be `expected`:
// nobody else holds it or its storage, which is as large as the geometry needs and has memory (a zero tensor has
// none).
inline bool is_exact(const at::Tensor& tensor, const Geometry& expected, c10::Device device) {
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  return tensor.defined() && impl->layout() == at::kStrided && impl->dtype() == expected.dtype &&
         impl->sizes() == at::IntArrayRef(expected.sizes) && impl->strides() == at::IntArrayRef(expected.strides) &&
         impl->storage_offset() == 0 && tensor.use_count() == 1 && impl->unsafe_storage().use_count() == 1 &&
         impl->unsafe_storage().nbytes() == expected.required_bytes &&
         (expected.numel == 0 || impl->unsafe_storage().data() != nullptr) && impl->is_conj() == expected.conj &&
         impl->is_neg() == expected.neg && impl->device() == device;
}

// Makes it so, by a copy if that is what it takes. Throws Failure if sizes or dtype are not the expected ones.
at::Tensor make_exact(at::Tensor tensor, const Geometry& expected, const Device& device);

// For an output whose geometry the client is yet to learn: `tensor`, or a copy of it that owns its storage alone.
at::Tensor make_exclusive(at::Tensor tensor, c10::Device device);

}  // namespace skytorch::server
