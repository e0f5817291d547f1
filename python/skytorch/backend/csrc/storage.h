// What stands behind a storage on `sky`: its id on the server and a placeholder address that nobody may read.
// The context is reached through the storage's DataPtr and outlives it: the deleter only pushes it to its session's
// list (INV-2), and whoever next appends to that session tells the server and recycles it.
// The placeholder belongs to the context for good, so that an address names one live storage at a time.
#pragma once

#include <c10/core/Storage.h>
#include <c10/core/TensorImpl.h>

#include <cstdint>
#include <mutex>
#include <vector>

namespace skytorch {

class Device;

struct StorageContext {
  uint64_t id = 0;
  // The open device on which the storage lives. Devices are never destroyed.
  Device* device = nullptr;
  StorageContext* next = nullptr;
  void* address = nullptr;
};

// Contexts of the whole process, each with an address in one reserved region without access rights.
class ContextPool {
 public:
  static ContextPool& get();

  // A chain of up to `n` fresh or recycled contexts (at least one, or it raises).
  StorageContext* take(size_t n);
  // Give back a chain.
  void give(StorageContext* chain);
  // The context whose placeholder `address` is or lies in; null for foreign addresses.
  StorageContext* find(const void* address);

 private:
  // Placeholders are this far apart, so that views of one storage rarely look like another storage's start.
  static constexpr size_t kStrideBytes = size_t{256} << 10;
  static constexpr size_t kChunk = 1024;

  void reserve();
  void grow();

  std::mutex mutex_;
  StorageContext* free_ = nullptr;
  std::vector<std::vector<StorageContext>> chunks_;
  char* region_ = nullptr;
  size_t slots_ = 0;
};

// DataPtr deleter: pushes the context to its session's list of freed storages. Never blocks, raises or locks.
void release_storage(void* context);

c10::DataPtr make_data_ptr(StorageContext* context);

// The context of the storage whose start a borrowed pointer names, or null. torch's legacy serialization, and with it
// pickle, reads and writes storages through `from_blob` on their address. A pointer with an owner of its own (DLPack)
// is none of these: it may point into the middle, where another storage's placeholder begins.
StorageContext* borrowed_context(const c10::DataPtr& data);

// The context behind a storage, or null when it is not one of ours (a tensor without storage).
inline StorageContext* context_of(const c10::StorageImpl* storage) {
  const c10::DataPtr& data = storage->data_ptr();
  if (C10_LIKELY(data.get_deleter() == &release_storage)) {
    return static_cast<StorageContext*>(data.get_context());
  }
  return borrowed_context(data);
}

inline StorageContext* context_of(const c10::TensorImpl* tensor) {
  const c10::StorageImpl* storage = tensor->unsafe_storage().unsafeGetStorageImpl();
  return storage == nullptr ? nullptr : context_of(storage);
}

}  // namespace skytorch
