// CUDA devices, in host code only: pinned slabs, copy streams of their own, events towards the compute stream (the
// executor thread's current stream). Built without nvcc; on a machine without a driver it adds no device.
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "device.h"
#include "staging.h"

namespace skytorch::server {
namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

// A slab is long enough that the bus runs at its full speed, and short enough that the first bytes move early.
constexpr uint64_t kSlabBytes = uint64_t{4} << 20;
constexpr uint32_t kSlabs = 8;

class CudaEventHandle {
 public:
  explicit CudaEventHandle(unsigned flags) { C10_CUDA_CHECK(cudaEventCreateWithFlags(&event_, flags)); }
  ~CudaEventHandle() { C10_CUDA_CHECK_WARN(cudaEventDestroy(event_)); }
  CudaEventHandle(const CudaEventHandle&) = delete;
  CudaEventHandle& operator=(const CudaEventHandle&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class CudaTicket final : public Ticket {
 public:
  explicit CudaTicket(cudaStream_t stream) : event_(cudaEventDisableTiming) {
    C10_CUDA_CHECK(cudaEventRecord(event_.get(), stream));
  }
  void wait() override { C10_CUDA_CHECK(cudaEventSynchronize(event_.get())); }
  cudaEvent_t event() const { return event_.get(); }

 private:
  CudaEventHandle event_;
};

class CudaEngine final : public CopyEngine {
 public:
  explicit CudaEngine(c10::DeviceIndex index)
      : index_(index),
        in_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, index)),
        out_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, index)) {}

  at::DataPtr allocate_slab(uint64_t n_bytes) override {
    const c10::cuda::CUDAGuard guard(index_);
    void* memory = nullptr;
    C10_CUDA_CHECK(cudaHostAlloc(&memory, n_bytes, cudaHostAllocPortable));
    return at::DataPtr(
        memory, memory, [](void* pinned) { C10_CUDA_CHECK_WARN(cudaFreeHost(pinned)); }, at::Device(at::kCPU));
  }

  // The caching allocator orders reuse by stream, so memory got on the copy stream is free of earlier compute.
  at::DataPtr allocate_target(uint64_t n_bytes) override {
    const c10::cuda::CUDAStreamGuard guard(in_);
    return allocator::get()->allocate(n_bytes);
  }

  TicketRef copy(Queue queue, void* dst, const void* src, uint64_t n) override {
    const c10::cuda::CUDAGuard guard(index_);
    const cudaStream_t stream = stream_of(queue);
    C10_CUDA_CHECK(cudaMemcpyAsync(dst, src, n, cudaMemcpyDefault, stream));
    return std::make_shared<CudaTicket>(stream);
  }

  void follow_compute(Queue queue) override {
    const c10::cuda::CUDAGuard guard(index_);
    const CudaTicket computed(stream_of(Queue::Compute));
    C10_CUDA_CHECK(cudaStreamWaitEvent(stream_of(queue), computed.event(), 0));
  }

  void fence(const TicketRef& ticket, const at::DataPtr& target) override {
    const c10::cuda::CUDAGuard guard(index_);
    const auto compute = c10::cuda::getCurrentCUDAStream(index_);
    C10_CUDA_CHECK(cudaStreamWaitEvent(compute.stream(), static_cast<CudaTicket&>(*ticket).event(), 0));
    allocator::recordStream(target, compute);
  }

 private:
  cudaStream_t stream_of(Queue queue) const {
    switch (queue) {
      case Queue::In:
        return in_.stream();
      case Queue::Out:
        return out_.stream();
      case Queue::Compute:
        break;
    }
    return c10::cuda::getCurrentCUDAStream(index_).stream();
  }

  const c10::DeviceIndex index_;
  const c10::cuda::CUDAStream in_;
  const c10::cuda::CUDAStream out_;
};

class CudaDeviceEvent final : public DeviceEvent {
 public:
  explicit CudaDeviceEvent(c10::DeviceIndex index) : index_(index), event_(cudaEventDefault) {}
  void record() override {
    C10_CUDA_CHECK(cudaEventRecord(event_.get(), c10::cuda::getCurrentCUDAStream(index_).stream()));
  }
  void synchronize() override { C10_CUDA_CHECK(cudaEventSynchronize(event_.get())); }
  double elapsed_ms(DeviceEvent& later) override {
    auto* other = dynamic_cast<CudaDeviceEvent*>(&later);
    TORCH_CHECK_VALUE(other != nullptr && other->index_ == index_,
                      "the two events were recorded on different devices");
    synchronize();
    other->synchronize();
    float ms = 0;
    C10_CUDA_CHECK(cudaEventElapsedTime(&ms, event_.get(), other->event_.get()));
    return ms;
  }

 private:
  const c10::DeviceIndex index_;
  CudaEventHandle event_;
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(c10::DeviceIndex index)
      : index_(index), staging_(std::make_shared<Staging>(std::make_unique<CudaEngine>(index), kSlabBytes, kSlabs)) {}

  at::Device torch_device() const override { return at::Device(at::kCUDA, index_); }
  std::string label() const override {
    const cudaDeviceProp* found = at::cuda::getDeviceProperties(index_);
    return std::string(found->name) + " | sm_" + std::to_string(found->major) + std::to_string(found->minor);
  }
  void activate() override { c10::cuda::set_device(index_); }
  c10::Allocator* allocator() const override { return allocator::get(); }
  uint64_t allocation_limit() const override { return at::cuda::getDeviceProperties(index_)->totalGlobalMem; }
  void limit_memory(uint64_t bytes) override {
    allocator::setMemoryFraction(std::min(1.0, static_cast<double>(bytes) / static_cast<double>(allocation_limit())),
                                 index_);
  }
  at::Generator default_generator() const override { return at::cuda::detail::getDefaultCUDAGenerator(index_); }
  at::Generator make_generator() const override { return at::cuda::detail::createCUDAGenerator(index_); }
  void synchronize() override {
    const c10::cuda::CUDAGuard guard(index_);
    c10::cuda::device_synchronize();
  }
  // An error that belongs to one call is not reported again; one that killed the context is, by every call.
  bool lost() const override {
    const c10::cuda::CUDAGuard guard(index_);
    static_cast<void>(cudaGetLastError());
    const cudaError_t now = cudaStreamQuery(c10::cuda::getCurrentCUDAStream(index_).stream());
    return now != cudaSuccess && now != cudaErrorNotReady;
  }
  std::unique_ptr<DeviceEvent> make_event() override { return std::make_unique<CudaDeviceEvent>(index_); }

  MemoryStats memory_stats(uint64_t session_bytes, uint64_t session_peak) const override {
    constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto counted = allocator::getDeviceStats(index_);
    MemoryStats stats;
    stats.allocated = counted.allocated_bytes[kAll].current;
    stats.max_allocated = counted.allocated_bytes[kAll].peak;
    stats.reserved = counted.reserved_bytes[kAll].current;
    stats.max_reserved = counted.reserved_bytes[kAll].peak;
    const c10::cuda::CUDAGuard guard(index_);
    size_t free = 0, total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    stats.free = static_cast<int64_t>(free);
    stats.total = static_cast<int64_t>(total);
    return stats;
  }
  void reset_peak() override { allocator::resetPeakStats(index_); }
  void empty_cache() override { allocator::emptyCache(); }

  void write(void* dst, const uint8_t* src, uint64_t n) override { staging_->write(dst, src, n); }
  bool read(const void* src, uint64_t n, const ByteSink& sink) override { return staging_->read(src, n, sink); }
  std::shared_ptr<Landing> make_landing(uint64_t n_bytes) override { return staging_->make_landing(n_bytes); }

 private:
  const c10::DeviceIndex index_;
  const std::shared_ptr<Staging> staging_;
};

}  // namespace

void append_cuda_devices(DeviceList& devices) {
  const c10::DeviceIndex n = c10::cuda::device_count();  // 0 without a driver
  if (n == 0) return;
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  for (c10::DeviceIndex index = 0; index < n; ++index) devices.push_back(std::make_unique<CudaDevice>(index));
}

}  // namespace skytorch::server
