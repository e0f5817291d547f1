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
      if (!open_ || (waiting_ && awaited_ == transfer)) return true;
      const bool has_number = arrivals_.size() < kMaxArrivals || arrivals_.count(transfer) != 0;
      return has_number && (bytes_ == 0 || (n_bytes <= max_bytes_ && bytes_ <= max_bytes_ - n_bytes));
    });
    if (!open_) return nullptr;
  }
  Device* device = target_.load(std::memory_order_relaxed);
  std::shared_ptr<Landing> landing;
  try {
    if (device != nullptr) landing = device->make_landing(n_bytes);
  } catch (const c10::Error&) {
    // The device's allocator has no memory: refused like any other that finds none.
  }

  auto handle = std::make_unique<Handle>(Handle{this, transfer, 0, landing});
  std::lock_guard lock(mutex_);
  if (!open_) return nullptr;
  Arrival& arrival = arrivals_[transfer];
  fail(arrival, arrival.code);
  if (landing == nullptr) {
    fail(arrival, SKY_ERR_OP_OUT_OF_MEMORY);
    changed_.notify_all();
    return nullptr;
  }
  arrival.landing = std::move(landing);
  arrival.n_bytes = n_bytes;
  arrival.ended = false;
  arrival.serial = handle->serial = next_serial_++;
  bytes_ += n_bytes;
  return handle.release();
}

void LandingTable::finish(std::unique_ptr<Handle> handle, uint32_t code) {
  std::lock_guard lock(mutex_);
  auto it = arrivals_.find(handle->transfer);
  if (it == arrivals_.end() || it->second.serial != handle->serial) return;
  Arrival& arrival = it->second;
  if (code == SKY_OK) {
    arrival.ended = true;
    arrival.code = SKY_OK;
  } else {
    fail(arrival, arrival.code != SKY_OK ? arrival.code : code);
  }
  changed_.notify_all();
}

// The arrival stays, without its bytes, so that the fence learns of it.
void LandingTable::fail(Arrival& arrival, uint32_t code) {
  if (arrival.landing != nullptr) arrival.landing->abort();
  arrival.landing = nullptr;
  bytes_ -= std::exchange(arrival.n_bytes, 0);
  arrival.ended = true;
  arrival.code = code;
}

void LandingTable::open() {
  std::lock_guard lock(mutex_);
  open_ = true;
}

void LandingTable::close() {
  std::lock_guard lock(mutex_);
  open_ = false;
  for (auto& [transfer, arrival] : arrivals_) fail(arrival, SKY_ERR_SESSION_CLOSED);
  arrivals_.clear();
  changed_.notify_all();
}

std::shared_ptr<Landing> LandingTable::wait(uint64_t transfer, uint64_t n_bytes, const std::function<bool()>& dead) {
  // How soon a dead peer is noticed; a transfer that completes wakes the wait at once.
  constexpr auto kDeadCheckInterval = std::chrono::milliseconds(50);
  std::unique_lock lock(mutex_);
  awaited_ = transfer;
  waiting_ = true;
  changed_.notify_all();
  const auto ended = [&] {
    auto it = arrivals_.find(transfer);
    return it != arrivals_.end() && it->second.ended;
  };
  while (!changed_.wait_for(lock, kDeadCheckInterval, ended)) {
    lock.unlock();
    const bool is_dead = dead();
    lock.lock();
    if (is_dead) break;
  }
  waiting_ = false;
  if (!ended()) return nullptr;
  auto node = arrivals_.extract(transfer);
  Arrival& arrival = node.mapped();
  bytes_ -= arrival.n_bytes;
  changed_.notify_all();
  if (arrival.code == SKY_ERR_OP_OUT_OF_MEMORY) {
    throw Failure(arrival.code, "the server has no memory for an upload of " + std::to_string(n_bytes) + " bytes");
  }
  if (arrival.code == SKY_ERR_INTERRUPTED) {
    throw Failure(arrival.code, "an upload of " + std::to_string(n_bytes) +
                                    " bytes was interrupted, so its tensor has no value: make a new one");
  }
  if (arrival.code != SKY_OK) {
    throw Failure(arrival.code,
                  "an upload of " + std::to_string(n_bytes) + " bytes broke off before all had arrived");
  }
  if (arrival.n_bytes != n_bytes) {
    throw Failure(SKY_ERR_PROTOCOL, "transfer " + std::to_string(transfer) + " brought " +
                                        std::to_string(arrival.n_bytes) + " bytes and its record names " +
                                        std::to_string(n_bytes));
  }
  return std::move(arrival.landing);
}

}  // namespace skytorch::server
