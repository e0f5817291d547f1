// Memory for storages that were announced.
#include "session.h"

namespace skytorch::server {

const c10::Storage& Session::touch(StorageEntry& entry) {
  const c10::Storage& storage = entry.storage();
  if (storage.data() == nullptr && storage.nbytes() > 0) [[unlikely]] {
    current_device.use(entry.device);
    storage.set_data_ptr_noswap(devices[entry.device]->allocator()->allocate(storage.nbytes()));
  }
  return storage;
}

}  // namespace skytorch::server
