// What the device needs to know about an operator beyond its name, worked out from its schema once, at its first
// call: the kind of each argument, which returns are arguments given back, and a few rules for single operators.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace skytorch {

enum class ArgKind : uint8_t {
  Tensor,
  TensorList,
  OptionalTensorList,
  Int,
  IntList,
  Double,
  DoubleList,
  Bool,
  BoolList,
  Scalar,
  ScalarList,
  String,
  Dtype,
  Layout,
  MemoryFormat,
  Device,
  Generator,
  Unsupported,
};

ArgKind kind_of(const c10::Argument& argument);

template <size_t N>
bool is_one_of(std::string_view name, const std::string_view (&names)[N]) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

struct Return {
  // Position of the argument that is returned (in-place and out= operators); -1: a fresh value.
  int alias = -1;
  bool is_list = false;
  c10::TypeKind type = c10::TypeKind::TensorType;

  bool is_tensor() const { return type == c10::TypeKind::TensorType; }
};

struct Operator {
  Operator(const c10::OperatorHandle& handle, uint32_t number);

  c10::OperatorHandle handle;
  std::string name;
  // Position in the table, from 1: stands for the operator in keys. 0 is a read or write of one tensor.
  uint32_t number;
  std::vector<ArgKind> args;
  std::vector<bool> written;
  std::vector<Return> returns;
  // Returns that are not arguments given back. Lists have an unknown length.
  size_t n_fresh = 0;
  bool returns_list = false;
  // bool, int, float: only the server can tell.
  bool returns_values = false;
  bool returns_aliases = false;
  // Scalars and floats decide output shapes: they belong into the key.
  bool constant_scalars = false;
  // Index tensors may be on the CPU, as on cuda; they are uploaded.
  bool cpu_indices = false;
  // Computes each element from the elements in its place: no float32 precision setting touches it.
  bool pointwise = false;
  // Tensors may be on several devices of one session.
  bool any_device = false;
  // Position of the first out= argument; they are the last ones. -1: none.
  int first_out = -1;
  int device_arg = -1;
  int first_tensor_arg = -1;
  // Makes a tensor of another layout of a dense one.
  bool makes_layouts = false;
};

// The operator that computes the same and returns it instead of writing to out= arguments, if there is one.
std::optional<c10::OperatorHandle> functional_twin(const Operator& op);

// All operators that were called so far.
class OperatorTable {
 public:
  static OperatorTable& get();
  const Operator& of(const c10::OperatorHandle& handle);

 private:
  std::mutex mutex_;
  std::unordered_map<c10::OperatorHandle, std::unique_ptr<Operator>> operators_;
};

}  // namespace skytorch
