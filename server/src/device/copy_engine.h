// The few primitives from which staging (staging.h) is made for a device whose memory is not the host's: slabs of
// pinned memory, copies that return before they are done, and waits. `cuda.cpp` implements it with streams and
// events; the tests implement it with a thread and injected delays, so that the ordering is tested without a GPU.
// Safe to call from any thread, except that what names Queue::Compute belongs to the executor thread.
#pragma once

#include <ATen/ATen.h>

#include <memory>

namespace skytorch::server {

// Copies on one queue run in order; queues run beside each other unless told to wait.
enum class Queue : uint8_t { Compute, In, Out };

// A copy that was enqueued.
class Ticket {
 public:
  virtual ~Ticket() = default;
  // Blocks the calling thread until the copy is done.
  virtual void wait() = 0;
};
using TicketRef = std::shared_ptr<Ticket>;

class CopyEngine {
 public:
  virtual ~CopyEngine() = default;
  // Pinned host memory.
  virtual at::DataPtr allocate_slab(uint64_t n_bytes) = 0;
  // Device memory that Queue::In may write at once. A null DataPtr, or an exception, when there is none.
  virtual at::DataPtr allocate_target(uint64_t n_bytes) = 0;
  // Between a slab and device memory, either way.
  virtual TicketRef copy(Queue queue, void* dst, const void* src, uint64_t n) = 0;
  // What is enqueued on `queue` from now on waits for the compute enqueued so far.
  virtual void follow_compute(Queue queue) = 0;
  // Compute enqueued from now on waits for the copy; `target` came from allocate_target and is now used by compute.
  virtual void fence(const TicketRef& ticket, const at::DataPtr& target) = 0;
};

}  // namespace skytorch::server
