// The records that move bytes or memory and run no operator: ALLOC, RESIZE, WRITE, WRITE_LANE, READ, SEND.
// Bytes go from where the network put them straight into the storage, and from the storage straight to the network,
// unless the tensor's layout makes a copy necessary.
#pragma once

#include "landing_table.h"
#include "session.h"

namespace skytorch::server {

class ByteMover {
 public:
  ByteMover(Session& session, LandingTable& landings) : session_(session), landings_(landings) {}

  void alloc(const SkyRecord& record);
  void resize(const SkyRecord& record);
  void write(const OpTemplate& t, const SkyRecord& record);
  void write_lane(const OpTemplate& t, const SkyRecord& record);
  void read(const OpTemplate& t, const SkyRecord& record);
  void send(const OpTemplate& t, const SkyRecord& record);

 private:
  // Runs `body`; what it throws poisons the record's storage.
  template <class Body>
  void guarded(const SkyRecord& record, const OpTemplate* t, const Body& body);
  // A storage that has no memory yet (see Session::touch), if the device could have that much.
  c10::Storage announce(uint64_t n_bytes, uint32_t device);
  StorageEntry& storage(const SkyRecord& record);
  // The storage, checked: it is on the template's device and the geometry fits it.
  StorageEntry& target(const OpTemplate& t, const SkyRecord& record);
  void write_bytes(StorageEntry& entry, const OpTemplate& t, const uint8_t* data);
  void write_landed(StorageEntry& entry, const OpTemplate& t, at::DataPtr landed, uint64_t n_bytes);
  // The tensor's elements as one span of memory, in the template's layout. The tensor owns them.
  at::Tensor span(StorageEntry& entry, const OpTemplate& t);
  const uint8_t* span_start(const at::Tensor& span, const OpTemplate& t) const;

  Session& session_;
  LandingTable& landings_;
};

}  // namespace skytorch::server
