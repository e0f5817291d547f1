// Kernels of the hottest operators with torch's C++ calling convention: one class for every signature. It feeds the
// same key and sends through the same path as a boxed functor; what it saves is boxing.
#pragma once

#include <ATen/core/boxing/impl/boxing.h>
#include <c10/util/Metaprogramming.h>

#include "dispatch.h"

namespace skytorch {

// How the outcome becomes the C++ return type. References are arguments given back (in-place operators).
template <class R>
struct Returned;

template <>
struct Returned<at::Tensor> {
  template <class... Args>
  static at::Tensor take(Outcome& out, Args&&... /*args*/) {
    return std::move(out.tensors[0]);
  }
};

template <>
struct Returned<at::Tensor&> {
  template <class... Args>
  static at::Tensor& take(Outcome& /*out*/, at::Tensor& self, Args&&... /*args*/) {
    return self;
  }
};

template <>
struct Returned<std::vector<at::Tensor>> {
  template <class... Args>
  static std::vector<at::Tensor> take(Outcome& out, Args&&... /*args*/) {
    return {std::make_move_iterator(out.tensors.begin()), std::make_move_iterator(out.tensors.end())};
  }
};

template <>
struct Returned<void> {
  template <class... Args>
  static void take(Outcome& /*out*/, Args&&... /*args*/) {}
};

template <class... Ts>
struct Returned<std::tuple<Ts...>> {
  template <class... Args>
  static std::tuple<Ts...> take(Outcome& out, Args&&... /*args*/) {
    return take_each(out, std::index_sequence_for<Ts...>());
  }
  template <size_t... I>
  static std::tuple<Ts...> take_each(Outcome& out, std::index_sequence<I...> /*indices*/) {
    return {std::move(out.tensors[I])...};
  }
};

template <class Schema>
class UnboxedOp;

template <class R, class... Args>
class UnboxedOp<R(Args...)> final : public c10::OperatorKernel {
 public:
  explicit UnboxedOp(const c10::OperatorHandle& handle) : op_(&OperatorTable::get().of(handle)) {}

  R operator()(Args... args) {
    Call call(*op_);
    (call.add(args), ...);
    call.finish();
    Outcome out;
    if (C10_UNLIKELY(!submit_known(call, out))) {
      // These operators have no out= argument, so that nothing is ever resized.
      submit(call, c10::impl::boxArgs<Args...>(args...), out);
    }
    return Returned<R>::take(out, args...);
  }

 private:
  const Operator* op_;
};

// Registers the kernel for the operator that `Op` (a struct of at::_ops) stands for.
template <class Op>
c10::RegistrationHandleRAII register_unboxed() {
  auto& dispatcher = c10::Dispatcher::singleton();
  const auto handle = dispatcher.findSchemaOrThrow(Op::name, Op::overload_name);
  return dispatcher.registerImpl(handle.operator_name(), c10::DispatchKey::PrivateUse1,
                                 c10::KernelFunction::makeFromUnboxedFunctor<false, UnboxedOp<typename Op::schema>>(
                                     std::make_unique<UnboxedOp<typename Op::schema>>(handle)),
                                 std::nullopt, nullptr, "skytorch");
}

}  // namespace skytorch
