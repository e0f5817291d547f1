// Puts the pieces of a SEND together.
#include "parcel.h"

#include <array>
#include <cstring>

namespace skytorch::server {
namespace {

const std::array<uint8_t, 64 << 10> kZeros{};

}  // namespace

void Parcel::add(const at::Tensor& owner, const uint8_t* data, uint64_t n) {
  if (n_tensors_ > 1 && n < kSmallBytes) {
    const uint8_t* copy = keep(data, n);
    if (!pieces_.empty() && pieces_.back().data + pieces_.back().size == copy) {
      pieces_.back().size += n;
    } else {
      pieces_.push_back({copy, n});
    }
  } else {
    owners_.push_back(owner);
    pieces_.push_back({data, n});
  }
  has_value_.push_back(1);
}

void Parcel::add_missing(uint64_t n) {
  for (uint64_t left = n; left > 0;) {
    const uint64_t piece = std::min<uint64_t>(left, kZeros.size());
    pieces_.push_back({kZeros.data(), piece});
    left -= piece;
  }
  has_value_.push_back(0);
}

const std::vector<SkyBytes>& Parcel::seal() {
  if (n_tensors_ > 1) pieces_.push_back({has_value_.data(), has_value_.size()});
  return pieces_;
}

const uint8_t* Parcel::keep(const uint8_t* data, uint64_t n) {
  if (n_room_ < n) {
    owners_.push_back(at::empty({static_cast<int64_t>(kBufferBytes)}, at::kByte));
    room_ = static_cast<uint8_t*>(owners_.back().mutable_data_ptr());
    n_room_ = kBufferBytes;
  }
  uint8_t* copy = room_;
  if (n > 0) std::memcpy(copy, data, n);
  room_ += n;
  n_room_ -= n;
  return copy;
}

}  // namespace skytorch::server
