// Runs sessions, one after another, on the thread that calls `serve`: the order in which records arrive is the order
// in which they run (INV-1). It owns nothing of torch beyond a session.
#pragma once

#include "byte_mover.h"
#include "calls.h"
#include "op_runner.h"
#include "template_builder.h"

namespace skytorch::server {

class Executor {
 public:
  Executor(const SkyServerApi& api, const DeviceList& devices, const AllowedNamespaces& namespaces,
           LandingTable& landings, Stats& stats, uint64_t max_storages)
      : api_(api),
        devices_(devices),
        namespaces_(namespaces),
        landings_(landings),
        stats_(stats),
        max_storages_(max_storages) {}

  // Until the server stops. Throws Failure when it cannot go on.
  void serve(const SkyServer* server);

 private:
  // Templates that a client may have at a time.
  static constexpr uint32_t kSlots = 65536;

  void run_session(SkyServerSession* connection);

  const SkyServerApi& api_;
  const DeviceList& devices_;
  const AllowedNamespaces& namespaces_;
  LandingTable& landings_;
  Stats& stats_;
  const uint64_t max_storages_;  // of a session, at a time
};

}  // namespace skytorch::server
