// The server's door to Python: operators of the namespace `skytorch_server` (torch.ops.load_library brings them in).
// Calls through torch.ops run without the GIL, so `serve` may block a Python thread for as long as the server lives.

#include "deny_list.h"
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

void attach(int64_t table) {
  const auto* api = reinterpret_cast<const SkyServerApi*>(table);
  TORCH_CHECK_VALUE(api != nullptr, "the server table's address is null; pass the one from skytorch._wire");
  TORCH_CHECK(api->abi_version == SKY_ABI_VERSION && api->size >= sizeof(SkyServerApi),
              "skytorch._wire has ABI version ", api->abi_version, " and this libskytorch_server.so was built for ",
              SKY_ABI_VERSION, "; reinstall skytorch so that both come from one version");
  service().api = api;
}

std::vector<std::string> devices() {
  std::vector<std::string> names;
  for (const auto& device : service().devices()) names.push_back(device->torch_device().str());
  return names;
}

std::string device_label(int64_t number) {
  const DeviceList& devices = service().devices();
  TORCH_CHECK_INDEX(number >= 0 && number < static_cast<int64_t>(devices.size()), "this server has no device number ",
                    number, "; it has ", devices.size());
  return devices[number]->label();
}

// Before the first use of a device. `max_memory` 0: what the machine has.
void set_limits(int64_t max_memory, int64_t max_storages) {
  TORCH_CHECK_VALUE(max_memory >= 0, "max_memory is ", max_memory, "; give bytes, or 0 for what the machine has");
  TORCH_CHECK_VALUE(max_storages > 0, "max_storages is ", max_storages, "; a session needs at least one");
  Service& self = service();
  HostMemory::instance().set_limit(static_cast<uint64_t>(max_memory));
  self.landings.set_max_bytes(std::min(kMaxLandedBytes, HostMemory::instance().limit() / kMaxLandedShare));
  self.max_storages = static_cast<uint64_t>(max_storages);
  if (max_memory == 0) return;
  for (const auto& device : self.devices()) device->limit_memory(static_cast<uint64_t>(max_memory));
}

void serve(int64_t server) {
  Service& self = service();
  TORCH_CHECK(self.api != nullptr, "attach the table of skytorch._wire before serving");
  TORCH_CHECK_VALUE(server != 0, "the server's address is null; pass Server.pointer of a started server");
  std::unique_lock lock(self.serving, std::try_to_lock);
  TORCH_CHECK(lock.owns_lock(), "this process is serving already; one process serves one session at a time");
  Executor executor(*self.api, self.devices(), self.namespaces, self.landings, self.stats, self.max_storages);
  HostMemory::install();
  executor.serve(reinterpret_cast<const SkyServer*>(server));
}

std::vector<int64_t> stats() {
  const Stats& stats = service().stats;
  const auto value = [](const std::atomic<uint64_t>& counter) {
    return static_cast<int64_t>(counter.load(std::memory_order_relaxed));
  };
  return {value(stats.ops_executed), value(stats.records_queued), value(stats.resident_bytes),
          value(stats.sessions_served)};
}

void allow_namespace(std::string name) { service().namespaces.allow(name); }

}  // namespace
}  // namespace skytorch::server

TORCH_LIBRARY(skytorch_server, library) {
  using namespace skytorch::server;
  library.def("attach(int server_api) -> ()", &attach);
  library.def("devices() -> str[]", &devices);
  library.def("device_label(int device) -> str", &device_label);
  library.def("set_limits(int max_memory, int max_storages) -> ()", &set_limits);
  library.def("serve(int server) -> ()", &serve);
  library.def("stats() -> int[]", &stats);
  library.def("deny_list() -> str[]", [] { return deny_list(); });
  library.def("allow_namespace(str name) -> ()", &allow_namespace);
}
