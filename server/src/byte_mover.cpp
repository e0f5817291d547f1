// Moves bytes.
#include "byte_mover.h"

#include "output.h"
#include "reply.h"

namespace skytorch::server {
namespace {

void require_bytes(const Geometry& geometry, uint64_t n_bytes) {
  if (n_bytes != geometry.n_bytes) {
    throw Failure(SKY_ERR_PROTOCOL, describe(geometry) + " takes " + std::to_string(geometry.n_bytes) +
                                        " bytes and the record brings " + std::to_string(n_bytes));
  }
}

void require_usable(const OpTemplate& t) {
  if (t.broken.code != SKY_OK) throw Failure(t.broken.code, t.broken.message);
}

// The bytes of the template lie in memory as they lie on the wire.
bool is_span(const OpTemplate& t) {
  return t.layout == SKY_LAYOUT_MEMORY || (t.geometry->contiguous && !t.geometry->conj && !t.geometry->neg);
}

bool is_aligned(const uint8_t* data, at::ScalarType dtype) {
  return reinterpret_cast<uintptr_t>(data) % c10::elementSize(dtype) == 0;
}

c10::Storage adopt(at::DataPtr memory, uint64_t n_bytes, c10::Allocator* allocator) {
  return c10::Storage(c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), n_bytes,
                                                            std::move(memory), allocator, allocator != nullptr));
}

// `n_bytes` bytes from `offset` on.
Geometry flat(uint64_t n_bytes, uint64_t offset = 0) {
  Geometry bytes;
  bytes.sizes = {static_cast<int64_t>(n_bytes)};
  bytes.strides = {1};
  bytes.offset = static_cast<int64_t>(offset);
  return bytes;
}

// A row-major tensor of the geometry's sizes and dtype over `storage`.
at::Tensor row_major(const c10::Storage& storage, const Geometry& geometry) {
  Geometry plain;
  plain.dtype = geometry.dtype;
  plain.sizes = geometry.sizes;
  plain.strides = c10::contiguous_strides(geometry.sizes);
  return make_view(storage, plain);
}

}  // namespace

template <class Body>
void ByteMover::guarded(const SkyRecord& record, const OpTemplate* t, const Body& body) {
  if (record.n_storages != 1) throw ProtocolError("a record that needs one storage names another number of them");
  try {
    body();
  } catch (const ProtocolError&) {
    throw;
  } catch (...) {
    const std::string where = t != nullptr ? t->describe() : "storage " + std::to_string(record.storages[0]);
    PoisonRef poison = session_.poisons.record(current_cause(), where, record.sequence);
    StorageEntry* entry = session_.storages.find(record.storages[0]);
    if (entry != nullptr && entry->poison == nullptr) entry->poison = poison;
  }
}

c10::Storage ByteMover::announce(uint64_t n_bytes, uint32_t device) {
  const Device& on = *session_.devices[device];
  if (n_bytes > on.allocation_limit()) {
    throw Failure(SKY_ERR_OP_OUT_OF_MEMORY, "a storage of " + std::to_string(n_bytes) +
                                                " bytes is larger than the memory of " + on.torch_device().str());
  }
  return adopt(at::DataPtr(nullptr, on.torch_device()), n_bytes, on.allocator());
}

StorageEntry& ByteMover::storage(const SkyRecord& record) {
  StorageEntry* entry = session_.storages.find(record.storages[0]);
  if (entry == nullptr) {
    throw Failure(SKY_ERR_PROTOCOL, "storage " + std::to_string(record.storages[0]) + " does not exist");
  }
  return *entry;
}

StorageEntry& ByteMover::target(const OpTemplate& t, const SkyRecord& record) {
  StorageEntry& entry = storage(record);
  if (entry.device != t.device) {
    throw Failure(SKY_ERR_INVALID_ARGUMENT, "storage " + std::to_string(record.storages[0]) +
                                                " is on server device " + std::to_string(entry.device) +
                                                " and the template says " + std::to_string(t.device));
  }
  if (t.geometry->required_bytes > entry.n_bytes() && entry.poison == nullptr) {
    throw Failure(SKY_ERR_INVALID_ARGUMENT, describe(*t.geometry) + " at offset " +
                                                std::to_string(t.geometry->offset) + " does not fit a storage of " +
                                                std::to_string(entry.n_bytes()) + " bytes");
  }
  session_.current_device.use(t.device);
  return entry;
}

void ByteMover::alloc(const SkyRecord& record) {
  guarded(record, nullptr, [&] {
    if (record.device >= session_.devices.size()) {
      throw ProtocolError("this server has no device number " + std::to_string(record.device));
    }
    StorageEntry& entry = session_.storages.create(record.storages[0], record.device);
    landings_.set_target(session_.devices[record.device].get());
    entry.tensor = make_view(announce(record.n_bytes, record.device), flat(record.n_bytes));
    session_.storages.account(entry);
  });
}

// Keeps the contents that fit the new size.
void ByteMover::resize(const SkyRecord& record) {
  guarded(record, nullptr, [&] {
    StorageEntry& entry = storage(record);
    if (entry.poison != nullptr) return;
    const c10::Storage old = entry.storage();
    const c10::Storage resized = announce(record.n_bytes, entry.device);
    const uint64_t kept = old.data() == nullptr ? 0 : std::min<uint64_t>(old.nbytes(), record.n_bytes);
    entry.tensor = make_view(resized, flat(record.n_bytes));
    if (kept > 0) {
      session_.touch(entry);
      make_view(resized, flat(kept)).copy_(make_view(old, flat(kept)));
    }
    entry.geometry = 0;
    session_.storages.account(entry);
  });
}

void ByteMover::write(const OpTemplate& t, const SkyRecord& record) {
  guarded(record, &t, [&] {
    require_usable(t);
    require_bytes(*t.geometry, record.payload.size);
    StorageEntry& entry = target(t, record);
    if (entry.poison == nullptr) write_bytes(entry, t, record.payload.data);
  });
}

void ByteMover::write_bytes(StorageEntry& entry, const OpTemplate& t, const uint8_t* data) {
  const Geometry& geometry = *t.geometry;
  if (geometry.numel == 0) return;
  if (is_span(t)) {
    auto* start = static_cast<uint8_t*>(session_.touch(entry).mutable_data()) + geometry.offset_bytes();
    session_.devices[t.device]->write(start, data, geometry.n_bytes);
    return;
  }
  at::Tensor aligned;  // the network puts bytes anywhere
  if (!is_aligned(data, geometry.dtype)) {
    aligned = at::empty({static_cast<int64_t>(geometry.n_bytes)}, at::kByte);
    std::memcpy(aligned.mutable_data_ptr(), data, geometry.n_bytes);
    data = static_cast<const uint8_t*>(aligned.const_data_ptr());
  }
  at::DataPtr borrowed(const_cast<uint8_t*>(data), at::Device(at::kCPU));
  const auto source = row_major(adopt(std::move(borrowed), geometry.n_bytes, nullptr), geometry);
  make_view(session_.touch(entry), geometry).copy_(source);
}

void ByteMover::write_lane(const OpTemplate& t, const SkyRecord& record) {
  // The transfer is taken even if its storage is poisoned or its template broken: it must not stay in the table.
  guarded(record, &t, [&] {
    const auto landing = landings_.wait(record.transfer, record.n_bytes,
                                        [&] { return session_.api.session_dead(session_.connection) != 0; });
    if (landing == nullptr) {
      throw Failure(SKY_ERR_CONNECTION_LOST, "the connection was lost while the bytes of an upload were under way");
    }
    require_usable(t);
    require_bytes(*t.geometry, record.n_bytes);
    StorageEntry& entry = target(t, record);
    if (entry.poison == nullptr && record.n_bytes > 0) write_landed(entry, t, landing->take(), record.n_bytes);
  });
}

void ByteMover::write_landed(StorageEntry& entry, const OpTemplate& t, at::DataPtr landed, uint64_t n_bytes) {
  const Geometry& geometry = *t.geometry;
  const c10::Device device = session_.devices[t.device]->torch_device();
  // The first write of a tensor, in nearly every program: its memory is the landed memory.
  if (is_span(t) && landed.device() == device && geometry.offset == 0 && entry.n_bytes() == n_bytes) {
    entry.storage().set_data_ptr_noswap(std::move(landed));
    return;
  }
  const auto source = adopt(std::move(landed), n_bytes, nullptr);
  if (t.layout == SKY_LAYOUT_MEMORY) {
    // Elements in memory order on both sides: one flat copy.
    make_view(session_.touch(entry), flat(n_bytes, geometry.offset_bytes())).copy_(make_view(source, flat(n_bytes)));
    return;
  }
  make_view(session_.touch(entry), geometry).copy_(row_major(source, geometry));
}

at::Tensor ByteMover::span(StorageEntry& entry, const OpTemplate& t) {
  auto view = make_view(session_.touch(entry), *t.geometry);
  if (is_span(t)) return view;
  return view.resolve_conj().resolve_neg().contiguous();
}

const uint8_t* ByteMover::span_start(const at::Tensor& span, const OpTemplate& t) const {
  const auto* start = static_cast<const uint8_t*>(span.unsafeGetTensorImpl()->unsafe_storage().data());
  return start + static_cast<uint64_t>(span.storage_offset()) * c10::elementSize(t.geometry->dtype);
}

void ByteMover::read(const OpTemplate& t, const SkyRecord& record) {
  Cause cause;
  try {
    if (record.n_storages != 1) throw ProtocolError("a READ names one storage");
    require_usable(t);
    StorageEntry& entry = target(t, record);
    if (entry.poison != nullptr) {
      entry.poison->read = true;
      return reply_error(session_, record.request, entry.poison->cause);
    }
    const uint64_t total = t.geometry->n_bytes;
    const auto bytes = span(entry, t);
    uint32_t code = SKY_OK;
    const auto sink = [&](const uint8_t* data, uint64_t n) {
      SkyError error{};
      code = session_.api.reply_bytes(session_.connection, record.request, total, data, n, &error);
      return code == SKY_OK;
    };
    if (total == 0) {
      sink(nullptr, 0);
      return;
    }
    do {  // again from the first byte, if the connection broke between two pieces
      session_.devices[t.device]->read(span_start(bytes, t), total, sink);
    } while (code == SKY_ERR_INTERRUPTED);
    return;
  } catch (const ProtocolError&) {
    throw;
  } catch (...) {
    cause = current_cause();
  }
  session_.poisons.note_failure();
  cause.message += " [" + t.describe() + "; record " + std::to_string(record.sequence) + "]";
  reply_error(session_, record.request, cause);
}

// Another server's lane takes the bytes in one piece, so what is not host memory is gathered first.
void ByteMover::send(const OpTemplate& t, const SkyRecord& record) {
  if (record.n_storages != 1) throw ProtocolError("a SEND names one storage");
  try {
    require_usable(t);
    require_bytes(*t.geometry, record.n_bytes);
    StorageEntry& entry = target(t, record);
    if (entry.poison != nullptr) throw Failure(entry.poison->cause.code, entry.poison->cause.message);
    const auto bytes = span(entry, t);
    const uint8_t* data = span_start(bytes, t);
    at::Tensor gathered;
    if (!bytes.device().is_cpu()) {
      gathered = at::empty({static_cast<int64_t>(record.n_bytes)}, at::kByte);
      auto* to = static_cast<uint8_t*>(gathered.mutable_data_ptr());
      data = to;
      session_.devices[t.device]->read(span_start(bytes, t), record.n_bytes, [&](const uint8_t* piece, uint64_t n) {
        std::memcpy(to, piece, n);
        to += n;
        return true;
      });
    }
    SkyError error{};
    const uint32_t code = session_.api.send(session_.connection, record.payload, data, record.n_bytes, &error);
    if (code != SKY_OK) throw Failure(code, reinterpret_cast<const char*>(error.message));
  } catch (const ProtocolError&) {
    throw;
  } catch (...) {
    session_.poisons.record(current_cause(), t.describe(), record.sequence);
    // The other server waits for the bytes at its fence: sending none tells it that they will not come. After a send
    // that failed by itself this is ignored.
    SkyError error{};
    session_.api.send(session_.connection, record.payload, nullptr, 0, &error);
  }
}

}  // namespace skytorch::server
