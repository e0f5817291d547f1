// The log of poisons.
#include "poison.h"

namespace skytorch::server {

PoisonRef PoisonLog::record(Cause cause, const std::string& where, uint64_t sequence) {
  note_failure();
  cause.message += " [" + where + (where.empty() ? "" : "; ") + "record " + std::to_string(sequence);
  cause.message += origin_.empty() ? "]" : "; issued at " + origin_ + "]";
  const bool known = cause.code == SKY_ERR_INTERRUPTED;
  if (known) cause.code = SKY_ERR_OP_RUNTIME;
  auto poison = std::make_shared<Poison>(Poison{std::move(cause), sequence, known});
  while (!unread_.empty() && unread_.front()->read) unread_.pop_front();
  if (!known && unread_.size() < kMaxUnread) unread_.push_back(poison);
  return poison;
}

PoisonRef PoisonLog::take_unread() {
  while (!unread_.empty()) {
    auto poison = std::move(unread_.front());
    unread_.pop_front();
    if (poison->read) continue;
    poison->read = true;
    return poison;
  }
  return nullptr;
}

}  // namespace skytorch::server
