// Views and storage surgery: metadata on the client. Nothing goes over the wire, but for the size of a storage that
// grows. Views that torch composes of as_strided and view (slice, transpose, expand, ...) need nothing here.
#include <ATen/Functions.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/is_set_to_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>

#include "allocator.h"
#include "device.h"
#include "kernels.h"
#include "tensor.h"

namespace skytorch {

namespace {

bool fills_memory() {
  const at::Context& context = at::globalContext();
  return context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory();
}

// Fresh memory, filled where torch.use_deterministic_algorithms asks for it.
at::Tensor fresh(c10::Device device, at::ScalarType dtype, at::IntArrayRef sizes, at::IntArrayRef strides) {
  at::Tensor tensor = make_empty(Registry::get().at(device.index()), dtype, sizes, strides);
  if (C10_UNLIKELY(fills_memory())) {
    at::native::fill_empty_deterministic_(tensor);
  }
  return tensor;
}

at::Tensor empty(at::IntArrayRef sizes, std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
                 std::optional<at::Device> device, std::optional<bool> pin_memory,
                 std::optional<at::MemoryFormat> format) {
  TORCH_CHECK_NOT_IMPLEMENTED(layout.value_or(at::kStrided) == at::kStrided,
                              "sky: sparse tensors are not supported yet; create a dense one");
  TORCH_CHECK(!pin_memory.value_or(false), "Only dense CPU tensors can be pinned");
  at::detail::check_size_nonnegative(sizes);
  const auto memory_format = format.value_or(at::MemoryFormat::Contiguous);
  at::DimVector strides(c10::contiguous_strides(sizes));
  if (memory_format == at::MemoryFormat::ChannelsLast) {
    strides = c10::get_channels_last_strides_2d(sizes);
  } else if (memory_format == at::MemoryFormat::ChannelsLast3d) {
    strides = c10::get_channels_last_strides_3d(sizes);
  } else {
    TORCH_CHECK(memory_format == at::MemoryFormat::Contiguous, "sky: unsupported memory format ", memory_format);
  }
  return fresh(c10::device_or_default(device), c10::dtype_or_default(dtype), sizes, strides);
}

at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout> /*layout*/, std::optional<at::Device> device,
                         std::optional<bool> pin_memory) {
  TORCH_CHECK(!pin_memory.value_or(false), "Only dense CPU tensors can be pinned");
  at::detail::check_size_nonnegative(sizes);
  TORCH_CHECK(sizes.size() == strides.size(), "dimensionality of sizes (", sizes.size(),
              ") must match dimensionality of strides (", strides.size(), ")");
  return fresh(c10::device_or_default(device), c10::dtype_or_default(dtype), sizes, strides);
}

at::Tensor efficient_zero(at::IntArrayRef sizes, std::optional<at::ScalarType> dtype,
                          std::optional<at::Layout> /*layout*/, std::optional<at::Device> device,
                          std::optional<bool> /*pin_memory*/) {
  return make_zero(Registry::get().at(c10::device_or_default(device).index()), c10::dtype_or_default(dtype), sizes);
}

// Gives `self` new sizes; the storage grows when it must. Never shrinks, as on the cpu.
void set_geometry(c10::TensorImpl* self, at::IntArrayRef sizes, at::OptionalIntArrayRef strides) {
  const at::DimVector wanted(strides.has_value() ? at::DimVector(*strides)
                                                 : at::DimVector(c10::contiguous_strides(sizes)));
  if (self->sizes() != sizes || self->strides() != at::IntArrayRef(wanted)) {
    self->set_sizes_and_strides(sizes, wanted);
  }
  if (self->numel() == 0) {
    return;
  }
  const uint64_t n_bytes = bytes_of(sizes, wanted, c10::typeMetaToScalarType(self->dtype()), self->storage_offset());
  c10::StorageImpl* storage = self->unsafe_storage().unsafeGetStorageImpl();
  if (n_bytes > storage->nbytes()) {
    resize_storage(storage, n_bytes);
  }
}

const at::Tensor& resize_(const at::Tensor& self, at::IntArrayRef sizes, std::optional<at::MemoryFormat> format) {
  at::detail::check_size_nonnegative(sizes);
  if (self.sizes() != sizes) {
    const int64_t before = self.has_storage() ? static_cast<int64_t>(self.storage().nbytes()) : 0;
    set_geometry(self.unsafeGetTensorImpl(), sizes, std::nullopt);
    if (C10_UNLIKELY(fills_memory())) {
      at::native::fill_resize_deterministic_(self, before);
    }
  }
  if (format.has_value()) {
    TORCH_CHECK(*format != at::MemoryFormat::Preserve, "Unsupported memory format", *format);
    self.unsafeGetTensorImpl()->empty_tensor_restride(*format);
  }
  return self;
}

at::Tensor& set_storage_at(at::Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef sizes,
                           at::IntArrayRef strides) {
  at::native::checkSetStorage(self, source, offset, sizes, strides);
  self.unsafeGetTensorImpl()->set_storage_offset(offset);
  set_geometry(self.unsafeGetTensorImpl(), sizes,
               strides.data() != nullptr ? at::OptionalIntArrayRef(strides) : std::nullopt);
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage source) {
  const auto n = static_cast<int64_t>(source.nbytes() / self.dtype().itemsize());
  return set_storage_at(self, std::move(source), 0, n, {});
}

at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) {
  if (!self.is_same(source)) {
    set_storage_at(self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
  }
  return self;
}

at::Tensor& set_nothing(at::Tensor& self) {
  const at::Tensor nothing = at::empty({0}, self.options());
  return set_storage_at(self, nothing.storage(), 0, {0}, {});
}

void record_stream(at::Tensor& /*self*/, at::Stream /*stream*/) {}

// The base of both is the storage's device, so that `module.to("sky")` keeps its Parameter objects: tied weights and
// optimizers go on working (with false, torch would make new ones).
bool has_compatible_shallow_copy_type(const at::Tensor& self, const at::Tensor& from) {
  return self.layout() == from.layout() && self.is_nested() == from.is_nested();
}

}  // namespace

void register_factories(torch::Library& m) {
  m.impl("empty.memory_format", TORCH_FN(empty));
  m.impl("empty_strided", TORCH_FN(empty_strided));
  m.impl("_efficientzerotensor", TORCH_FN(efficient_zero));
}

void register_views(torch::Library& m) {
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("view_as_real", TORCH_FN(at::native::view_as_real));
  m.impl("view_as_complex", TORCH_FN(at::native::view_as_complex));
  m.impl("resize_", TORCH_FN(resize_));
  m.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage_at));
  m.impl("set_.source_Storage", TORCH_FN(set_storage));
  m.impl("set_.source_Tensor", TORCH_FN(set_tensor));
  m.impl("set_", TORCH_FN(set_nothing));
  m.impl("is_set_to", TORCH_FN(at::native::is_set_to));
  m.impl("record_stream", TORCH_FN(record_stream));
  m.impl("_has_compatible_shallow_copy_type", TORCH_FN(has_compatible_shallow_copy_type));
}

TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m) {
  m.impl("_has_compatible_shallow_copy_type", TORCH_FN(has_compatible_shallow_copy_type));
}

}  // namespace skytorch
