// The op stream's bookkeeping: frees, flags, calls. See session.h.
#include "session.h"

#include <c10/util/SmallVector.h>

namespace skytorch {

void Session::push_freed_generator(int64_t id) {
  std::lock_guard<std::mutex> hold(generators_mutex_);
  freed_generators_.push_back(id);
  generators_freed_ = true;
}

void Session::close() {
  closed_ = true;
  templates_.clear();
}

void Session::reclaim() {
  ContextPool::get().give(freed_.exchange(nullptr, std::memory_order_acquire));
  ContextPool::get().give(std::exchange(contexts_, nullptr));
}

void Session::send_frees() {
  StorageContext* chain = freed_.exchange(nullptr, std::memory_order_acquire);
  c10::SmallVector<uint64_t, 64> ids;
  while (chain != nullptr) {
    StorageContext* next = chain->next;
    ids.push_back(chain->id);
    forget_storage(chain);
    chain = next;
  }
  SkyError error;
  check(api_->free(wire_, ids.data(), static_cast<uint32_t>(ids.size()), &error), error);
}

void Session::send_generator_frees() {
  std::vector<int64_t> ids;
  {
    std::lock_guard<std::mutex> hold(generators_mutex_);
    ids.swap(freed_generators_);
    generators_freed_ = false;
  }
  for (int64_t id : ids) {
    SkyError error;
    check(api_->call(wire_, SKY_CALL_GENERATOR_FREE, &id, 1, {}, &error), error);
  }
}

void Session::send_flags(const Flags& now) {
  now.each([&](int64_t key, int64_t value) {
    const int64_t args[] = {key, value};
    SkyError error;
    check(api_->call(wire_, SKY_CALL_CONTEXT, args, 2, {}, &error), error);
  });
  flags_ = now;
}

void Session::send_origin(const std::string& origin) {
  constexpr size_t kMaxBytes = 1024;
  const auto* data = reinterpret_cast<const uint8_t*>(origin.data());
  SkyError error;
  check(api_->call(wire_, SKY_CALL_ORIGIN, nullptr, 0, {data, std::min(origin.size(), kMaxBytes)}, &error), error);
  origin_ = origin;
}

void StreamLock::raise_closed() {
  raise(SKY_ERR_SESSION_CLOSED,
        "sky: the session of this tensor or device is closed; what lived in it is gone. Open a new Compute and copy "
        "the data to it");
}

void call(Session& session, uint32_t method, std::initializer_list<int64_t> args, SkyBytes payload) {
  StreamLock lock(session);
  SkyError error;
  check(session.api().call(session.wire(), method, args.begin(), static_cast<uint32_t>(args.size()), payload, &error),
        error);
}

void ask(Session& session, uint32_t method, std::initializer_list<int64_t> args, Reply& reply, SkyBytes payload) {
  StreamLock lock(session);
  SkyError error;
  const uint32_t code = session.api().ask(session.wire(), method, args.begin(), static_cast<uint32_t>(args.size()),
                                          payload, reply.out(), &error);
  lock.consumed();
  check(code, error);
}

}  // namespace skytorch
