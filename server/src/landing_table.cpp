// The landing table and its C entry points.
#include "landing_table.h"

#include "failure.h"

namespace skytorch::server {

// What a lane holds between `begin` and `finish`. It keeps the landing alive even when the session is over.
struct LandingTable::Handle {
  LandingTable* table;
  uint64_t transfer;
  uint64_t serial;
  std::shared_ptr<Landing> landing;
};

SkyLandingApi LandingTable::api() {
  SkyLandingApi api{};
  api.ctx = this;
  api.begin = [](void* ctx, uint64_t transfer, uint64_t n_bytes) -> void* {
    try {
      return static_cast<LandingTable*>(ctx)->begin(transfer, n_bytes);
    } catch (...) {
      return nullptr;  // out of memory: the transfer is refused
    }
  };
  api.window = [](void* landing, uint64_t offset, uint64_t* capacity) -> uint8_t* {
    try {
      return static_cast<Handle*>(landing)->landing->window(offset, capacity);
    } catch (...) {
      return nullptr;
    }
  };
  api.commit = [](void* landing, uint64_t offset, uint64_t n) {
    auto& target = *static_cast<Handle*>(landing)->landing;
    try {
      target.commit(offset, n);
    } catch (...) {
      target.abort();  // the next window is refused, and the lane tells
    }
  };
  api.finish = [](void* landing, uint32_t code) {
    std::unique_ptr<Handle> handle(static_cast<Handle*>(landing));
    LandingTable& table = *handle->table;
    table.finish(std::move(handle), code);
  };
  return api;
}

void* LandingTable::begin(uint64_t transfer, uint64_t n_bytes) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] {
      return !open_ || arrivals_.empty() || (waiting_ && awaited_ == transfer) ||
             (n_bytes <= max_bytes_ && bytes_ <= max_bytes_ - n_bytes);
    });
    if (!open_) return nullptr;
  }
  Device* device = target_.load(std::memory_order_relaxed);
  if (device == nullptr) return nullptr;
  auto landing = device->make_landing(n_bytes);
  if (landing == nullptr) return nullptr;

  auto handle = std::make_unique<Handle>(Handle{this, transfer, 0, landing});
  std::lock_guard lock(mutex_);
  if (!open_) return nullptr;
  auto it = arrivals_.find(transfer);
  if (it != arrivals_.end()) forget(it);
  handle->serial = next_serial_++;
  arrivals_.emplace(transfer, Arrival{std::move(landing), n_bytes, false, handle->serial});
  bytes_ += n_bytes;
  return handle.release();
}

void LandingTable::finish(std::unique_ptr<Handle> handle, uint32_t code) {
  std::lock_guard lock(mutex_);
  auto it = arrivals_.find(handle->transfer);
  if (it == arrivals_.end() || it->second.serial != handle->serial) return;
  if (code == SKY_OK) {
    it->second.complete = true;
  } else {
    forget(it);
  }
  changed_.notify_all();
}

void LandingTable::forget(std::unordered_map<uint64_t, Arrival>::iterator it) {
  it->second.landing->abort();
  bytes_ -= it->second.n_bytes;
  arrivals_.erase(it);
}

void LandingTable::open() {
  std::lock_guard lock(mutex_);
  open_ = true;
}

void LandingTable::close() {
  std::lock_guard lock(mutex_);
  open_ = false;
  while (!arrivals_.empty()) forget(arrivals_.begin());
  changed_.notify_all();
}

std::shared_ptr<Landing> LandingTable::wait(uint64_t transfer, uint64_t n_bytes, const std::function<bool()>& dead) {
  // How soon a dead peer is noticed; a transfer that completes wakes the wait at once.
  constexpr auto kDeadCheckInterval = std::chrono::milliseconds(50);
  std::unique_lock lock(mutex_);
  awaited_ = transfer;
  waiting_ = true;
  changed_.notify_all();
  const auto complete = [&] {
    auto it = arrivals_.find(transfer);
    return it != arrivals_.end() && it->second.complete;
  };
  while (!changed_.wait_for(lock, kDeadCheckInterval, complete)) {
    lock.unlock();
    const bool is_dead = dead();
    lock.lock();
    if (is_dead) break;
  }
  waiting_ = false;
  auto it = arrivals_.find(transfer);
  if (it == arrivals_.end() || !it->second.complete) return nullptr;
  auto landing = it->second.landing;
  const uint64_t landed_bytes = it->second.n_bytes;
  bytes_ -= landed_bytes;
  arrivals_.erase(it);
  changed_.notify_all();
  if (landed_bytes != n_bytes) {
    throw Failure(SKY_ERR_PROTOCOL, "transfer " + std::to_string(transfer) + " brought " +
                                        std::to_string(landed_bytes) + " bytes and its record names " +
                                        std::to_string(n_bytes));
  }
  return landing;
}

}  // namespace skytorch::server
