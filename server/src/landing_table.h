// Transfers that lanes bring, by number, until the executor takes them at their fence (INV-1). Lane threads enter
// through the C table (`api`), the executor through `wait`. Lanes do not depend on the executor (INV-7) until
// `max_bytes` of landed or landing bytes, or very many transfers, are waiting for it; the transfer that the executor
// itself waits for is always let in, so the two cannot block each other.
#pragma once

#include <skytorch/wire.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "device/device.h"

namespace skytorch::server {

class LandingTable {
 public:
  explicit LandingTable(uint64_t max_bytes) : max_bytes_(max_bytes) {}
  // Before anything lands.
  void set_max_bytes(uint64_t max_bytes) { max_bytes_ = max_bytes; }
  ~LandingTable() = default;
  LandingTable(const LandingTable&) = delete;
  LandingTable& operator=(const LandingTable&) = delete;

  SkyLandingApi api();

  // Where the next transfers are likely to go: a transfer does not say it. A wrong guess costs a copy, nothing else.
  void set_target(Device* device) { target_.store(device, std::memory_order_relaxed); }
  // A new session may bring transfers.
  void open();
  // The session is over: what has landed is dropped, what is landing is refused.
  void close();
  // The landed transfer. Null if `dead` became true first. Throws Failure if its size is not `n_bytes`. Executor
  // thread.
  std::shared_ptr<Landing> wait(uint64_t transfer, uint64_t n_bytes, const std::function<bool()>& dead);

 private:
  struct Handle;
  struct Arrival {
    std::shared_ptr<Landing> landing;  // null once it failed
    uint64_t n_bytes = 0;              // that it takes
    bool ended = false;
    uint32_t code = SKY_OK;  // why it failed; kept when the transfer is begun again, until that one succeeds
    uint64_t serial = 0;     // a transfer that broke off may be begun again under the same number
  };

  void* begin(uint64_t transfer, uint64_t n_bytes);
  void finish(std::unique_ptr<Handle> handle, uint32_t code);
  void fail(Arrival& arrival, uint32_t code);

  // Transfers that wait for the executor, failed ones included: each may take a mapping, of which a process has few.
  static constexpr size_t kMaxArrivals = 1024;

  uint64_t max_bytes_;
  std::atomic<Device*> target_{nullptr};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<uint64_t, Arrival> arrivals_;
  uint64_t bytes_ = 0;
  uint64_t awaited_ = 0;  // the transfer at whose fence the executor stands
  bool waiting_ = false;
  uint64_t next_serial_ = 1;
  bool open_ = false;
};

}  // namespace skytorch::server
