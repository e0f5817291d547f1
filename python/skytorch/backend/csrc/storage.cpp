// Contexts, placeholder addresses and the deleter of `sky` storages. See storage.h.
#include "storage.h"

#include <c10/util/Exception.h>
#include <sys/mman.h>

#include "device.h"
#include "session.h"

namespace skytorch {

ContextPool& ContextPool::get() {
  // Lives until the process ends: tensors are destroyed after every static object.
  static ContextPool* pool = std::make_unique<ContextPool>().release();
  return *pool;
}

void ContextPool::reserve() {
  // Address space only: no page is ever touched. Halved until it fits under a limit on address space.
  for (size_t bytes = size_t{4} << 40; bytes >= (size_t{1} << 30); bytes /= 2) {
    void* region = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region != MAP_FAILED) {
      region_ = static_cast<char*>(region);
      slots_ = bytes / kStrideBytes;
      return;
    }
  }
  TORCH_CHECK(false,
              "sky: no address space is left for tensor placeholders (1 GiB is needed); raise the limit on "
              "virtual memory (ulimit -v)");
}

void ContextPool::grow() {
  if (region_ == nullptr) {
    reserve();
  }
  const size_t first = chunks_.size() * kChunk;
  TORCH_CHECK(first + kChunk <= slots_, "sky: more than ", slots_, " storages are alive in this process; free some");
  auto& chunk = chunks_.emplace_back(kChunk);
  for (size_t i = kChunk; i-- > 0;) {
    chunk[i].address = region_ + (first + i) * kStrideBytes;
    chunk[i].next = free_;
    free_ = &chunk[i];
  }
}

StorageContext* ContextPool::take(size_t n) {
  std::lock_guard<std::mutex> hold(mutex_);
  if (free_ == nullptr) {
    grow();
  }
  StorageContext* chain = free_;
  StorageContext* last = chain;
  for (size_t i = 1; i < n && last->next != nullptr; ++i) {
    last = last->next;
  }
  free_ = last->next;
  last->next = nullptr;
  return chain;
}

void ContextPool::give(StorageContext* chain) {
  std::lock_guard<std::mutex> hold(mutex_);
  while (chain != nullptr) {
    StorageContext* next = chain->next;
    chain->next = free_;
    free_ = chain;
    chain = next;
  }
}

StorageContext* ContextPool::find(const void* address) {
  std::lock_guard<std::mutex> hold(mutex_);
  const auto* at = static_cast<const char*>(address);
  if (region_ == nullptr || at < region_ || at >= region_ + chunks_.size() * kChunk * kStrideBytes) {
    return nullptr;
  }
  const size_t slot = static_cast<size_t>(at - region_) / kStrideBytes;
  return &chunks_[slot / kChunk][slot % kChunk];
}

void release_storage(void* context) {
  auto* freed = static_cast<StorageContext*>(context);
  freed->device->session().push_freed(freed);
}

StorageContext* borrowed_context(const c10::DataPtr& data) {
  if (data.get() == nullptr || data.get_context() != nullptr) {
    return nullptr;
  }
  StorageContext* context = ContextPool::get().find(data.get());
  const bool live = context != nullptr && context->device != nullptr && context->address == data.get();
  return live ? context : nullptr;
}

c10::DataPtr make_data_ptr(StorageContext* context) {
  return {context->address, context, &release_storage,
          c10::Device(c10::DeviceType::PrivateUse1, context->device->index())};
}

}  // namespace skytorch
