// The guards by family: a file has the functions, and the operators that they are for.
#pragma once

#include "../op_guards.h"

namespace skytorch::server {

struct GuardEntry {
  std::string_view name;  // without the overload
  Guard guard;
};

c10::ArrayRef<GuardEntry> image_guards();
c10::ArrayRef<GuardEntry> layer_guards();
c10::ArrayRef<GuardEntry> math_guards();
c10::ArrayRef<GuardEntry> sparse_guards();

inline bool same_size(const at::Tensor& a, const at::Tensor& b) { return a.sizes() == b.sizes(); }

// The first sizes of `a`, without the last `k`.
inline at::IntArrayRef leading(const at::Tensor& a, int64_t k) {
  return a.sizes().slice(0, static_cast<size_t>(a.dim() - k));
}

inline void require_same_lengths(const CallArguments& a, std::string_view name, size_t n) {
  a.require(a.tensors(name).size() == n, "the lists must have the same length");
}

}  // namespace skytorch::server
