// Strided nested tensors: a buffer on the device, and sizes, strides and offsets in memory of this process. What
// torch composes of operators on the buffer or on its parts runs as it does for other devices; the rest is refused by
// name. (The jagged layout needs nothing here: it is a Python subclass. Its attention falls back to these.)
#include <torch/library.h>

#include "borrowed.h"
#include "call.h"

namespace skytorch {

namespace {

constexpr const char* kComposed[] = {"_nested_from_padded_and_nested_example",
                                     "_nested_select_backward",
                                     "_nested_tensor_size",
                                     "_nested_tensor_softmax_with_shape",
                                     "_nested_tensor_storage_offsets",
                                     "_nested_tensor_strides",
                                     "_safe_softmax",
                                     "_softmax",
                                     "_softmax_backward_data",
                                     "_to_copy",
                                     "abs",
                                     "add.Tensor",
                                     "add_.Tensor",
                                     "alias",
                                     "all.dim",
                                     "bmm",
                                     "cat",
                                     "chunk",
                                     "clone",
                                     "copy_",
                                     "cos",
                                     "detach",
                                     "div.Scalar",
                                     "div.Tensor",
                                     "empty_like",
                                     "eq.Scalar",
                                     "eq.Tensor",
                                     "fill_.Scalar",
                                     "ge.Scalar",
                                     "gelu",
                                     "gelu_backward",
                                     "gt.Scalar",
                                     "is_same_size",
                                     "isinf",
                                     "isnan",
                                     "isneginf",
                                     "isposinf",
                                     "linear",
                                     "linear_backward",
                                     "logical_not",
                                     "masked_fill.Scalar",
                                     "matmul",
                                     "matmul_backward",
                                     "mul.Scalar",
                                     "mul.Tensor",
                                     "mul_.Scalar",
                                     "mul_.Tensor",
                                     "narrow",
                                     "native_dropout",
                                     "native_dropout_backward",
                                     "neg",
                                     "ones_like",
                                     "relu",
                                     "relu_",
                                     "select.int",
                                     "sgn",
                                     "silu",
                                     "silu_backward",
                                     "sin",
                                     "split_with_sizes",
                                     "sqrt",
                                     "squeeze",
                                     "squeeze.dim",
                                     "sub.Tensor",
                                     "tanh",
                                     "threshold_backward",
                                     "to_padded_tensor",
                                     "transpose.int",
                                     "unbind.int",
                                     "unsqueeze",
                                     "values",
                                     "view",
                                     "where.self",
                                     "where.self_out",
                                     "matmul.out",
                                     "zero_"};

void refuse(const c10::OperatorHandle& op, torch::jit::Stack* /*stack*/) {
  raise_unsupported(toString(op.operator_name()), "nested tensors");
}

// The same of dense tensors that nested ones are made of.
constexpr const char* kMakers[] = {"_nested_from_padded", "_nested_view_from_buffer"};

template <size_t N>
void borrow(torch::Library& m, const char* const (&names)[N], c10::DispatchKey from) {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const std::string name : names) {
    const size_t dot = name.find('.');
    const auto op =
        dispatcher.findSchema({"aten::" + name.substr(0, dot), dot == std::string::npos ? "" : name.substr(dot + 1)});
    if (op.has_value() && op->hasKernelForDispatchKey(from)) {
      m.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunctor(std::make_unique<BorrowedOp>(*op, from)));
    }
  }
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) { borrow(m, kMakers, c10::DispatchKey::CPU); }
TORCH_LIBRARY_IMPL(aten, NestedTensorPrivateUse1, m) { borrow(m, kComposed, c10::DispatchKey::NestedTensorCPU); }

TORCH_LIBRARY_IMPL(_, NestedTensorPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&refuse>());
}

}  // namespace

}  // namespace skytorch
