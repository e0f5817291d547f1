// The guard of an operator. Each was found by tests/fuzz/sessions.py or by calling every operator with hostile
// arguments: torch reads or writes outside of a storage, divides by zero or never comes back without it.
#include "op_guards.h"

#include "guards/families.h"

namespace skytorch::server {

Guard guard_of(std::string_view base) {
  for (const auto& family : {image_guards(), layer_guards(), math_guards(), sparse_guards()}) {
    for (const GuardEntry& entry : family) {
      if (entry.name == base) return entry.guard;
    }
  }
  return nullptr;
}

}  // namespace skytorch::server
