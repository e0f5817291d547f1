// The outputs of a structured kernel, see structured.h.
#include "structured.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ScalarOps.h>
#include <ATen/native/Resize.h>

namespace skytorch::oracle {

StructuredOutputs::StructuredOutputs(Question& question) : question_(question) {
  const size_t n = question.written.empty() ? question.op.schema().returns().size() : question.written.size();
  question.out.resize(n);
  fresh_.resize(n);
}

void StructuredOutputs::set(int64_t i, at::IntArrayRef sizes, at::IntArrayRef strides,
                            const at::TensorOptions& options) {
  for (int64_t n : sizes) TORCH_CHECK(n >= 0, "Trying to create tensor with negative dimension ", n, ": ", sizes);
  Output& o = question_.out[i];
  o.defined = true;
  o.dtype = options.dtype().toScalarType();
  o.sizes.assign(sizes.begin(), sizes.end());
  if (!question_.written.empty()) {
    const at::Tensor& given = question_.tensor(question_.written[i]);
    const bool in_place = question_.written[i] == 0;
    if (in_place) {
      TORCH_CHECK(options.dtype() == given.dtype(), "Bad in-place call: ", "input tensor dtype ", given.dtype(),
                  " and output tensor dtype ", options.dtype(), " should match");
      TORCH_CHECK(sizes == given.sizes(), "Bad in-place call: ", "input tensor size ", given.sizes(),
                  " and output tensor size ", sizes, " should match");
    } else {
      TORCH_CHECK(options.dtype() == given.dtype(), "Expected out tensor to have dtype ", options.dtype(),
                  ", but got ", given.dtype(), " instead");
    }
    if (in_place || !at::native::resize_output_check(given, sizes)) {
      o.strides.assign(given.strides().begin(), given.strides().end());
      return;
    }
  }
  if (strides.empty()) {
    const at::DimVector dense =
        format_strides(sizes, options.memory_format_opt().value_or(at::MemoryFormat::Contiguous));
    o.strides.assign(dense.begin(), dense.end());
  } else {
    o.strides.assign(strides.begin(), strides.end());
  }
  // Some meta functions check afterwards that the output they asked for has the size that they set.
  if (!question_.written.empty() && fresh_[i].defined()) {
    fresh_[i].unsafeGetTensorImpl()->set_sizes_and_strides(o.sizes, o.strides);
  }
  if (asked_) allocate(i);
}

void StructuredOutputs::allocate(int64_t i) {
  const Output& o = question_.out[i];
  if (question_.written.empty() && o.defined) {
    fresh_[i] = at::Tensor(at::detail::empty_strided_meta(o.sizes, o.strides, o.dtype));
  }
}

const at::Tensor& StructuredOutputs::get(int64_t i) {
  if (!question_.written.empty()) return question_.tensor(question_.written[i]);
  asked_ = true;
  if (!fresh_[i].defined()) allocate(i);
  return fresh_[i];
}

const at::Tensor& StructuredOutputs::get_resizable(int64_t i) {
  if (question_.written.empty() || question_.written[i] == 0) return get(i);
  const at::Tensor& given = question_.tensor(question_.written[i]);
  if (!fresh_[i].defined()) {
    fresh_[i] = at::Tensor(at::detail::empty_strided_meta(given.sizes(), given.strides(), given.scalar_type()));
  }
  return fresh_[i];
}

torch::jit::Stack with_number_as_tensor(const torch::jit::Stack& args, size_t position) {
  torch::jit::Stack stack(args);
  stack[position] = at::native::wrapped_scalar_tensor(args[position].toScalar());
  return stack;
}

}  // namespace skytorch::oracle
