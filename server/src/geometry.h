// Where a tensor lies in its storage: checked once when a template arrives, then shared and compared by number.
// Every Geometry that exists is valid: sizes and strides are not negative, `required_bytes` was computed without
// overflow, the dtype is one that a plain tensor can have. Whether it fits a particular storage is asked each time.
// `id` is never used twice in a session, so a storage may remember it after the Geometry itself is gone.
#pragma once

#include <ATen/ATen.h>
#include <skytorch/wire.h>

#include <memory>
#include <string>
#include <unordered_map>

namespace skytorch::server {

struct Geometry {
  uint64_t id = 0;
  at::ScalarType dtype = at::ScalarType::Byte;
  bool conj = false;
  bool neg = false;
  bool contiguous = false;  // row-major, nothing between the elements
  bool dense = false;       // its elements fill one span of the storage, each exactly once
  int64_t offset = 0;       // elements
  at::DimVector sizes;
  at::DimVector strides;
  int64_t numel = 0;
  uint64_t n_bytes = 0;         // of the elements
  uint64_t required_bytes = 0;  // a storage must have at least so many
  uint64_t offset_bytes() const { return static_cast<uint64_t>(offset) * c10::elementSize(dtype); }
};

using GeometryRef = std::shared_ptr<const Geometry>;

// "float32[4, 4]", for messages.
std::string describe(const Geometry& geometry);
std::string describe(const at::Tensor& tensor);

// c10::ScalarType for a number from the wire; throws Failure unless a plain tensor can have it.
at::ScalarType dtype_from_wire(int64_t number);

// A tensor over `storage` at `geometry`, which must fit it.
at::Tensor make_view(const c10::Storage& storage, const Geometry& geometry);

// Interns geometries, so that equal ones have equal ids. Executor thread only.
class GeometryTable {
 public:
  // Throws Failure if it is not valid.
  GeometryRef intern(const SkyGeometry& wire);
  GeometryRef intern(const at::Tensor& tensor);

 private:
  GeometryRef intern(Geometry&& candidate);
  void sweep();

  std::unordered_multimap<uint64_t, std::weak_ptr<const Geometry>> known_;
  size_t sweep_at_ = 1024;
  uint64_t next_id_ = 1;
};

}  // namespace skytorch::server
