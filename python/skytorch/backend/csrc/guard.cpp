// The device guard of `sky`: current device of the thread, streams and events. Every device has only its default
// stream, because the server runs a session in one order (INV-1); asking for another returns that one.
// The device count is a fixed capacity: the autograd engine reads it once and never again.
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "device.h"
#include "event.h"

namespace skytorch {

namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;

struct SkyGuard final : public c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }

  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override { return {kType, Registry::current()}; }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.type() == kType && device.index() >= 0 && device.index() < kMaxDevices,
                "sky: there is no device ", device);
    Registry::set_current(device.index());
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override { Registry::set_current(device.index()); }
  c10::DeviceIndex deviceCount() const noexcept override { return kMaxDevices; }
  // The dtypes that travel (docs/wire.md), by their numbers: 0 to 11, 15, 23 to 29.
  c10::DeviceCapability getDeviceCapability(c10::Device /*device*/) const override {
    c10::DeviceCapability capability;
    capability.capability_data.capability_bits = 0xFFF | uint64_t{1} << 15 | uint64_t{0x7F} << 23;
    return capability;
  }

  c10::Stream getStream(c10::Device device) const override { return stream(device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return stream(device); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool /*high*/) const override { return stream(device); }
  c10::Stream getNewStream(c10::Device device, int /*priority*/) const override { return stream(device); }
  c10::Stream exchangeStream(c10::Stream other) const override { return stream(other.device()); }
  bool queryStream(const c10::Stream& s) const override {
    synchronizeStream(s);
    return true;
  }
  void synchronizeStream(const c10::Stream& s) const override { synchronizeDevice(s.device_index()); }
  void synchronizeDevice(const c10::DeviceIndex index) const override {
    if (Device* device = Registry::get().find(index)) {
      synchronize(*device);
    }
  }

  void record(void** event, const c10::Stream& s, const c10::DeviceIndex /*index*/,
              const c10::EventFlag /*flag*/) const override {
    Device& device = Registry::get().at(s.device_index());
    if (*event == nullptr) {
      *event = std::make_unique<Recorded>(Recorded{event_create(device), &device}).release();
    }
    event_record(static_cast<Recorded*>(*event)->number, device);
  }
  void block(void* /*event*/, const c10::Stream& /*stream*/) const override {}
  bool queryEvent(void* event) const override {
    synchronizeEvent(event);
    return true;
  }
  void synchronizeEvent(void* event) const override {
    if (const auto* recorded = static_cast<Recorded*>(event)) {
      event_synchronize(recorded->number, *recorded->device);
    }
  }
  double elapsedTime(void* start, void* end, const c10::DeviceIndex /*index*/) const override {
    TORCH_CHECK(start != nullptr && end != nullptr, "sky: both events must be recorded before taking their time");
    const auto* first = static_cast<Recorded*>(start);
    return event_elapsed_ms(first->number, static_cast<Recorded*>(end)->number, *first->device);
  }
  void destroyEvent(void* event, const c10::DeviceIndex /*index*/) const noexcept override {
    const std::unique_ptr<Recorded> recorded(static_cast<Recorded*>(event));
    if (recorded != nullptr && !recorded->device->session().closed()) {
      try {
        event_destroy(recorded->number, *recorded->device);
      } catch (const std::exception&) {
        // The session is dead, and its events with it.
      }
    }
  }

 private:
  struct Recorded {
    int64_t number;
    Device* device;
  };

  static c10::Stream stream(c10::Device device) {
    const c10::Device placed(kType, device.has_index() ? device.index() : Registry::current());
    return c10::Stream(c10::Stream::DEFAULT, placed);
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, SkyGuard)

}  // namespace

}  // namespace skytorch
