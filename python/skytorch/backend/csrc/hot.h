// The operators that get an unboxed kernel: those that training and inference of the usual networks call most.
#pragma once

namespace skytorch {

void register_hot();

}  // namespace skytorch
