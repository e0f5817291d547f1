// The bytes of a SEND on their way out, in pieces. Large tensors stay where they lie in host memory; small ones, and
// those of another device, are put together in a buffer of the parcel's own, which is laid out like the whole and
// takes memory only where something is put. Lives on the executor's stack during one send.
#pragma once

#include <skytorch/wire.h>

#include "pch.h"

namespace skytorch::server {

class Parcel {
 public:
  // Of so many bytes in the end.
  explicit Parcel(uint64_t n_bytes) : n_bytes_(n_bytes) {}

  // Host memory that `owner` keeps.
  void add(const at::Tensor& owner, const uint8_t* data, uint64_t n);
  // Room for the next `n` bytes, to be filled before `add` or `room` is called again.
  uint8_t* room(uint64_t n);

  bool complete() const { return filled_ == n_bytes_; }
  const std::vector<SkyBytes>& pieces() const { return pieces_; }

 private:
  // A smaller piece costs more as a message of its own than to be copied.
  static constexpr uint64_t kSmallBytes = 32 << 10;

  void take(uint64_t n);

  const uint64_t n_bytes_;
  uint64_t filled_ = 0;
  bool in_buffer_ = false;  // where the last piece lies
  at::Tensor buffer_;
  std::vector<at::Tensor> owners_;
  std::vector<SkyBytes> pieces_;
};

}  // namespace skytorch::server
