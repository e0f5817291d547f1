// The records that move bytes or memory and run no operator: ALLOC, RESIZE, WRITE, WRITE_LANE, READ, SEND.
// Bytes go from where the network put them straight into the storage, and from the storage straight to the network,
// unless the tensor's layout makes a copy necessary.
#pragma once

#include "landing_table.h"
#include "session.h"

namespace skytorch::server {

class Parcel;

// One tensor of a WRITE_LANE or SEND.
struct Part {
  const OpTemplate* t;
  uint64_t storage;
};

class ByteMover {
 public:
  ByteMover(Session& session, LandingTable& landings) : session_(session), landings_(landings) {}

  void alloc(const SkyRecord& record);
  void resize(const SkyRecord& record);
  void write(const OpTemplate& t, const SkyRecord& record);
  // `parts` has one tensor or more.
  void write_lane(const std::vector<Part>& parts, const SkyRecord& record);
  void read(const OpTemplate& t, const SkyRecord& record);
  void send(const std::vector<Part>& parts, const SkyRecord& record);

 private:
  // Runs `body`; what it throws poisons the storage.
  template <class Body>
  void guarded(const SkyRecord& record, uint64_t storage, const OpTemplate* t, const Body& body);
  void poison(uint64_t storage, const PoisonRef& poison);
  // A storage that has no memory yet (see Session::touch), if the device could have that much.
  c10::Storage announce(uint64_t n_bytes, uint32_t device);
  StorageEntry& storage(uint64_t id);
  // The storage, checked: it is on the template's device and the geometry fits it.
  StorageEntry& target(const OpTemplate& t, uint64_t id);
  void write_bytes(StorageEntry& entry, const OpTemplate& t, const uint8_t* data);
  // The bytes of several tensors, and behind them a byte for each: 1 if they are its value.
  void write_parcel(const std::vector<Part>& parts, const SkyRecord& record, at::DataPtr landed);
  // `bytes` are in memory of a device other than the host.
  void write_part(StorageEntry& entry, const OpTemplate& t, const at::Tensor& bytes);
  bool pack(const std::vector<Part>& parts, const SkyRecord& record, Parcel& parcel);
  void add_to(Parcel& parcel, const Part& part);
  void write_landed(StorageEntry& entry, const OpTemplate& t, at::DataPtr landed, uint64_t n_bytes);
  // The tensor's elements as one span of memory, in the template's layout. The tensor owns them.
  at::Tensor span(StorageEntry& entry, const OpTemplate& t);
  const uint8_t* span_start(const at::Tensor& span, const OpTemplate& t) const;

  Session& session_;
  LandingTable& landings_;
};

}  // namespace skytorch::server
