// The host memory that this process gives to tensors, and where that ends. Once installed, torch's CPU allocator
// counts here, so the limit holds for every tensor, also for those that an operator makes and drops. Landing buffers
// and the pages of the storage table are taken from the same account. Any thread.
//
// What is not counted: torch's own libraries, code, stacks, templates (bounded by limits of the wire), and free
// landing buffers, of which the pool keeps at most an eighth of the limit.
#pragma once

#include <atomic>

namespace skytorch::server {

class HostMemory {
 public:
  // 0: what the machine, or this process's control group, has.
  void set_limit(uint64_t bytes);
  uint64_t limit() const { return limit_.load(std::memory_order_relaxed); }
  uint64_t used() const { return used_.load(std::memory_order_relaxed); }

  // False, and nothing was taken, if that would pass the limit.
  bool take(uint64_t n) {
    if (used_.fetch_add(n, std::memory_order_relaxed) + n <= limit()) [[likely]]
      return true;
    give(n);
    return false;
  }
  // A block for which `n` was taken turned out to be of this size.
  void correct(uint64_t n, uint64_t size) { used_.fetch_add(size - n, std::memory_order_relaxed); }
  void give(uint64_t n) { used_.fetch_sub(n, std::memory_order_relaxed); }

  // The one of this process.
  static HostMemory& instance();
  // Makes torch's CPU allocator count here, for the rest of the process's life.
  static void install();

 private:
  HostMemory() { set_limit(0); }

  std::atomic<uint64_t> limit_{0};
  std::atomic<uint64_t> used_{0};
};

}  // namespace skytorch::server
