// mmap'ed buffers in sizes of a few steps per power of two, so that a buffer fits the next transfer of about its
// size.
#include "page_pool.h"

#include <sys/mman.h>

#include <bit>

#include "host_memory.h"

namespace skytorch::server {
namespace {

constexpr uint64_t kGranule = uint64_t{64} << 10;

void* map_pages(uint64_t size) {
  void* address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return nullptr;
  if (size >= (uint64_t{4} << 20)) madvise(address, size, MADV_HUGEPAGE);
  return address;
}

}  // namespace

struct PagePool::Buffer {
  std::shared_ptr<PagePool> pool;
  void* address;
  uint64_t size;
};

std::shared_ptr<PagePool> PagePool::make(uint64_t max_free_bytes) {
  return std::shared_ptr<PagePool>(new PagePool(max_free_bytes));
}

PagePool::~PagePool() { trim(); }

// Steps of an eighth of the power of two below: at most 12.5 % is wasted, and near sizes share buffers.
uint64_t PagePool::rounded(uint64_t n_bytes) {
  const uint64_t size = std::max(n_bytes, kGranule);
  const uint64_t step = std::max(kGranule, std::bit_floor(size) / 8);
  return (size + step - 1) / step * step;
}

at::DataPtr PagePool::allocate(uint64_t n_bytes) {
  if (n_bytes > static_cast<uint64_t>(INT64_MAX) / 2) return {};
  const uint64_t size = rounded(n_bytes);
  if (!HostMemory::instance().take(size)) return {};
  void* address = nullptr;
  {
    std::lock_guard lock(mutex_);
    auto it = free_.find(size);
    if (it != free_.end()) {
      address = it->second;
      free_.erase(it);
      free_bytes_ -= size;
    }
  }
  if (address == nullptr) address = map_pages(size);
  if (address == nullptr) {
    HostMemory::instance().give(size);
    return {};
  }
  auto buffer = std::make_unique<Buffer>(Buffer{shared_from_this(), address, size});
  return at::DataPtr(address, buffer.release(), &PagePool::give_back, at::Device(at::kCPU));
}

void PagePool::give_back(void* context) {
  const std::unique_ptr<Buffer> buffer(static_cast<Buffer*>(context));
  PagePool& pool = *buffer->pool;
  HostMemory::instance().give(buffer->size);
  {
    std::lock_guard lock(pool.mutex_);
    if (pool.free_bytes_ + buffer->size <= pool.max_free_bytes_) {
      pool.free_.emplace(buffer->size, buffer->address);
      pool.free_bytes_ += buffer->size;
      return;
    }
  }
  munmap(buffer->address, buffer->size);
}

void PagePool::trim() {
  std::lock_guard lock(mutex_);
  for (auto [size, address] : free_) munmap(address, size);
  free_.clear();
  free_bytes_ = 0;
}

uint64_t PagePool::free_bytes() const {
  std::lock_guard lock(mutex_);
  return free_bytes_;
}

}  // namespace skytorch::server
