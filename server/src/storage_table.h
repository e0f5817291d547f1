// The session's storages by id. Ids come from a counter of the client, so neighbours in time are neighbours in
// number: entries lie in pages of 256, and a look-up is one compare against a small page cache. Pointers to entries
// stay valid until that entry is erased. Executor thread only; `resident_bytes` may be read from any.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <atomic>
#include <memory>
#include <unordered_map>
#include <vector>

#include "poison.h"

namespace skytorch::server {

struct StorageEntry {
  // A tensor over the storage; the storage itself is reached through it. Undefined only if there is no memory
  // behind the id, and then there is a poison.
  at::Tensor tensor;
  // Geometry::id of `tensor`, so that an operator that needs just that geometry takes the tensor as it is. 0: none.
  uint64_t geometry = 0;
  PoisonRef poison;
  uint64_t accounted_bytes = 0;
  uint32_t device = 0;
  bool live = false;

  const c10::Storage& storage() const { return tensor.unsafeGetTensorImpl()->unsafe_storage(); }
  uint64_t n_bytes() const { return tensor.defined() ? storage().nbytes() : 0; }
};

class StorageTable {
 public:
  StorageTable(std::atomic<uint64_t>& resident_bytes, uint64_t max_live)
      : resident_bytes_(resident_bytes), max_live_(max_live) {}
  ~StorageTable();
  StorageTable(const StorageTable&) = delete;
  StorageTable& operator=(const StorageTable&) = delete;

  StorageEntry* find(uint64_t id) {
    Page* page = page_of(id);
    if (page == nullptr) return nullptr;
    StorageEntry& entry = page->entries[id % kPageEntries];
    return entry.live ? &entry : nullptr;
  }
  // Throws ProtocolError if the id is in use or zero, or there are too many.
  StorageEntry& create(uint64_t id, uint32_t device);
  // Ids that name nothing are ignored: a QUERY may leave some of its outputs unused.
  void erase(uint64_t id);
  // To be called when the entry's storage came to be, or changed its size.
  void account(StorageEntry& entry);

  uint64_t peak_bytes() const { return peak_bytes_; }
  uint64_t bytes() const { return bytes_; }
  void reset_peak() { peak_bytes_ = bytes_; }

 private:
  static constexpr uint64_t kPageEntries = 256;
  static constexpr size_t kCachedPages = 64;
  static constexpr size_t kSparePages = 64;

  struct Page {
    std::array<StorageEntry, kPageEntries> entries;
    uint32_t n_live = 0;

    // A page counts as tensor memory: ids far apart would take a page each.
    Page();
    ~Page();
    Page(const Page&) = delete;
    Page& operator=(const Page&) = delete;
  };
  struct CacheLine {
    uint64_t number = ~uint64_t{0};
    Page* page = nullptr;
  };

  Page* page_of(uint64_t id) {
    const uint64_t number = id / kPageEntries;
    CacheLine& line = cache_[number % kCachedPages];
    return line.number == number ? line.page : look_up(number);
  }
  Page* look_up(uint64_t number);
  void drop_if_empty(uint64_t number);
  void publish();

  std::unordered_map<uint64_t, std::unique_ptr<Page>> pages_;
  std::array<CacheLine, kCachedPages> cache_;
  std::vector<std::unique_ptr<Page>> spare_;  // empty pages for the next ids
  uint64_t newest_page_ = 0;                  // kept even when it is empty: the next ids will fill it
  uint64_t n_live_ = 0;
  uint64_t bytes_ = 0;
  uint64_t peak_bytes_ = 0;
  std::atomic<uint64_t>& resident_bytes_;
  const uint64_t max_live_;
};

}  // namespace skytorch::server
