// Slab rings and the landing that fills them.
#include "staging.h"

#include <cstring>

namespace skytorch::server {

SlabRing::SlabRing(CopyEngine& engine, uint64_t slab_bytes, uint32_t n_slabs)
    : engine_(engine), slab_bytes_(slab_bytes), unmade_(n_slabs) {}

SlabRing::SlabRef SlabRing::take(const std::atomic<bool>* stop) {
  SlabRef slab(nullptr, GiveBack{this});
  {
    std::unique_lock lock(mutex_);
    const auto stopped = [&] { return stop != nullptr && stop->load(); };
    freed_.wait(lock, [&] { return !free_.empty() || unmade_ > 0 || stopped(); });
    if (stopped()) return nullptr;
    if (!free_.empty()) {
      slab.reset(free_.front().release());
      free_.pop_front();
    } else {
      --unmade_;
    }
  }
  if (slab == nullptr) {
    try {
      slab.reset(std::make_unique<Slab>(Slab{engine_.allocate_slab(slab_bytes_), nullptr}).release());
    } catch (...) {
      std::lock_guard lock(mutex_);
      ++unmade_;
      throw;
    }
  }
  if (slab->busy) slab->busy->wait();
  slab->busy = nullptr;
  return slab;
}

void SlabRing::give(std::unique_ptr<Slab> slab) {
  {
    std::lock_guard lock(mutex_);
    free_.push_back(std::move(slab));
  }
  freed_.notify_one();
}

void SlabRing::wake() {
  std::lock_guard lock(mutex_);
  freed_.notify_all();
}

Staging::Staging(std::unique_ptr<CopyEngine> engine, uint64_t slab_bytes, uint32_t n_slabs)
    : engine_(std::move(engine)), in_(*engine_, slab_bytes, n_slabs), out_(*engine_, slab_bytes, n_slabs) {}

void Staging::write(void* dst, const uint8_t* src, uint64_t n) {
  for (uint64_t done = 0; done < n;) {
    const uint64_t piece = std::min(n - done, in_.slab_bytes());
    auto slab = in_.take();
    std::memcpy(slab->data(), src + done, piece);
    slab->busy = engine_->copy(Queue::Compute, static_cast<uint8_t*>(dst) + done, slab->data(), piece);
    done += piece;
  }
}

// The next piece is on the bus while the sink sends this one. With one piece there is nothing to overlap, and the
// compute queue saves a wait between queues.
bool Staging::read(const void* src, uint64_t n, const ByteSink& sink) {
  const Queue queue = n <= out_.slab_bytes() ? Queue::Compute : Queue::Out;
  if (queue == Queue::Out) engine_->follow_compute(queue);
  SlabRing::SlabRef current;
  uint64_t current_bytes = 0;
  bool wanted = true;
  for (uint64_t asked = 0; wanted && (asked < n || current);) {
    SlabRing::SlabRef following;
    const uint64_t piece = std::min(n - asked, out_.slab_bytes());
    if (piece > 0) {
      following = out_.take();
      following->busy = engine_->copy(queue, following->data(), static_cast<const uint8_t*>(src) + asked, piece);
      asked += piece;
    }
    if (current) {
      current->busy->wait();
      current->busy = nullptr;
      wanted = sink(current->data(), current_bytes);
    }
    current = std::move(following);
    current_bytes = piece;
  }
  return wanted;
}

// Bytes go into a slab of the ring; a full slab, and the last one, is copied to a buffer on the device.
class StagedLanding final : public Landing {
 public:
  StagedLanding(std::shared_ptr<Staging> staging, at::DataPtr target, uint64_t n_bytes)
      : staging_(std::move(staging)), target_(std::move(target)), n_bytes_(n_bytes) {}

  ~StagedLanding() override {
    // A copy may still write to the target: it must not be given to somebody else before that.
    if (last_copy_ && target_) last_copy_->wait();
  }

  uint8_t* window(uint64_t offset, uint64_t* capacity) override {
    if (offset >= n_bytes_ || offset != received_) return nullptr;
    if (!slab_) {
      slab_ = staging_->in_.take(&aborted_);
      slab_offset_ = offset;
    }
    if (!slab_ || aborted_) return nullptr;
    const uint64_t used = offset - slab_offset_;
    *capacity = std::min(staging_->in_.slab_bytes() - used, n_bytes_ - offset);
    return slab_->data() + used;
  }

  void commit(uint64_t offset, uint64_t n) override {
    if (!slab_ || offset != received_ || n > staging_->in_.slab_bytes() - (offset - slab_offset_) ||
        n > n_bytes_ - offset) {
      abort();
      return;
    }
    received_ += n;
    const uint64_t used = received_ - slab_offset_;
    if (used < staging_->in_.slab_bytes() && received_ < n_bytes_) return;
    last_copy_ =
        staging_->engine_->copy(Queue::In, static_cast<uint8_t*>(target_.get()) + slab_offset_, slab_->data(), used);
    slab_->busy = last_copy_;
    slab_.reset();
  }

  void abort() override {
    aborted_ = true;
    staging_->in_.wake();
  }

  at::DataPtr take() override {
    if (last_copy_) staging_->engine_->fence(last_copy_, target_);
    return std::move(target_);
  }

 private:
  std::shared_ptr<Staging> staging_;
  at::DataPtr target_;
  const uint64_t n_bytes_;
  SlabRing::SlabRef slab_;
  uint64_t slab_offset_ = 0;
  uint64_t received_ = 0;
  TicketRef last_copy_;  // the queue is in order: when it is done, all are
  std::atomic<bool> aborted_{false};
};

std::shared_ptr<Landing> Staging::make_landing(uint64_t n_bytes) {
  auto target = engine_->allocate_target(n_bytes);
  if (!target && n_bytes > 0) return nullptr;
  return std::make_shared<StagedLanding>(shared_from_this(), std::move(target), n_bytes);
}

}  // namespace skytorch::server
