// Key -> template, bounded: what one session's server knows by slot number, and what the call returns. Open
// addressing over entries that lie at their slot; when all slots are used, one that was not asked for lately is
// replaced (a clock hand, which costs a hit nothing but one store). Guarded by the session's stream lock.
#pragma once

#include <ATen/DimVector.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <deque>
#include <vector>

namespace skytorch {

// One flattened return of an operator.
struct OutputSpec {
  bool defined = false;
  bool in_list = false;
  bool contiguous = false;
  at::ScalarType dtype = at::ScalarType::Undefined;
  uint64_t n_bytes = 0;
  at::DimVector sizes;
  at::DimVector strides;
};

// What a call with this key needs before or instead of an append.
enum class Action : uint8_t {
  Append,  // an op whose outputs are known
  Query,   // one round trip: only the server knows them
  Resize,  // `outputs` is what the out= arguments must be resized to; then the call has another key
  Twin,    // an out= operator whose shape only the server knows: its functional twin runs, then copies into `out`
};

struct Template {
  uint64_t hash = 0;
  std::vector<uint64_t> key;
  uint32_t slot = 0;
  Action action = Action::Append;
  bool used = false;
  std::vector<OutputSpec> outputs;
};

class TemplateCache {
 public:
  // For so many templates, at least one.
  explicit TemplateCache(uint32_t n_slots) : n_slots_(n_slots) {}

  // Null when the key is unknown.
  Template* find(uint64_t hash, const uint64_t* key, size_t n_words);
  // An entry for a key that `find` does not know, with a slot to define it in.
  Template& insert(uint64_t hash, const uint64_t* key, size_t n_words);
  void erase(const Template& entry);
  void clear();

 private:
  uint32_t pick_slot();
  void link(uint32_t slot);
  void unlink(uint32_t slot);
  void grow();

  // Position of entry + 1; 0 is empty. The size is a power of two, at most half full.
  std::vector<uint32_t> table_;
  std::deque<Template> entries_;
  std::vector<uint32_t> vacant_;
  uint32_t n_slots_;
  uint32_t hand_ = 0;
};

}  // namespace skytorch
