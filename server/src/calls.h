// The CALL records: flags, generators, events, synchronisation, memory. One method of SKY_CALL_* is one function
// here. A call that fails answers its request with the error, or, if it has none, leaves a poison for the next wait.
#pragma once

#include "session.h"

namespace skytorch::server {

class Calls {
 public:
  explicit Calls(Session& session) : session_(session) {}
  void run(const SkyRecord& record);

 private:
  void dispatch(const SkyRecord& record);
  int64_t argument(const SkyRecord& record, uint32_t position) const;
  uint32_t device(const SkyRecord& record, uint32_t position);
  DeviceEvent& event(int64_t id);
  at::Generator generator(int64_t id, uint32_t device);
  void seed(int64_t id, uint32_t device, int64_t seed);
  void get_state(const SkyRecord& record);
  void set_state(const SkyRecord& record);
  void synchronize(const SkyRecord& record);
  void take_poison(const SkyRecord& record);
  void memory_stats(const SkyRecord& record);

  Session& session_;
};

}  // namespace skytorch::server
