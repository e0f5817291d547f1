// Torch's own kernel of another dispatch key, for tensors that are composed of dense `sky` tensors: where that kernel
// only composes dense operators, and looks into no memory, it works on any device.
#pragma once

#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/core/DeviceGuard.h>

namespace skytorch {

// Runs torch's kernel of another dispatch key.
class BorrowedOp final : public c10::OperatorKernel {
 public:
  BorrowedOp(const c10::OperatorHandle& handle, c10::DispatchKey from) : handle_(handle), from_(from) {}
  void operator()(const c10::OperatorHandle& /*handle*/, c10::DispatchKeySet /*keys*/, torch::jit::Stack* stack) {
    // Empty components are made on the current device.
    const c10::OptionalDeviceGuard guard(device_of(*stack));
    handle_.redispatchBoxed(c10::DispatchKeySet(from_), stack);
  }

 private:
  std::optional<c10::Device> device_of(const torch::jit::Stack& stack) const {
    std::optional<c10::Device> found;
    const size_t first = stack.size() - handle_.schema().arguments().size();
    for (size_t i = first; i < stack.size(); ++i) {
      if (stack[i].isDevice()) {
        found = stack[i].toDevice();
        break;
      }
      if (!found.has_value() && stack[i].isTensor() && stack[i].toTensor().defined()) {
        found = stack[i].toTensor().device();
      }
    }
    const bool ours = found.has_value() && found->type() == c10::DeviceType::PrivateUse1 && found->has_index();
    return ours ? found : std::nullopt;
  }

  c10::OperatorHandle handle_;
  c10::DispatchKey from_;
};

}  // namespace skytorch
