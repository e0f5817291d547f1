// Moves bytes.
#include "byte_mover.h"

#include "output.h"
#include "parcel.h"
#include "reply.h"

namespace skytorch::server {
namespace {

void require_bytes(const Geometry& geometry, uint64_t n_bytes) {
  if (n_bytes != geometry.n_bytes) {
    throw Failure(SKY_ERR_PROTOCOL, describe(geometry) + " takes " + std::to_string(geometry.n_bytes) +
                                        " bytes and the record brings " + std::to_string(n_bytes));
  }
}

uint64_t only_storage(const SkyRecord& record) {
  if (record.n_storages != 1) throw ProtocolError("a record that needs one storage names another number of them");
  return record.storages[0];
}

void require_usable(const OpTemplate& t) {
  if (t.broken.code != SKY_OK) throw Failure(t.broken.code, t.broken.message);
}

// What a transfer of these tensors has: their bytes, and if they are several, a byte for each.
uint64_t transfer_bytes(const std::vector<Part>& parts) {
  uint64_t n = parts.size() > 1 ? parts.size() : 0;
  for (const Part& part : parts) {
    if (part.t->geometry == nullptr) require_usable(*part.t);  // it says why there is none
    n += part.t->geometry->n_bytes;
  }
  return n;
}

void require_transfer(const std::vector<Part>& parts, const SkyRecord& record) {
  if (transfer_bytes(parts) == record.n_bytes) return;
  throw Failure(SKY_ERR_PROTOCOL, "a transfer of " + std::to_string(record.n_bytes) +
                                      " bytes for tensors that take " + std::to_string(transfer_bytes(parts)));
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

void ByteMover::poison(uint64_t storage, const PoisonRef& poison) {
  StorageEntry* entry = session_.storages.find(storage);
  if (entry != nullptr && entry->poison == nullptr) entry->poison = poison;
}

template <class Body>
void ByteMover::guarded(const SkyRecord& record, uint64_t storage, const OpTemplate* t, const Body& body) {
  try {
    body();
  } catch (const ProtocolError&) {
    throw;
  } catch (...) {
    const std::string where = t != nullptr ? t->describe() : "storage " + std::to_string(storage);
    poison(storage, session_.poisons.record(current_cause(), where, record.sequence));
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

StorageEntry& ByteMover::storage(uint64_t id) {
  StorageEntry* entry = session_.storages.find(id);
  if (entry == nullptr) throw Failure(SKY_ERR_PROTOCOL, "storage " + std::to_string(id) + " does not exist");
  return *entry;
}

StorageEntry& ByteMover::target(const OpTemplate& t, uint64_t id) {
  StorageEntry& entry = storage(id);
  if (entry.device != t.device) {
    throw Failure(SKY_ERR_INVALID_ARGUMENT, "storage " + std::to_string(id) + " is on server device " +
                                                std::to_string(entry.device) + " and the template says " +
                                                std::to_string(t.device));
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
  guarded(record, only_storage(record), nullptr, [&] {
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
  guarded(record, only_storage(record), nullptr, [&] {
    StorageEntry& entry = storage(record.storages[0]);
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
  guarded(record, only_storage(record), &t, [&] {
    require_usable(t);
    require_bytes(*t.geometry, record.payload.size);
    StorageEntry& entry = target(t, record.storages[0]);
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

void ByteMover::write_lane(const std::vector<Part>& parts, const SkyRecord& record) {
  // The transfer is taken even if its storages are poisoned or its templates broken: it must not stay in the table.
  std::shared_ptr<Landing> landing;
  try {
    landing = landings_.wait(record.transfer, record.n_bytes,
                             [&] { return session_.api.session_dead(session_.connection) != 0; });
    if (landing == nullptr) {
      throw Failure(SKY_ERR_CONNECTION_LOST, "the connection was lost while the bytes of an upload were under way");
    }
    if (parts.size() > 1) return write_parcel(parts, record, landing->take());
  } catch (const ProtocolError&) {
    throw;
  } catch (...) {
    const auto failed = session_.poisons.record(current_cause(), parts.front().t->describe(), record.sequence);
    for (const Part& part : parts) poison(part.storage, failed);
    return;
  }
  const OpTemplate& t = *parts.front().t;
  guarded(record, parts.front().storage, &t, [&] {
    require_usable(t);
    require_bytes(*t.geometry, record.n_bytes);
    StorageEntry& entry = target(t, parts.front().storage);
    if (entry.poison == nullptr && record.n_bytes > 0) write_landed(entry, t, landing->take(), record.n_bytes);
  });
}

// What it throws is the failure of all; a tensor that fails by itself is poisoned here.
void ByteMover::write_parcel(const std::vector<Part>& parts, const SkyRecord& record, at::DataPtr landed) {
  require_transfer(parts, record);
  const auto source = adopt(std::move(landed), record.n_bytes, nullptr);
  const at::Tensor has_value = make_view(source, flat(parts.size(), record.n_bytes - parts.size())).cpu();
  uint64_t at = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const OpTemplate& t = *parts[i].t;
    const uint64_t n = t.geometry->n_bytes;
    guarded(record, parts[i].storage, &t, [&] {
      require_usable(t);
      if (has_value.const_data_ptr<uint8_t>()[i] != 1) {
        throw Failure(SKY_ERR_CONNECTION_LOST,
                      "the other server has no value for what was to be copied here: it failed there");
      }
      StorageEntry& entry = target(t, parts[i].storage);
      if (entry.poison != nullptr) return;
      if (source.device().is_cpu()) {
        // Not torch's copy: it would wake its threads for each of many small tensors.
        write_bytes(entry, t, static_cast<const uint8_t*>(source.data()) + at);
      } else {
        write_part(entry, t, make_view(source, flat(n, at)));
      }
    });
    at += n;
  }
}

void ByteMover::write_part(StorageEntry& entry, const OpTemplate& t, const at::Tensor& bytes) {
  const Geometry& geometry = *t.geometry;
  if (geometry.numel == 0) return;
  if (is_span(t)) {
    make_view(session_.touch(entry), flat(geometry.n_bytes, geometry.offset_bytes())).copy_(bytes);
    return;
  }
  // Bytes of a parcel lie anywhere, elements do not.
  make_view(session_.touch(entry), geometry).copy_(row_major(bytes.clone().storage(), geometry));
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
    StorageEntry& entry = target(t, record.storages[0]);
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

void ByteMover::add_to(Parcel& parcel, const Part& part) {
  const OpTemplate& t = *part.t;
  require_usable(t);
  StorageEntry& entry = target(t, part.storage);
  if (entry.poison != nullptr) throw Failure(entry.poison->cause.code, entry.poison->cause.message);
  const auto bytes = span(entry, t);
  const uint64_t n = t.geometry->n_bytes;
  Device& device = *session_.devices[t.device];
  if (device.is_host()) return parcel.add(bytes, span_start(bytes, t), n);
  const auto copy = at::empty({static_cast<int64_t>(n)}, at::kByte);
  auto* const start = static_cast<uint8_t*>(copy.mutable_data_ptr());
  auto* to = start;
  device.read(span_start(bytes, t), n, [&](const uint8_t* piece, uint64_t size) {
    std::memcpy(to, piece, size);
    to += size;
    return true;
  });
  parcel.add(copy, start, n);
}

// False if there is nothing to send.
bool ByteMover::pack(const std::vector<Part>& parts, const SkyRecord& record, Parcel& parcel) {
  require_transfer(parts, record);
  for (const Part& part : parts) {
    try {
      add_to(parcel, part);
    } catch (const ProtocolError&) {
      throw;
    } catch (...) {
      session_.poisons.record(current_cause(), part.t->describe(), record.sequence);
      if (parts.size() == 1) return false;
      parcel.add_missing(part.t->geometry->n_bytes);
    }
  }
  return true;
}

void ByteMover::send(const std::vector<Part>& parts, const SkyRecord& record) {
  SkyError error{};
  try {
    Parcel parcel(parts.size());
    if (pack(parts, record, parcel)) {
      const auto& pieces = parcel.seal();
      const uint32_t code = session_.api.send(session_.connection, record.payload, pieces.data(),
                                              static_cast<uint32_t>(pieces.size()), &error);
      if (code == SKY_OK) return;
      throw Failure(code, reinterpret_cast<const char*>(error.message));
    }
  } catch (const ProtocolError&) {
    throw;
  } catch (...) {
    session_.poisons.record(current_cause(), parts.front().t->describe(), record.sequence);
  }
  // The other server waits for the bytes at its fence: sending none tells it that they will not come. After a send
  // that failed by itself this is ignored.
  session_.api.send(session_.connection, record.payload, nullptr, 0, &error);
}

}  // namespace skytorch::server
