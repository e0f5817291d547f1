// Everything that one client has on this server. It is made when a session is accepted and destroyed when it ends, so
// nothing of one client is left for the next. Executor thread only.
#pragma once

#include "context_flags.h"
#include "device/device.h"
#include "op_template.h"
#include "stats.h"
#include "storage_table.h"

namespace skytorch::server {

// The device that is current for the executor thread.
class CurrentDevice {
 public:
  explicit CurrentDevice(const DeviceList& devices) : devices_(devices) {}
  // `number` must be one of the list.
  void use(uint32_t number) {
    if (number == active_) return;
    devices_[number]->activate();
    active_ = number;
  }

 private:
  const DeviceList& devices_;
  uint32_t active_ = ~uint32_t{0};
};

struct Session {
  Session(const SkyServerApi& api, SkyServerSession* connection, const DeviceList& devices, Stats& stats,
          uint64_t max_storages)
      : api(api),
        connection(connection),
        devices(devices),
        stats(stats),
        flags(devices),
        current_device(devices),
        storages(stats.resident_bytes, max_storages) {}

  // The entry's storage, with memory behind it. ALLOC only notes the size, so that the usual first use of a storage,
  // an upload, can bring the memory along.
  const c10::Storage& touch(StorageEntry& entry);

  const SkyServerApi& api;
  SkyServerSession* const connection;
  const DeviceList& devices;
  Stats& stats;

  ContextFlags flags;  // restores the process's flags when the session ends
  CurrentDevice current_device;
  GeometryTable geometries;
  std::vector<std::unique_ptr<const OpTemplate>> templates;  // by slot
  StorageTable storages;
  PoisonLog poisons;
  std::unordered_map<int64_t, at::Generator> generators;
  std::unordered_map<int64_t, std::unique_ptr<DeviceEvent>> events;
};

}  // namespace skytorch::server
