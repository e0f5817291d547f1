// The allocator that torch knows for `sky`. Allocating sends an ALLOC record and hands out a placeholder address; all
// accounting is the server's. It is only used for storages that torch makes itself: outputs of operators come to be
// with the operator's own record.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

namespace skytorch {

class Device;

class SkyAllocator final : public c10::DeviceAllocator {
 public:
  static SkyAllocator& get();

  c10::DataPtr allocate(size_t n_bytes) override;
  c10::DataPtr allocate_on(Device& device, size_t n_bytes);
  c10::DeleterFnPtr raw_deleter() const override;
  void copy_data(void* dest, const void* src, std::size_t count) const override;

  bool initialized() override;
  void emptyCache(c10::MempoolId_t pool) override;
  void recordStream(const c10::DataPtr& data, c10::Stream stream) override;
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex index) override;
  void resetAccumulatedStats(c10::DeviceIndex index) override;
  void resetPeakStats(c10::DeviceIndex index) override;
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex index) override;
};

// Changes the size of a storage here and on the server.
void resize_storage(c10::StorageImpl* storage, size_t n_bytes);

// allocated, max allocated, reserved, max reserved, free, total: bytes, asked from the server.
std::array<int64_t, 6> memory_stats(Device& device);

}  // namespace skytorch
