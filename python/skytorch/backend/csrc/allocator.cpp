// ALLOC and RESIZE records and memory figures. See allocator.h.
#include "allocator.h"

#include <c10/core/impl/alloc_cpu.h>

#include "device.h"

namespace skytorch {

SkyAllocator& SkyAllocator::get() {
  // Lives until the process ends: storages hold a pointer to it.
  static SkyAllocator* allocator = std::make_unique<SkyAllocator>().release();
  return *allocator;
}

c10::DataPtr SkyAllocator::allocate(size_t n_bytes) { return allocate_on(Registry::get().at(-1), n_bytes); }

c10::DataPtr SkyAllocator::allocate_on(Device& device, size_t n_bytes) {
  Session& session = device.session();
  StreamLock lock(session);
  StorageContext* context = session.new_storage(device);
  SkyError error;
  const uint32_t code = session.api().alloc(session.wire(), context->id, n_bytes, device.server_device(), &error);
  if (code != SKY_OK) {
    session.forget_storage(context);
    raise(code, error);
  }
  return make_data_ptr(context);
}

// Data and context differ, so that the raw interface cannot be offered.
c10::DeleterFnPtr SkyAllocator::raw_deleter() const { return nullptr; }

void SkyAllocator::copy_data(void* /*dest*/, const void* /*src*/, std::size_t /*count*/) const {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "sky: memory of a remote storage cannot be copied by address; use Tensor.copy_");
}

bool SkyAllocator::initialized() { return Registry::get().count() > 0; }

void SkyAllocator::emptyCache(c10::MempoolId_t /*pool*/) {
  for (c10::DeviceIndex i = 0; i < kMaxDevices; ++i) {
    if (Device* device = Registry::get().find(i)) {
      call(device->session(), SKY_CALL_EMPTY_CACHE, {device->server_device()});
    }
  }
}

// The server runs a session's operators in one order, so that a freed storage is never in use by another stream.
void SkyAllocator::recordStream(const c10::DataPtr& /*data*/, c10::Stream /*stream*/) {}

c10::CachingDeviceAllocator::DeviceStats SkyAllocator::getDeviceStats(c10::DeviceIndex index) {
  const auto stats = memory_stats(Registry::get().at(index));
  c10::CachingDeviceAllocator::DeviceStats out;
  const auto total = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  out.allocated_bytes[total].current = stats[0];
  out.allocated_bytes[total].peak = stats[1];
  out.reserved_bytes[total].current = stats[2];
  out.reserved_bytes[total].peak = stats[3];
  return out;
}

void SkyAllocator::resetAccumulatedStats(c10::DeviceIndex /*index*/) {}

void SkyAllocator::resetPeakStats(c10::DeviceIndex index) {
  Device& device = Registry::get().at(index);
  call(device.session(), SKY_CALL_MEMORY_RESET_PEAK, {device.server_device()});
}

std::pair<size_t, size_t> SkyAllocator::getMemoryInfo(c10::DeviceIndex index) {
  const auto stats = memory_stats(Registry::get().at(index));
  return {static_cast<size_t>(stats[4]), static_cast<size_t>(stats[5])};
}

void resize_storage(c10::StorageImpl* storage, size_t n_bytes) {
  TORCH_CHECK(storage->resizable(), "sky: trying to resize a storage that is not resizable");
  StorageContext* context = context_of(storage);
  if (context == nullptr) {
    Device& device = Registry::get().at(storage->device().index());
    storage->set_data_ptr_noswap(SkyAllocator::get().allocate_on(device, n_bytes));
  } else {
    Session& session = context->device->session();
    StreamLock lock(session);
    SkyError error;
    check(session.api().resize(session.wire(), context->id, n_bytes, &error), error);
  }
  storage->set_nbytes(n_bytes);
}

std::array<int64_t, 6> memory_stats(Device& device) {
  Reply reply(device.session().api());
  ask(device.session(), SKY_CALL_MEMORY_STATS, {device.server_device()}, reply);
  std::array<int64_t, 6> stats{};
  for (size_t i = 0; i < stats.size() && i < reply->n_values; ++i) {
    stats[i] = reply->values[i].integer;
  }
  return stats;
}

}  // namespace skytorch
