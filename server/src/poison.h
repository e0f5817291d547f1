// Poison: the error that a storage carries when the record that should have filled it failed (design, section 4).
// One failure makes one Poison, shared by every storage that depends on it. The log keeps those that nobody has read
// yet, oldest first, so that SYNCHRONIZE and the end of a session can raise them. Executor thread only.
#pragma once

#include <deque>
#include <memory>
#include <string_view>

#include "failure.h"

namespace skytorch::server {

struct Poison {
  Cause cause;
  uint64_t sequence = 0;  // of the record that failed
  bool read = false;      // some request was answered with it, or its program knows anyway
};

using PoisonRef = std::shared_ptr<Poison>;

class PoisonLog {
 public:
  // Where the client's program issues the records to come; empty when it does not say.
  void set_origin(std::string_view origin) { origin_ = origin.substr(0, kMaxOriginBytes); }
  // Makes a poison and remembers it as unread. The message gets "[<where>; record N; <origin>]" appended.
  // SKY_ERR_INTERRUPTED: the program was interrupted while it waited for this, so nobody is told of it again; whoever
  // reads the storage all the same gets a RuntimeError.
  PoisonRef record(Cause cause, const std::string& where, uint64_t sequence);
  // The oldest that nobody has read, marked as read; null when there is none.
  PoisonRef take_unread();
  // Failures so far, those that were answered at once included.
  uint64_t n_failures() const { return n_failures_; }
  void note_failure() { ++n_failures_; }

 private:
  // A program that fails in a loop must not fill the memory: later failures beyond this are only found by reading.
  static constexpr size_t kMaxUnread = 1024;
  static constexpr size_t kMaxOriginBytes = 1024;
  std::string origin_;
  std::deque<PoisonRef> unread_;
  uint64_t n_failures_ = 0;
};

}  // namespace skytorch::server
