// The arguments of one call by the names of its schema, for the guards (op_guards.h): each look-up gives a value
// of the type that the guard expects or is a Failure that names the operator and the argument. Not a second type
// check: arg_parser.cpp has made every value fit its schema.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <string_view>
#include <vector>

namespace skytorch::server {

class CallArguments {
 public:
  CallArguments(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) : schema_(schema), stack_(stack) {}

  // Overloads of an operator do not all have the same arguments.
  bool has(std::string_view name) const { return schema_.argumentIndexWithName(std::string(name)).has_value(); }
  const at::Tensor& tensor(std::string_view name) const;
  // Undefined if it is not given.
  at::Tensor maybe(std::string_view name) const;
  std::vector<at::Tensor> tensors(std::string_view name) const;
  int64_t integer(std::string_view name) const;
  std::vector<int64_t> ints(std::string_view name) const;
  at::Scalar scalar(std::string_view name) const;
  at::ScalarType dtype(std::string_view name) const { return static_cast<at::ScalarType>(integer(name)); }
  bool is_tensor(std::string_view name) const { return value(name).isTensor(); }
  double real(std::string_view name) const { return value(name).toDouble(); }
  bool boolean(std::string_view name) const { return value(name).toBool(); }
  const std::string& text(std::string_view name) const { return value(name).toStringRef(); }
  // The operator only writes to it, and gives it the size that it needs.
  bool is_out(std::string_view name) const;
  bool given(std::string_view name) const { return !value(name).isNone(); }

  // A Failure unless it holds; `what` says what must.
  void require(bool holds, std::string_view what) const {
    if (!holds) [[unlikely]]
      refuse(what);
  }
  // Each in [-ndim, ndim), none twice.
  void require_dims(std::string_view name, const at::Tensor& tensor) const;
  // Integers, and on the CPU also: each in [0, end). A CUDA kernel has its own checks, and a look would wait for it.
  void require_indices(std::string_view name, int64_t end) const;
  void require_indices(std::string_view name, const at::Tensor& indices, int64_t end) const;
  // Not given, or one number per channel.
  void require_per_channel(std::string_view name, int64_t channels) const;
  // Code that takes the elements for contiguous stays inside the storage.
  void require_own_memory(std::string_view name, const at::Tensor& tensor) const;

 private:
  const c10::IValue& value(std::string_view name) const;
  [[noreturn]] void refuse(std::string_view what) const;

  const c10::FunctionSchema& schema_;
  const torch::jit::Stack& stack_;
};

// As many addresses as elements.
bool has_own_memory(at::IntArrayRef sizes, at::IntArrayRef strides);

}  // namespace skytorch::server
