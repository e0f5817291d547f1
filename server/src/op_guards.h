// What torch's own callers check before they call an operator, for the operators that trust them: a client may call
// any of them with anything, and a kernel that believes a size or an index reads outside of a storage. Operators that
// check their arguments themselves need no entry, and those that only other operators call are on the deny list.
#pragma once

#include "call_arguments.h"

namespace skytorch::server {

// Throws Failure if the call must not be made.
using Guard = void (*)(const CallArguments&);

// The guard of an operator, for all its overloads ("aten::_fft_r2c"); null if it needs none.
Guard guard_of(std::string_view base);

}  // namespace skytorch::server
