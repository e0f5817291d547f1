// The template table of one session. See template_cache.h.
#include "template_cache.h"

#include <cstring>

namespace skytorch {

Template* TemplateCache::find(uint64_t hash, const uint64_t* key, size_t n_words) {
  if (table_.empty()) {
    return nullptr;
  }
  const size_t mask = table_.size() - 1;
  for (size_t at = hash & mask; table_[at] != 0; at = (at + 1) & mask) {
    Template& entry = entries_[table_[at] - 1];
    if (entry.hash == hash && entry.key.size() == n_words &&
        std::memcmp(entry.key.data(), key, n_words * sizeof(uint64_t)) == 0) {
      entry.used = true;
      return &entry;
    }
  }
  return nullptr;
}

Template& TemplateCache::insert(uint64_t hash, const uint64_t* key, size_t n_words) {
  const uint32_t slot = pick_slot();
  Template& entry = entries_[slot];
  entry.hash = hash;
  entry.key.assign(key, key + n_words);
  entry.slot = slot;
  entry.action = Action::Append;
  entry.used = true;
  entry.outputs.clear();
  if (2 * entries_.size() > table_.size()) {
    grow();
  } else {
    link(slot);
  }
  return entry;
}

void TemplateCache::erase(const Template& entry) {
  unlink(entry.slot);
  entries_[entry.slot].key.clear();
  vacant_.push_back(entry.slot);
}

void TemplateCache::clear() { *this = TemplateCache(n_slots_); }

uint32_t TemplateCache::pick_slot() {
  if (!vacant_.empty()) {
    const uint32_t slot = vacant_.back();
    vacant_.pop_back();
    return slot;
  }
  if (entries_.size() < n_slots_) {
    entries_.emplace_back();
    return static_cast<uint32_t>(entries_.size() - 1);
  }
  while (entries_[hand_].used) {
    entries_[hand_].used = false;
    hand_ = (hand_ + 1) % n_slots_;
  }
  const uint32_t slot = hand_;
  hand_ = (hand_ + 1) % n_slots_;
  unlink(slot);
  return slot;
}

void TemplateCache::link(uint32_t slot) {
  const size_t mask = table_.size() - 1;
  size_t at = entries_[slot].hash & mask;
  while (table_[at] != 0) {
    at = (at + 1) & mask;
  }
  table_[at] = slot + 1;
}

// Moves later members of the probe sequence back over the gap, so that no tombstones gather.
void TemplateCache::unlink(uint32_t slot) {
  const size_t mask = table_.size() - 1;
  size_t gap = entries_[slot].hash & mask;
  while (table_[gap] != slot + 1) {
    gap = (gap + 1) & mask;
  }
  for (size_t at = (gap + 1) & mask; table_[at] != 0; at = (at + 1) & mask) {
    const size_t home = entries_[table_[at] - 1].hash & mask;
    if (((at - home) & mask) >= ((at - gap) & mask)) {
      table_[gap] = table_[at];
      gap = at;
    }
  }
  table_[gap] = 0;
}

void TemplateCache::grow() {
  table_.assign(table_.empty() ? 1024 : 2 * table_.size(), 0);
  for (uint32_t slot = 0; slot < entries_.size(); ++slot) {
    if (!entries_[slot].key.empty()) {
      link(slot);
    }
  }
}

}  // namespace skytorch
