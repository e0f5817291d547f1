// The bytes of a SEND on their way out, in pieces, laid out as a transfer is (docs/wire.md, "Records"). Large tensors
// stay where they lie; small ones are put together in buffers of the parcel's own, which it takes one after the other
// as they fill. A tensor without a value takes no memory. Lives on the executor's stack during one send.
#pragma once

#include <ATen/ATen.h>
#include <skytorch/wire.h>

#include <vector>

namespace skytorch::server {

class Parcel {
 public:
  explicit Parcel(size_t n_tensors) : n_tensors_(n_tensors) {}

  // The next tensor, in host memory that `owner` keeps. Nothing was added if it throws.
  void add(const at::Tensor& owner, const uint8_t* data, uint64_t n);
  // The next tensor has no value: zeros in its place.
  void add_missing(uint64_t n);
  // The whole, when every tensor was added.
  const std::vector<SkyBytes>& seal();

 private:
  // A smaller piece costs more as a message of its own than to be copied.
  static constexpr uint64_t kSmallBytes = 32 << 10;
  static constexpr uint64_t kBufferBytes = 256 << 10;

  // A copy of `n` bytes that lives as long as the parcel.
  const uint8_t* keep(const uint8_t* data, uint64_t n);

  const size_t n_tensors_;
  std::vector<uint8_t> has_value_;
  std::vector<at::Tensor> owners_;
  uint8_t* room_ = nullptr;  // of the last buffer
  uint64_t n_room_ = 0;
  std::vector<SkyBytes> pieces_;
};

}  // namespace skytorch::server
