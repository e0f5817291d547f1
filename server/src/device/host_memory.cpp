// The account, and the allocator that keeps it.
#include "host_memory.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <malloc.h>
#include <unistd.h>

#include <fstream>

namespace skytorch::server {
namespace {

uint64_t machine_bytes() {
  uint64_t bytes = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGE_SIZE));
  uint64_t group = 0;
  // "max" if there is no limit: no number, and `group` stays 0.
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> group && group > 0) bytes = std::min(bytes, group);
  return bytes;
}

// A block is given back with its usable size, which malloc knows: the pointer needs no context of its own.
void free_counted(void* data) {
  if (data == nullptr) return;
  HostMemory::instance().give(malloc_usable_size(data));
  c10::free_cpu(data);
}

class CountingAllocator final : public c10::Allocator {
 public:
  at::DataPtr allocate(size_t n) override {
    HostMemory& memory = HostMemory::instance();
    if (!memory.take(n)) {
      TORCH_CHECK_WITH(OutOfMemoryError, false, "the server has no memory for ", n, " bytes: ", memory.used(),
                       " are in use and its limit is ", memory.limit(),
                       "; free tensors, or start it with a larger --max-memory");
    }
    void* data = nullptr;
    try {
      data = c10::alloc_cpu(n);
    } catch (...) {
      memory.give(n);
      throw;
    }
    if (data == nullptr) {
      memory.give(n);
    } else {
      memory.correct(n, malloc_usable_size(data));
    }
    return {data, data, &free_counted, at::Device(at::kCPU)};
  }

  at::DeleterFnPtr raw_deleter() const override { return &free_counted; }
  void copy_data(void* dest, const void* src, std::size_t n) const override { default_copy_data(dest, src, n); }
};

}  // namespace

void HostMemory::set_limit(uint64_t bytes) {
  limit_.store(bytes != 0 ? bytes : machine_bytes(), std::memory_order_relaxed);
}

// Never destroyed: storages may outlive everything else of the process.
HostMemory& HostMemory::instance() {
  static HostMemory* const instance = std::unique_ptr<HostMemory>(new HostMemory).release();
  return *instance;
}

void HostMemory::install() {
  static CountingAllocator counting;
  constexpr uint8_t kAboveTorchs = 1;
  c10::SetCPUAllocator(&counting, kAboveTorchs);
}

}  // namespace skytorch::server
