// What generic torch code asks of an accelerator: is it there, its generators, pinned memory, storage resizing.
// Host memory is not pinned for `sky` (there is no local device to read it), so the host allocator is the CPU's.
#include <ATen/Context.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>

#include "allocator.h"
#include "device.h"
#include "generator.h"

namespace skytorch {

namespace {

struct SkyHooks final : public at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return Registry::get().can_open(); }
  bool hasPrimaryContext(c10::DeviceIndex index) const override { return Registry::get().find(index) != nullptr; }
  void init() const override {}

  c10::DeviceIndex deviceCount() const override { return Registry::get().count(); }
  void setCurrentDevice(c10::DeviceIndex index) const override { Registry::set_current(index); }
  c10::DeviceIndex getCurrentDevice() const override { return Registry::current(); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    const c10::DeviceIndex before = Registry::current();
    Registry::set_current(index);
    return before;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override { return exchangeDevice(index); }

  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) const override {
    return Registry::get().at(index).default_generator();
  }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override {
    return at::Generator(SkyGenerator::create(Registry::get().at(index)));
  }

  at::Device getDeviceFromPtr(void* data) const override {
    StorageContext* context = ContextPool::get().find(data);
    TORCH_CHECK(context != nullptr && context->device != nullptr, "sky: the address ", data,
                " is not of a sky tensor");
    return context->device->device();
  }
  bool isPinnedPtr(const void* /*data*/) const override { return false; }
  at::Allocator* getPinnedMemoryAllocator() const override { return at::getCPUAllocator(); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t n_bytes) const override {
    resize_storage(storage.unsafeGetStorageImpl(), n_bytes);
  }
};

// Runs when the library is loaded. torch keeps the pointers until the process ends.
[[maybe_unused]] const bool registered = [] {
  c10::register_privateuse1_backend("sky");
  c10::SetAllocator(c10::DeviceType::PrivateUse1, &SkyAllocator::get());
  at::RegisterPrivateUse1HooksInterface(std::make_unique<SkyHooks>().release());
  return true;
}();

}  // namespace

}  // namespace skytorch
