// Host memory for large transfers, given out again instead of returned to the system: fresh pages cost more than the
// copy into them. Those given out count as the process's tensor memory (host_memory.h). A buffer that becomes a
// tensor's storage goes back to the pool when the storage dies, which may be on any thread. The free list is bounded;
// what does not fit is unmapped.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <mutex>

namespace skytorch::server {

class PagePool : public std::enable_shared_from_this<PagePool> {
 public:
  static std::shared_ptr<PagePool> make(uint64_t max_free_bytes);
  ~PagePool();
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  // At least `n_bytes`, aligned to a page. A null DataPtr when there is no memory.
  at::DataPtr allocate(uint64_t n_bytes);
  // Unmaps every free buffer.
  void trim();
  uint64_t free_bytes() const;

 private:
  struct Buffer;
  explicit PagePool(uint64_t max_free_bytes) : max_free_bytes_(max_free_bytes) {}
  static void give_back(void* context);
  static uint64_t rounded(uint64_t n_bytes);

  const uint64_t max_free_bytes_;
  mutable std::mutex mutex_;
  std::multimap<uint64_t, void*> free_;  // by size
  uint64_t free_bytes_ = 0;
};

}  // namespace skytorch::server
