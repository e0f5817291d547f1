// Puts the pieces of a SEND together.
#include "parcel.h"

#include "failure.h"

namespace skytorch::server {

void Parcel::add(const at::Tensor& owner, const uint8_t* data, uint64_t n) {
  if (n < kSmallBytes && n < n_bytes_) {
    std::memcpy(room(n), data, n);
    return;
  }
  take(n);
  owners_.push_back(owner);
  pieces_.push_back({data, n});
  in_buffer_ = false;
}

void Parcel::take(uint64_t n) {
  if (n > n_bytes_ - filled_) throw Failure(SKY_ERR_PROTOCOL, "a SEND's tensors have more bytes than its transfer");
  filled_ += n;
}

uint8_t* Parcel::room(uint64_t n) {
  const uint64_t at = filled_;
  take(n);
  if (!buffer_.defined()) buffer_ = at::empty({static_cast<int64_t>(n_bytes_)}, at::kByte);
  uint8_t* start = static_cast<uint8_t*>(buffer_.mutable_data_ptr()) + at;
  if (in_buffer_) {
    pieces_.back().size += n;
  } else {
    pieces_.push_back({start, n});
  }
  in_buffer_ = true;
  return start;
}

}  // namespace skytorch::server
