// The slow way: torch's own kernel for the Meta key, on meta tensors that look like the arguments. It is Python for
// most operators, so it takes the GIL and costs tens of microseconds to a millisecond.
#pragma once

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include <optional>

#include "question.h"

namespace skytorch::oracle {

// Server where the shape depends on data, where there is no Meta kernel, or where it raises: a Meta kernel may refuse
// what the real one takes, and the real one has the real message.
Verdict ask_dispatcher(Question& question);

// `args` with meta tensors for tensors and the meta device for devices; nothing if a tensor is not strided.
std::optional<torch::jit::Stack> meta_arguments(const torch::jit::Stack& args);

// Below autograd and without torch function modes, for calling operators on meta tensors.
struct Quiet {
  Quiet() {
    at::impl::PythonTorchFunctionTLS::set_disabled_state(at::impl::TorchFunctionDisabledState::ALL_DISABLED);
  }
  ~Quiet() { at::impl::PythonTorchFunctionTLS::set_disabled_state(before); }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;
  at::impl::TorchFunctionDisabledState before = at::impl::PythonTorchFunctionTLS::get_disabled_state();
  at::AutoDispatchBelowADInplaceOrView below_autograd;
};

}  // namespace skytorch::oracle
