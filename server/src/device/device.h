// What the executor needs of a device, and nothing else: memory, the order of copies against its compute, events,
// numbers about memory. Implementations: cpu.h, cuda.cpp. Everything is called by the executor thread, except
// `make_landing` and what it returns, which lane threads use.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace skytorch::server {

// In bytes.
struct MemoryStats {
  int64_t allocated = 0;
  int64_t max_allocated = 0;
  int64_t reserved = 0;
  int64_t max_reserved = 0;
  int64_t free = 0;
  int64_t total = 0;
};

class DeviceEvent {
 public:
  virtual ~DeviceEvent() = default;
  virtual void record() = 0;
  virtual void synchronize() = 0;
  // Both must have been recorded; waits for both.
  virtual double elapsed_ms(DeviceEvent& later) = 0;
};

// Where the bytes of one lane transfer land. `window` and `commit` are called by one lane thread; once the transfer
// is complete, `take` is called once, by the executor.
class Landing {
 public:
  virtual ~Landing() = default;
  // Where bytes at `offset` go, and how many fit there; may wait for a free slab. Null: `abort` was called.
  virtual uint8_t* window(uint64_t offset, uint64_t* capacity) = 0;
  virtual void commit(uint64_t offset, uint64_t n) = 0;
  // Any thread: nobody will take it; a waiting `window` returns.
  virtual void abort() = 0;
  // The bytes as memory of some device. Whatever the executor enqueues on that device afterwards sees them.
  virtual at::DataPtr take() = 0;
};

// Receives consecutive pieces; false: stop.
using ByteSink = std::function<bool(const uint8_t* data, uint64_t n)>;

class Device {
 public:
  virtual ~Device() = default;
  virtual at::Device torch_device() const = 0;
  // For people and for `torch.sky`: the name, and "sm_90" or "8 threads".
  virtual std::string label() const = 0;
  // The network takes bytes from where they lie in its memory.
  virtual bool is_host() const { return false; }
  // Makes it the calling thread's current device.
  virtual void activate() = 0;
  virtual c10::Allocator* allocator() const = 0;
  // No single storage can be larger; asking for more is out of memory.
  virtual uint64_t allocation_limit() const = 0;
  // Tensors on it may take no more than this. The host's limit is HostMemory's.
  virtual void limit_memory(uint64_t bytes) {}
  virtual at::Generator default_generator() const = 0;
  virtual at::Generator make_generator() const = 0;

  virtual void synchronize() = 0;
  // It has failed in a way that only a new process mends. Asked after a failure, never on the hot path.
  virtual bool lost() const = 0;
  virtual std::unique_ptr<DeviceEvent> make_event() = 0;
  // `session_bytes`, `session_peak`: what the session's storages take, for devices whose allocator does not count.
  virtual MemoryStats memory_stats(uint64_t session_bytes, uint64_t session_peak) const = 0;
  virtual void reset_peak() = 0;
  virtual void empty_cache() = 0;

  // Copies host bytes to `dst`, after all compute before it and before all compute after it. `src` may be reused at
  // once.
  virtual void write(void* dst, const uint8_t* src, uint64_t n) = 0;
  // Hands `n` bytes at `src`, as all compute before left them, to `sink`. False if the sink stopped it.
  virtual bool read(const void* src, uint64_t n, const ByteSink& sink) = 0;
  // Null when there is no memory. Lane threads.
  virtual std::shared_ptr<Landing> make_landing(uint64_t n_bytes) = 0;
};

using DeviceList = std::vector<std::unique_ptr<Device>>;

// The devices of this machine in the order of their server device numbers: "cpu" first, then each CUDA device if
// this build has the CUDA half and the machine a driver.
DeviceList find_devices();
// In cuda.cpp, or in no_cuda.cpp when the CUDA half is not built.
void append_cuda_devices(DeviceList& devices);

}  // namespace skytorch::server
