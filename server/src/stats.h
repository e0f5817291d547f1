// Counters that other threads read while the executor works.
#pragma once

#include <atomic>
#include <cstdint>

namespace skytorch::server {

struct Stats {
  std::atomic<uint64_t> ops_executed{0};
  std::atomic<uint64_t> records_queued{0};  // of the batch that is being executed
  std::atomic<uint64_t> resident_bytes{0};

  // The executor is the only writer, so that no locked instruction is needed.
  static void bump(std::atomic<uint64_t>& counter) {
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
};

}  // namespace skytorch::server
