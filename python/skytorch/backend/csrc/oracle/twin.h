// The operator that computes the same as one with out= arguments and returns it instead.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>

namespace skytorch::oracle {

// Nothing if `op` has no out= arguments (they are the last ones) or no such twin. Remembered; any thread.
std::optional<c10::OperatorHandle> functional_twin(const c10::OperatorHandle& op);

}  // namespace skytorch::oracle
