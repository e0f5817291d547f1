// Opening, closing and finding devices. See device.h.
#include "device.h"

#include <ATen/CPUGeneratorImpl.h>

#include "generator.h"

namespace skytorch {

thread_local c10::DeviceIndex Registry::current_ = 0;

Registry& Registry::get() {
  // Lives until the process ends: tensors are destroyed after every static object.
  static Registry* registry = std::make_unique<Registry>().release();
  return *registry;
}

void Registry::attach(int64_t client_api) {
  const auto* api = reinterpret_cast<const SkyClientApi*>(client_api);
  TORCH_CHECK_VALUE(api != nullptr, "skytorch: attach needs the table that skytorch._wire.client_api() hands out");
  TORCH_CHECK(api->abi_version == SKY_ABI_VERSION && api->size >= sizeof(SkyClientApi),
              "skytorch: skytorch._wire has ABI ", api->abi_version, " (", api->size,
              " bytes) and this backend library was built for ABI ", SKY_ABI_VERSION, " (", sizeof(SkyClientApi),
              " bytes); install both from the same SkyTorch, or run `skytorch build-backend`");
  api_ = api;
}

const SkyClientApi& Registry::api() const {
  const SkyClientApi* api = api_;
  TORCH_CHECK(api != nullptr, "sky: the wire is not attached; `import skytorch` does it");
  return *api;
}

Session& Registry::session_of(const SkySession* wire) {
  for (auto& session : sessions_) {
    if (session->wire() == wire && !session->closed()) {
      return *session;
    }
  }
  return *sessions_.emplace_back(std::make_unique<Session>(&api(), wire));
}

c10::DeviceIndex Registry::open(int64_t session, uint8_t server_device, std::string server_type) {
  Device* device = nullptr;
  {
    std::lock_guard<std::mutex> hold(mutex_);
    for (auto& old : sessions_) {
      if (old->closed()) {
        old->reclaim();
      }
    }
    c10::DeviceIndex index = 0;
    while (index < kMaxDevices && find(index) != nullptr) {
      ++index;
    }
    TORCH_CHECK(index < kMaxDevices, "sky: ", int{kMaxDevices},
                " devices are open, which is as many as there can be; close a Compute first");
    Session& owner = session_of(reinterpret_cast<const SkySession*>(session));
    devices_.push_back(std::make_unique<Device>(owner, index, server_device, std::move(server_type)));
    device = devices_.back().get();
    device->set_default_generator(at::make_generator<SkyGenerator>(*device, int64_t{0}));
    open_[static_cast<size_t>(index)].store(device, std::memory_order_release);
  }
  // As on cuda: a torch.manual_seed that came before the device counts for it.
  try {
    device->default_generator().unsafeGetGeneratorImpl()->set_current_seed(
        at::detail::getDefaultCPUGenerator().current_seed());
  } catch (...) {
    close(device->index());
    throw;
  }
  return device->index();
}

void Registry::close(c10::DeviceIndex index) {
  std::lock_guard<std::mutex> hold(mutex_);
  TORCH_CHECK_VALUE(find(index) != nullptr, "sky: device sky:", int{index}, " is not open");
  Session& session = open_[static_cast<size_t>(index)].exchange(nullptr)->session();
  for (auto& slot : open_) {
    Device* other = slot.load();
    if (other != nullptr && &other->session() == &session) {
      return;
    }
  }
  session.close();
}

Device& Registry::at(c10::DeviceIndex index) {
  if (index < 0) {
    index = current_;
  }
  Device* device = find(index);
  if (C10_LIKELY(device != nullptr)) {
    return *device;
  }
  if (const Opener opener = opener_; opener != nullptr && count() == 0) {
    SkyError error{};
    check(opener(error.message, sizeof(error.message)), error);
    device = find(index);
  }
  if (device == nullptr) {
    std::string open;
    for (c10::DeviceIndex i = 0; i < kMaxDevices; ++i) {
      if (find(i) != nullptr) {
        open += (open.empty() ? "sky:" : ", sky:") + std::to_string(i);
      }
    }
    raise(SKY_ERR_DEVICE_NOT_FOUND, "sky: device sky:" + std::to_string(index) + " is not open (open: " +
                                        (open.empty() ? "none" : open) + "); use Compute.device() to get one");
  }
  return *device;
}

c10::DeviceIndex Registry::count() const noexcept {
  c10::DeviceIndex n = 0;
  for (const auto& slot : open_) {
    n = static_cast<c10::DeviceIndex>(n + (slot.load(std::memory_order_relaxed) != nullptr));
  }
  return n;
}

}  // namespace skytorch
