// Making `sky` tensors: plain TensorImpls over a storage whose DataPtr holds the context. No subclass, no wrapper.
#pragma once

#include <ATen/core/Tensor.h>

#include "storage.h"
#include "template_cache.h"

namespace skytorch {

class Device;

// A tensor over a fresh storage that the server makes by itself (the output of an operator).
at::Tensor make_output(StorageContext* context, const OutputSpec& spec);

// A tensor over a fresh, uninitialised storage (one ALLOC record).
at::Tensor make_empty(Device& device, at::ScalarType dtype, at::IntArrayRef sizes, at::IntArrayRef strides);

// A tensor of zeros that has no storage; torch's ZeroTensor key handles it.
at::Tensor make_zero(Device& device, at::ScalarType dtype, at::IntArrayRef sizes);

// The same storage, seen elsewhere. Flags (conjugate, negative) are not taken over.
at::Tensor make_alias(const at::Tensor& base, at::IntArrayRef sizes, at::IntArrayRef strides, int64_t offset);

bool is_sky(const at::Tensor& tensor);

// Bytes that a storage needs to hold the geometry.
uint64_t bytes_of(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, int64_t offset = 0);

}  // namespace skytorch
