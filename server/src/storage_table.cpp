// Pages of storages: creation, erasure, accounting.
#include "storage_table.h"

#include "device/host_memory.h"

namespace skytorch::server {

StorageTable::Page::Page() {
  if (!HostMemory::instance().take(sizeof(Page))) {
    throw ProtocolError("the server has no memory for another storage", SKY_ERR_OP_OUT_OF_MEMORY);
  }
}

StorageTable::Page::~Page() { HostMemory::instance().give(sizeof(Page)); }

StorageTable::~StorageTable() { resident_bytes_.store(0, std::memory_order_relaxed); }

StorageTable::Page* StorageTable::look_up(uint64_t number) {
  auto it = pages_.find(number);
  if (it == pages_.end()) return nullptr;
  cache_[number % kCachedPages] = {number, it->second.get()};
  return it->second.get();
}

StorageEntry& StorageTable::create(uint64_t id, uint32_t device) {
  if (id == 0) throw ProtocolError("storage id 0 is not valid; ids start at 1");
  if (n_live_ >= max_live_) {
    throw ProtocolError("the session has " + std::to_string(n_live_) +
                            " storages, which is the server's limit; free some, or start it with more --max-storages",
                        SKY_ERR_LIMIT_EXCEEDED);
  }
  Page* page = page_of(id);
  if (page == nullptr) {
    const uint64_t number = id / kPageEntries;
    std::unique_ptr<Page> empty;
    if (spare_.empty()) {
      empty = std::make_unique<Page>();
    } else {
      empty = std::move(spare_.back());
      spare_.pop_back();
    }
    page = empty.get();
    pages_.emplace(number, std::move(empty));
    cache_[number % kCachedPages] = {number, page};
    if (number > newest_page_) drop_if_empty(std::exchange(newest_page_, number));
  }
  StorageEntry& entry = page->entries[id % kPageEntries];
  if (entry.live) throw ProtocolError("storage " + std::to_string(id) + " exists already; ids are never reused");
  entry.live = true;
  entry.device = device;
  ++page->n_live;
  ++n_live_;
  return entry;
}

void StorageTable::erase(uint64_t id) {
  Page* page = page_of(id);
  if (page == nullptr) return;
  StorageEntry& entry = page->entries[id % kPageEntries];
  if (!entry.live) return;
  bytes_ -= entry.accounted_bytes;
  entry = StorageEntry{};
  publish();
  --n_live_;
  if (--page->n_live == 0) drop_if_empty(id / kPageEntries);
}

void StorageTable::drop_if_empty(uint64_t number) {
  auto it = pages_.find(number);
  if (number == newest_page_ || it == pages_.end() || it->second->n_live != 0) return;
  CacheLine& line = cache_[number % kCachedPages];
  if (line.number == number) line = CacheLine{};
  if (spare_.size() < kSparePages) spare_.push_back(std::move(it->second));
  pages_.erase(it);
}

void StorageTable::account(StorageEntry& entry) {
  const uint64_t now = entry.n_bytes();
  // An operator that makes a tensor larger would move memory that other tensors of this operator look at.
  if (entry.tensor.defined()) entry.storage().unsafeGetStorageImpl()->set_resizable(false);
  bytes_ += now - entry.accounted_bytes;
  entry.accounted_bytes = now;
  if (bytes_ > peak_bytes_) peak_bytes_ = bytes_;
  publish();
}

void StorageTable::publish() { resident_bytes_.store(bytes_, std::memory_order_relaxed); }

}  // namespace skytorch::server
