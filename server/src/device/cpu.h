// The host as a device: its memory is where the network's bytes arrive, so nothing is staged unless a test says so.
#pragma once

#include <c10/core/CPUAllocator.h>

#include "device.h"
#include "host_memory.h"
#include "page_pool.h"
#include "staging.h"

namespace skytorch::server {

class CpuDevice final : public Device {
 public:
  // With `staging`, bytes take the path that they take on a device with memory of its own (tests).
  explicit CpuDevice(std::shared_ptr<Staging> staging = nullptr);
  at::Device torch_device() const override { return at::Device(at::kCPU); }
  std::string label() const override;
  bool is_host() const override { return staging_ == nullptr; }
  void activate() override {}
  c10::Allocator* allocator() const override { return c10::GetCPUAllocator(); }
  uint64_t allocation_limit() const override { return HostMemory::instance().limit(); }
  at::Generator default_generator() const override;
  at::Generator make_generator() const override;
  void synchronize() override {}
  bool lost() const override { return false; }
  std::unique_ptr<DeviceEvent> make_event() override;
  MemoryStats memory_stats(uint64_t session_bytes, uint64_t session_peak) const override;
  void reset_peak() override {}
  void empty_cache() override { pool_->trim(); }
  void write(void* dst, const uint8_t* src, uint64_t n) override;
  bool read(const void* src, uint64_t n, const ByteSink& sink) override;
  std::shared_ptr<Landing> make_landing(uint64_t n_bytes) override;

 private:
  std::shared_ptr<Staging> staging_;
  std::shared_ptr<PagePool> pool_;
};

}  // namespace skytorch::server
