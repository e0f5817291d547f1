// The one path of an operator to the server: key, look-up, append; and on a key never seen, the shape oracle and a
// template first. Boxed functors and unboxed kernels differ only in how they hand over arguments and take results.
#pragma once

#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/stack.h>

#include <atomic>

#include "call.h"
#include "operator.h"

namespace skytorch {

struct Outcome {
  // Fresh tensors in the order of the flattened returns.
  c10::SmallVector<at::Tensor, 3> tensors;
  // Which of them are elements of a list.
  c10::SmallVector<bool, 3> in_list;
  // Returned numbers (of queries).
  std::vector<SkyScalar> values;
};

// Sends a finished call whose key is known. False: it is not, nothing was sent.
bool submit_known(Call& call, Outcome& out);

enum class Sent : uint8_t {
  Yes,
  Resized,  // out= arguments were resized, so that the key has to be built again
  Twin,     // nothing was sent: the functional twin has to run
};

// Sends any finished call, `args` being its boxed arguments.
Sent submit(Call& call, const torch::jit::Stack& args, Outcome& out);

// Slot of the READ or WRITE template of a finished call; lock held. `tensor` is the call's one argument.
uint32_t transfer_slot(StreamLock& lock, const Call& call, const at::Tensor& tensor);

// For layouts.cpp. The template of a key, or one that is defined with this action and these outputs; lock held.
const Template& template_of(StreamLock& lock, const Call& call, const torch::jit::Stack& args, Action action,
                            std::vector<OutputSpec> outputs);
// Sends an operator whose outputs are known; lock held.
void send_plain(StreamLock& lock, Call& call, const Template& entry, Outcome& out);
void run_twin(const Operator& op, torch::jit::Stack& stack);
// Drops the arguments and puts the returns in their place.
void push_returns(const Operator& op, torch::jit::Stack& stack, Outcome& out);

// A whole boxed operator: takes its arguments off the stack and puts its returns there.
void run_boxed(const Operator& op, torch::jit::Stack& stack);

// Kernel of one operator that is known by its name only.
class BoxedOp final : public c10::OperatorKernel {
 public:
  explicit BoxedOp(const c10::OperatorHandle& handle) : handle_(handle) {}
  void operator()(const c10::OperatorHandle& /*handle*/, c10::DispatchKeySet /*keys*/, torch::jit::Stack* stack) {
    run_boxed(op(), *stack);
  }

 private:
  const Operator& op() {
    const Operator* known = op_.load(std::memory_order_acquire);
    if (C10_UNLIKELY(known == nullptr)) {
      known = &OperatorTable::get().of(handle_);
      op_.store(known, std::memory_order_release);
    }
    return *known;
  }

  c10::OperatorHandle handle_;
  std::atomic<const Operator*> op_{nullptr};
};

}  // namespace skytorch
