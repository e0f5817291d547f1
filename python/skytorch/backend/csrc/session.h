// One open session as the device side sees it: the C table and the session pointer of the wire, the counters and
// lists that belong to its op stream, and its template cache. Everything but `push_freed` is touched only by the
// thread that holds the stream lock, which is what StreamLock is. Sessions are never destroyed: tensors point to
// them.
#pragma once

#include <skytorch/wire.h>

#include <atomic>
#include <cstdint>
#include <mutex>

#include "error.h"
#include "flags.h"
#include "operator.h"
#include "origin.h"
#include "storage.h"
#include "template_cache.h"

namespace skytorch {

class Session {
 public:
  Session(const SkyClientApi* api, const SkySession* wire) : api_(api), wire_(wire), templates_(api->slots(wire)) {
    api_->retain(wire_);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const SkyClientApi& api() const { return *api_; }
  const SkySession* wire() const { return wire_; }

  // Any thread, any time, also in a forked child and after the session is closed.
  void push_freed(StorageContext* context) {
    StorageContext* head = freed_.load(std::memory_order_relaxed);
    do {
      context->next = head;
    } while (!freed_.compare_exchange_weak(head, context, std::memory_order_release, std::memory_order_relaxed));
  }
  // A generator's id to give back, pushed by its destructor.
  void push_freed_generator(int64_t id);

  // The last device is closed: nothing is appended any more, and use raises SessionClosed.
  void close();
  bool closed() const { return closed_.load(std::memory_order_acquire); }
  // Storages of a closed session that died since: their contexts go back to the pool.
  void reclaim();

  // Below: stream lock held.
  uint64_t next_storage_id() { return ++last_storage_id_; }
  StorageContext* new_storage(Device& device) {
    if (C10_UNLIKELY(contexts_ == nullptr)) {
      contexts_ = ContextPool::get().take(kContextsAtOnce);
    }
    StorageContext* context = contexts_;
    contexts_ = context->next;
    context->id = next_storage_id();
    context->device = &device;
    return context;
  }
  // A context whose storage never came to be on the server.
  void forget_storage(StorageContext* context) {
    context->next = contexts_;
    contexts_ = context;
  }
  int64_t next_number() { return ++last_number_; }
  TemplateCache& templates() { return templates_; }
  // Sends the frees that have gathered. Called for every lock taken.
  void settle() {
    if (freed_.load(std::memory_order_relaxed) != nullptr) {
      send_frees();
    }
    if (generators_freed_.load(std::memory_order_relaxed)) {
      send_generator_frees();
    }
  }
  // Tells the server where the records to come were issued, if that is another place than it knows.
  void sync_origin(const std::string& origin) {
    if (C10_UNLIKELY(origin != origin_)) {
      send_origin(origin);
    }
  }
  // Sends the process-wide torch flags that an operator depends on and that differ from what the server was told
  // last.
  void sync_flags(const Operator& op) {
    const Flags now = Flags::now(flags_, !op.pointwise);
    if (C10_UNLIKELY(now != flags_)) {
      send_flags(now);
    }
  }

 private:
  static constexpr size_t kContextsAtOnce = 64;

  void send_frees();
  void send_generator_frees();
  void send_flags(const Flags& now);
  void send_origin(const std::string& origin);

  const SkyClientApi* api_;
  const SkySession* wire_;
  std::atomic<StorageContext*> freed_{nullptr};
  std::atomic<bool> closed_{false};
  StorageContext* contexts_ = nullptr;
  uint64_t last_storage_id_ = 0;
  // Ids of generators and events.
  int64_t last_number_ = 0;
  Flags flags_;
  std::string origin_;
  TemplateCache templates_;
  std::mutex generators_mutex_;
  std::atomic<bool> generators_freed_{false};
  std::vector<int64_t> freed_generators_;
};

// Holds a session's stream lock. Taking it may wait for room in the replay log; it is never held across I/O.
class StreamLock {
 public:
  // `origin` is found before the lock is taken: finding it takes the GIL.
  explicit StreamLock(Session& session, const std::string& origin = Origin::here()) : session_(session) {
    if (C10_UNLIKELY(session.closed())) {
      raise_closed();
    }
    SkyError error;
    check(session.api().lock(session.wire(), &error), error);
    held_ = true;
    try {
      session.settle();
      session.sync_origin(origin);
    } catch (...) {
      unlock();
      throw;
    }
  }
  StreamLock(const StreamLock&) = delete;
  StreamLock& operator=(const StreamLock&) = delete;
  ~StreamLock() { unlock(); }

  // For the calls that return with the lock released.
  void consumed() { held_ = false; }
  void unlock() {
    if (held_) {
      held_ = false;
      session_.api().unlock(session_.wire());
    }
  }
  Session& session() { return session_; }

 private:
  [[noreturn]] static void raise_closed();

  Session& session_;
  bool held_ = false;
};

// The answer of a QUERY or CALL, given back to Rust at the end of its scope.
class Reply {
 public:
  explicit Reply(const SkyClientApi& api) : api_(api) {}
  Reply(const Reply&) = delete;
  Reply& operator=(const Reply&) = delete;
  ~Reply() {
    if (reply_ != nullptr) {
      api_.reply_free(reply_);
    }
  }
  SkyReply** out() { return &reply_; }
  const SkyReply& operator*() const { return *reply_; }
  const SkyReply* operator->() const { return reply_; }

 private:
  const SkyClientApi& api_;
  SkyReply* reply_ = nullptr;
};

// CALL without and with an answer, on a session's stream.
void call(Session& session, uint32_t method, std::initializer_list<int64_t> args, SkyBytes payload = {});
void ask(Session& session, uint32_t method, std::initializer_list<int64_t> args, Reply& reply, SkyBytes payload = {});

}  // namespace skytorch
