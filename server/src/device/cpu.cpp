// The host as a device.
#include "cpu.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <limits>

namespace skytorch::server {
namespace {

// Free landing buffers that are kept for the next transfers; less if the process's limit is small.
constexpr uint64_t kMaxPooledBytes = uint64_t{1} << 30;
constexpr uint64_t kMaxPooledShare = 8;

class CpuEvent final : public DeviceEvent {
 public:
  void record() override { at_ = Clock::now(); }
  void synchronize() override {}
  double elapsed_ms(DeviceEvent& later) override {
    const auto* other = dynamic_cast<CpuEvent*>(&later);
    TORCH_CHECK_VALUE(other != nullptr, "the two events were recorded on different devices");
    return std::chrono::duration<double, std::milli>(other->at_ - at_).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point at_;
};

// Bytes land in the memory that becomes the storage.
class HostLanding final : public Landing {
 public:
  HostLanding(at::DataPtr memory, uint64_t n_bytes) : memory_(std::move(memory)), n_bytes_(n_bytes) {}

  uint8_t* window(uint64_t offset, uint64_t* capacity) override {
    if (offset >= n_bytes_ || aborted_) return nullptr;
    *capacity = n_bytes_ - offset;
    return static_cast<uint8_t*>(memory_.get()) + offset;
  }
  void commit(uint64_t offset, uint64_t n) override {}
  void abort() override { aborted_ = true; }
  at::DataPtr take() override { return std::move(memory_); }

 private:
  at::DataPtr memory_;
  const uint64_t n_bytes_;
  std::atomic<bool> aborted_{false};
};

std::string model_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  }
  return "CPU";
}

// What a new allocation could get without swapping: page caches, which Linux gives up when asked, count as free.
uint64_t available_bytes() {
  std::ifstream info("/proc/meminfo");
  uint64_t kib = 0;
  for (std::string word; info >> word;) {
    if (word == "MemAvailable:" && info >> kib) return kib << 10;
  }
  return std::numeric_limits<uint64_t>::max();
}

}  // namespace

CpuDevice::CpuDevice(std::shared_ptr<Staging> staging)
    : staging_(std::move(staging)),
      pool_(PagePool::make(std::min(kMaxPooledBytes, HostMemory::instance().limit() / kMaxPooledShare))) {}

std::string CpuDevice::label() const {
  return model_name() + " | " + std::to_string(at::get_num_threads()) + " threads";
}

at::Generator CpuDevice::default_generator() const { return at::detail::getDefaultCPUGenerator(); }

at::Generator CpuDevice::make_generator() const { return at::detail::createCPUGenerator(); }

std::unique_ptr<DeviceEvent> CpuDevice::make_event() { return std::make_unique<CpuEvent>(); }

MemoryStats CpuDevice::memory_stats(uint64_t session_bytes, uint64_t session_peak) const {
  MemoryStats stats;
  stats.allocated = stats.reserved = static_cast<int64_t>(session_bytes);
  stats.max_allocated = stats.max_reserved = static_cast<int64_t>(session_peak);
  const HostMemory& memory = HostMemory::instance();
  const uint64_t left = memory.limit() - std::min(memory.used(), memory.limit());
  stats.total = static_cast<int64_t>(memory.limit());
  stats.free = static_cast<int64_t>(std::min(left, available_bytes()));
  return stats;
}

void CpuDevice::write(void* dst, const uint8_t* src, uint64_t n) {
  if (staging_) return staging_->write(dst, src, n);
  if (n > 0) std::memcpy(dst, src, n);
}

bool CpuDevice::read(const void* src, uint64_t n, const ByteSink& sink) {
  if (staging_) return staging_->read(src, n, sink);
  return sink(static_cast<const uint8_t*>(src), n);
}

std::shared_ptr<Landing> CpuDevice::make_landing(uint64_t n_bytes) {
  if (staging_) return staging_->make_landing(n_bytes);
  auto memory = pool_->allocate(n_bytes);
  if (!memory) return nullptr;
  return std::make_shared<HostLanding>(std::move(memory), n_bytes);
}

DeviceList find_devices() {
  DeviceList devices;
  devices.push_back(std::make_unique<CpuDevice>());
  append_cuda_devices(devices);
  return devices;
}

}  // namespace skytorch::server
