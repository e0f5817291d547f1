// The server's door to Python: plain C functions for ctypes (python/skytorch/server/_executor.py), so that a server
// needs libtorch and not the Python package on top of it, whose import is most of a start. ctypes calls without the
// GIL: `serve` may block a Python thread for as long as the server lives. A function answers null, or what went
// wrong.

#include <ATen/Parallel.h>

#include "device/host_memory.h"
#include "executor.h"

namespace skytorch::server {
namespace {

// Bytes of lane transfers that may wait for the executor; less if the process's limit is small.
constexpr uint64_t kMaxLandedBytes = uint64_t{4} << 30;
constexpr uint64_t kMaxLandedShare = 4;

// What this process has once, whatever it serves.
struct Service {
  const SkyServerApi* api = nullptr;
  AllowedNamespaces namespaces;
  LandingTable landings{kMaxLandedBytes};
  Stats stats;
  std::mutex serving;
  uint64_t max_storages = uint64_t{1} << 20;

  const DeviceList& devices() {
    std::call_once(found_, [this] { devices_ = find_devices(); });
    return devices_;
  }

 private:
  std::once_flag found_;
  DeviceList devices_;
};

// Never destroyed: lane threads and storages may outlive the interpreter's last statement.
Service& service() {
  static Service* const instance = std::make_unique<Service>().release();
  return *instance;
}

// Runs `body`; null, or its error's text, which is good until this thread's next call.
template <typename Body>
const char* answer(Body&& body) {
  thread_local std::string text;
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    text = error.what_without_backtrace();
  } catch (const std::exception& error) {
    text = error.what();
  }
  return text.c_str();
}

}  // namespace
}  // namespace skytorch::server

#define SKY_DOOR extern "C" __attribute__((visibility("default")))

using namespace skytorch::server;

SKY_DOOR const char* skytorch_server_attach(const SkyServerApi* api) {
  return answer([&] {
    TORCH_CHECK_VALUE(api != nullptr, "the server table's address is null; pass the one from skytorch._wire");
    TORCH_CHECK(api->abi_version == SKY_ABI_VERSION && api->size >= sizeof(SkyServerApi),
                "skytorch._wire has ABI version ", api->abi_version, " and this libskytorch_server.so was built for ",
                SKY_ABI_VERSION, "; reinstall skytorch so that both come from one version");
    service().api = api;
  });
}

// Before the first use of a device. `max_memory` 0: what the machine has.
SKY_DOOR const char* skytorch_server_set_limits(uint64_t max_memory, uint64_t max_storages) {
  return answer([&] {
    TORCH_CHECK_VALUE(max_storages > 0, "max_storages is 0; a session needs at least one");
    Service& self = service();
    HostMemory::instance().set_limit(max_memory);
    self.landings.set_max_bytes(std::min(kMaxLandedBytes, HostMemory::instance().limit() / kMaxLandedShare));
    self.max_storages = max_storages;
    if (max_memory == 0) return;
    for (const auto& device : self.devices()) device->limit_memory(max_memory);
  });
}

// Calls `tell` with the name ("cuda:0") and the label of each device, in the order of their numbers.
SKY_DOOR const char* skytorch_server_devices(void (*tell)(const char* name, const char* label)) {
  return answer([&] {
    for (const auto& device : service().devices()) {
      tell(device->torch_device().str().c_str(), device->label().c_str());
    }
  });
}

SKY_DOOR const char* skytorch_server_allow_namespace(const char* name) {
  return answer([&] { service().namespaces.allow(name); });
}

// Until the server is stopped.
SKY_DOOR const char* skytorch_server_serve(const SkyServer* server) {
  return answer([&] {
    Service& self = service();
    TORCH_CHECK(self.api != nullptr, "attach the table of skytorch._wire before serving");
    TORCH_CHECK_VALUE(server != nullptr, "the server's address is null; pass Server.pointer of a started server");
    std::unique_lock lock(self.serving, std::try_to_lock);
    TORCH_CHECK(lock.owns_lock(), "this process is serving already; one process serves one session at a time");
    Executor executor(*self.api, self.devices(), self.namespaces, self.landings, self.stats, self.max_storages);
    HostMemory::install();
    executor.serve(server);
  });
}

// Operators executed, records queued, resident bytes.
SKY_DOOR void skytorch_server_stats(uint64_t counts[3]) {
  const Stats& stats = service().stats;
  counts[0] = stats.ops_executed.load(std::memory_order_relaxed);
  counts[1] = stats.records_queued.load(std::memory_order_relaxed);
  counts[2] = stats.resident_bytes.load(std::memory_order_relaxed);
}

SKY_DOOR int skytorch_server_threads() { return at::get_num_threads(); }
