// A CopyEngine whose copies happen only when somebody waits for them: code that forgets to wait, or that reuses a
// slab too early, gets wrong bytes every time and not once in a thousand runs. Copies on the compute queue happen at
// once, because compute on the CPU does.
#pragma once

#include <cstring>

#include "../../../server/src/device/copy_engine.h"

namespace skytorch::server::test {

class LazyEngine : public CopyEngine {
 public:
  at::DataPtr allocate_slab(uint64_t n_bytes) override { return c10::GetCPUAllocator()->allocate(n_bytes); }
  at::DataPtr allocate_target(uint64_t n_bytes) override { return c10::GetCPUAllocator()->allocate(n_bytes); }

  TicketRef copy(Queue queue, void* dst, const void* src, uint64_t n) override {
    auto pending = std::make_shared<Pending>(Pending{dst, src, n, false});
    std::lock_guard lock(mutex_);
    if (queue == Queue::Compute) {
      run(*pending);
    } else {
      queues_[static_cast<size_t>(queue)].push_back(pending);
    }
    return std::make_shared<LazyTicket>(*this, queue, std::move(pending));
  }
  void follow_compute(Queue queue) override {}
  void fence(const TicketRef& ticket, const at::DataPtr& target) override { ticket->wait(); }

 private:
  struct Pending {
    void* dst;
    const void* src;
    uint64_t n;
    bool done;
  };
  class LazyTicket final : public Ticket {
   public:
    LazyTicket(LazyEngine& engine, Queue queue, std::shared_ptr<Pending> pending)
        : engine_(engine), queue_(queue), pending_(std::move(pending)) {}
    void wait() override { engine_.run_until(queue_, *pending_); }

   private:
    LazyEngine& engine_;
    const Queue queue_;
    std::shared_ptr<Pending> pending_;
  };

  static void run(Pending& pending) {
    std::memcpy(pending.dst, pending.src, pending.n);
    pending.done = true;
  }
  void run_until(Queue queue, Pending& last) {
    std::lock_guard lock(mutex_);
    auto& waiting = queues_[static_cast<size_t>(queue)];
    while (!last.done) {
      run(*waiting.front());
      waiting.pop_front();
    }
  }

  std::mutex mutex_;
  std::deque<std::shared_ptr<Pending>> queues_[3];
};

}  // namespace skytorch::server::test
