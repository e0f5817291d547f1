// Copies in every direction. To the server: WRITE of a tensor's bytes; from it: READ; within a session an operator;
// between sessions server to server, through this process only when the servers cannot reach each other.
// Bytes travel in memory order when both sides are dense with equal strides, else in logical order. Empty tensors
// never touch the wire. The conjugate and negative bits are carried, not resolved, wherever the other side can.
#include <ATen/ExpandUtils.h>
#include <ATen/Functions.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/ops/_to_copy_native.h>

#include "dispatch.h"
#include "kernels.h"
#include "tensor.h"
#include "unboxed.h"

namespace skytorch {

namespace {

using at::Tensor;

uint64_t n_bytes(const Tensor& t) { return static_cast<uint64_t>(t.numel()) * t.element_size(); }

// The bits that a tensor holds, without the conjugate and negative flags.
Tensor physical(const Tensor& t) {
  if (!t.is_conj() && !t.is_neg()) {
    return t;
  }
  return make_alias(t, t.sizes(), t.strides(), t.storage_offset());
}

// `value` such that writing it physically where `like` lies reads back as `value` through the flags of `like`.
Tensor as_stored(Tensor value, const Tensor& like) {
  if (like.is_conj()) {
    value = value.conj();
  }
  if (like.is_neg()) {
    value = value.neg();
  }
  return value.resolve_conj().resolve_neg();
}

// Keeps the bytes of a non-blocking upload until the wire has them.
void release_source(void* source) { const std::unique_ptr<c10::Storage> hold(static_cast<c10::Storage*>(source)); }

void upload(const Tensor& dst, const Tensor& value, bool non_blocking) {
  Tensor src = as_stored(value.to(dst.scalar_type()), dst);
  const Tensor target = physical(dst);
  uint8_t layout = SKY_LAYOUT_LOGICAL;
  if (target.is_non_overlapping_and_dense()) {
    layout = SKY_LAYOUT_MEMORY;
    if (src.strides() != target.strides()) {
      src = at::empty_strided(target.sizes(), target.strides(), src.options()).copy_(src);
    }
  } else {
    src = src.contiguous();
  }
  Call call(SKY_TEMPLATE_WRITE, layout);
  call.add(target);
  call.finish();
  Session& session = call.device().session();
  StreamLock lock(session);
  const uint32_t slot = transfer_slot(lock, call, target);
  std::unique_ptr<c10::Storage> hold;
  if (non_blocking) {
    hold = std::make_unique<c10::Storage>(src.storage());
  }
  const SkyRelease release = hold != nullptr ? &release_source : nullptr;
  SkyError error;
  const uint32_t code =
      session.api().write(session.wire(), slot, call.storages()[0], static_cast<const uint8_t*>(src.const_data_ptr()),
                          n_bytes(src), release, hold.release(), &error);
  lock.consumed();
  check(code, error);
}

// Reads the physical bytes of `src` into `dst`, which is a CPU tensor of its dtype and sizes, dense as `layout` says.
void read(const Tensor& src, const Tensor& dst, uint8_t layout) {
  Call call(SKY_TEMPLATE_READ, layout);
  call.add(src);
  call.finish();
  Session& session = call.device().session();
  StreamLock lock(session);
  const uint32_t slot = transfer_slot(lock, call, src);
  SkyError error;
  const uint32_t code = session.api().read(session.wire(), slot, call.storages()[0],
                                           static_cast<uint8_t*>(dst.mutable_data_ptr()), n_bytes(dst), &error);
  lock.consumed();
  check(code, error);
}

// A CPU tensor with the value of `src`, in its own dtype, with its flags.
Tensor fetch(const Tensor& src) {
  const Tensor source = physical(src);
  Tensor host;
  if (source.is_non_overlapping_and_dense()) {
    host = at::empty_strided(source.sizes(), source.strides(), source.options().device(at::kCPU));
    read(source, host, SKY_LAYOUT_MEMORY);
  } else {
    host = at::empty(source.sizes(), source.options().device(at::kCPU));
    read(source, host, SKY_LAYOUT_LOGICAL);
  }
  host._set_conj(src.is_conj());
  host._set_neg(src.is_neg());
  return host;
}

void download(const Tensor& dst, const Tensor& src) {
  const bool plain =
      dst.scalar_type() == src.scalar_type() && dst.is_conj() == src.is_conj() && dst.is_neg() == src.is_neg();
  if (plain && src.is_non_overlapping_and_dense() && dst.strides() == src.strides()) {
    read(physical(src), dst, SKY_LAYOUT_MEMORY);
  } else if (plain && dst.is_contiguous()) {
    read(physical(src), dst, SKY_LAYOUT_LOGICAL);
  } else {
    dst.copy_(fetch(src));
  }
}

void copy_within(Tensor& dst, const Tensor& src, bool non_blocking) {
  static UnboxedOp<at::_ops::copy_::schema> kernel(
      c10::Dispatcher::singleton().findSchemaOrThrow(at::_ops::copy_::name, at::_ops::copy_::overload_name));
  kernel(dst, src, non_blocking);
}

// One lock for all copies between sessions, so that two opposite ones cannot wait for each other (INV-7).
std::mutex& between_mutex() {
  static std::mutex mutex;
  return mutex;
}

Device& owner_of(const Tensor& t) {
  const StorageContext* context = context_of(t.unsafeGetTensorImpl());
  TORCH_CHECK(context != nullptr, "sky: a copy got a tensor whose storage is not one of a sky device");
  return *context->device;
}

void copy_between(Tensor& dst, const Tensor& value) {
  Session& from = owner_of(value).session();
  Session& to = owner_of(dst).session();
  if (from.closed() || to.closed()) {
    raise(SKY_ERR_SESSION_CLOSED, "sky: a copy between two Computes needs both open, and one of them is closed");
  }
  uint32_t direct = 0;
  SkyError refusal;
  check(from.api().can_send(from.wire(), to.wire(), &direct, &refusal), refusal);
  if (direct == 0) {
    TORCH_WARN_ONCE(
        "sky: the servers of these Computes cannot reach each other, so that copies between them go through "
        "this process");
    upload(dst, fetch(value), false);
    return;
  }
  // What is sent are stored bits of one dtype: bring the source there on its own server.
  const Tensor target = physical(dst);
  Tensor src = as_stored(value.to(dst.scalar_type()), dst);
  const bool dense = src.is_non_overlapping_and_dense() && src.strides() == target.strides();
  const uint8_t layout = dense ? SKY_LAYOUT_MEMORY : SKY_LAYOUT_LOGICAL;
  Call read_call(SKY_TEMPLATE_READ, layout);
  read_call.add(src);
  read_call.finish();
  Call write_call(SKY_TEMPLATE_WRITE, layout);
  write_call.add(target);
  write_call.finish();
  const std::string origin = Origin::here();
  std::lock_guard<std::mutex> one(between_mutex());
  StreamLock from_lock(from, origin);
  StreamLock to_lock(to, origin);
  const uint32_t read_slot = transfer_slot(from_lock, read_call, src);
  const uint32_t write_slot = transfer_slot(to_lock, write_call, target);
  SkyError error;
  check(from.api().send_between(from.wire(), read_slot, read_call.storages()[0], to.wire(), write_slot,
                                write_call.storages()[0], n_bytes(src), &error),
        error);
}

// The value that the smaller `src` broadcasts to, checked as torch's own copy does.
Tensor broadcast(const Tensor& dst, const Tensor& src) {
  if (dst.sizes() == src.sizes()) {
    return src;
  }
  const auto sizes = at::infer_size(dst.sizes(), src.sizes());
  TORCH_CHECK(dst.sizes() == at::IntArrayRef(sizes), "output with shape ", dst.sizes(),
              " doesn't match the broadcast shape ", at::IntArrayRef(sizes));
  return src.expand(dst.sizes());
}

// The same elements in the same order: a copy would change nothing.
bool is_same_view(const Tensor& a, const Tensor& b) {
  return a.storage_offset() == b.storage_offset() && a.sizes() == b.sizes() && a.strides() == b.strides() &&
         a.scalar_type() == b.scalar_type() && a.is_conj() == b.is_conj() && a.is_neg() == b.is_neg();
}

Tensor& copy_(Tensor& self, const Tensor& src, bool non_blocking) {
  if (self.is_same(src)) {
    return self;
  }
  TORCH_CHECK(!self._is_zerotensor(),
              "ZeroTensors are immutable. Please materialize the tensor using `.clone()`, if "
              "you want a mutable zero tensor.");
  if (src._is_zerotensor()) {
    return self.zero_();
  }
  if (C10_UNLIKELY(self.has_storage() && src.has_storage() && self.storage().is_alias_of(src.storage()))) {
    if (is_same_view(self, src)) {
      return self;
    }
    at::assert_no_partial_overlap(self, src);
  }
  // Torch looks at overlaps before it looks at the sizes.
  if (C10_UNLIKELY(!self.is_non_overlapping_and_dense())) {
    at::assert_no_internal_overlap(self);
  }
  const Tensor value = broadcast(self, src);
  if (self.numel() == 0) {
    return self;
  }
  if (is_sky(self) && is_sky(src)) {
    if (&owner_of(self).session() == &owner_of(src).session()) {
      copy_within(self, src, non_blocking);
    } else if (src.numel() < self.numel()) {
      // Only the distinct elements travel; the far server repeats them.
      self.copy_(src.to(self.device()));
    } else {
      copy_between(self, src);
    }
    return self;
  }
  if (is_sky(self)) {
    TORCH_CHECK(src.device().is_cpu(), "sky: copies from ", src.device(), " go through the cpu: call .cpu() first");
    if (src.layout() != at::kStrided) {
      raise_unsupported("copy_", "sparse tensors");
    }
    if (src.numel() < self.numel()) {
      self.copy_(src.to(self.device()));
    } else {
      upload(self, value, non_blocking);
    }
    return self;
  }
  TORCH_CHECK(self.device().is_cpu(), "sky: copies to ", self.device(), " go through the cpu: call .cpu() first");
  download(self, value);
  return self;
}

Tensor copy_from(const Tensor& self, const Tensor& dst, bool non_blocking) {
  Tensor target = dst;
  return copy_(target, self, non_blocking);
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& dst) {
  dst.resize_(self.sizes());
  return copy_from(self, dst, false);
}

Tensor to_copy(const Tensor& self, std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
               std::optional<at::Device> device, std::optional<bool> pin_memory, bool non_blocking,
               std::optional<at::MemoryFormat> format) {
  static UnboxedOp<at::_ops::_to_copy::schema> kernel(
      c10::Dispatcher::singleton().findSchemaOrThrow(at::_ops::_to_copy::name, at::_ops::_to_copy::overload_name));
  const bool stays = !device.has_value() || *device == self.device() ||
                     (device->type() == c10::DeviceType::PrivateUse1 && !device->has_index() &&
                      self.device().index() == Registry::current());
  if (stays && is_sky(self)) {
    // Without the device: the template's own says where.
    return kernel(self, dtype, layout, std::nullopt, std::nullopt, false, format);
  }
  return at::native::_to_copy(self, dtype, layout, device, pin_memory, non_blocking, format);
}

Tensor clone(const Tensor& self, std::optional<at::MemoryFormat> format) {
  static UnboxedOp<at::_ops::clone::schema> kernel(
      c10::Dispatcher::singleton().findSchemaOrThrow(at::_ops::clone::name, at::_ops::clone::overload_name));
  return self._is_zerotensor() ? at::zeros(self.sizes(), self.options()) : kernel(self, format);
}

at::Scalar local_scalar_dense(const Tensor& self) {
  Tensor host = at::empty(self.sizes(), self.options().device(at::kCPU));
  read(physical(self), host, SKY_LAYOUT_LOGICAL);
  host._set_conj(self.is_conj());
  host._set_neg(self.is_neg());
  return host.item();
}

}  // namespace

void register_copies(torch::Library& m) {
  m.impl("copy_", TORCH_FN(copy_));
  m.impl("_copy_from", TORCH_FN(copy_from));
  m.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  m.impl("_to_copy", TORCH_FN(to_copy));
  m.impl("clone", TORCH_FN(clone));
  m.impl("_local_scalar_dense", TORCH_FN(local_scalar_dense));
}

// The copy carries the bits itself; resolving them first would need a copy.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }

}  // namespace skytorch
