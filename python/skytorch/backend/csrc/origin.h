// Where in the user's program an operator is issued, for the message of an operator that fails later on the server
// (design, section 4). Off unless SKYTORCH_TRACE_ORIGIN=1 is in the environment or autograd's anomaly mode is on: it
// walks the Python stack for every operator. It takes the GIL, so it is never called with a stream lock held.
#pragma once

#include <torch/csrc/autograd/anomaly_mode.h>

#include <string>

namespace skytorch {

class Origin {
 public:
  // "train.py:12 in step", outside torch and skytorch; in a backward pass without Python frames, the autograd node.
  // Empty when it is off.
  static std::string here() {
    static const bool always = is_asked_for();
    return C10_UNLIKELY(always || torch::autograd::AnomalyMode::is_enabled()) ? find() : std::string();
  }

 private:
  static bool is_asked_for();
  static std::string find();
};

}  // namespace skytorch
