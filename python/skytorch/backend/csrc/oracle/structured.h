// Runs the meta half of one of torch's structured kernels (at::meta::structured_*) and keeps the geometry it sets.
// The same meta function serves the functional, in-place and out= overloads; what differs is whether there are given
// outputs and how they are checked, and that is done here with torch's own messages, because torch does it in its
// generated code, which would also resize or allocate.
#pragma once

#include <ATen/TensorMeta.h>

#include <tuple>
#include <utility>

#include "dispatcher.h"
#include "question.h"
#include "torch_version.h"
#include "unbox.h"

namespace skytorch::oracle {

// The outputs of one structured call; independent of the kernel so that it is compiled once.
class StructuredOutputs {
 public:
  explicit StructuredOutputs(Question& question);
  // What set_output_* said about output `i`.
  void set(int64_t i, at::IntArrayRef sizes, at::IntArrayRef strides, const at::TensorOptions& options);
  // The given tensor, or a meta tensor with the geometry that was set, or an undefined tensor before that.
  const at::Tensor& get(int64_t i);
  // The same, but a meta tensor in place of a given out= tensor, which takes the geometry that is set.
  const at::Tensor& get_resizable(int64_t i);

 private:
  Question& question_;
  void allocate(int64_t i);
  c10::SmallVector<at::Tensor, 3> fresh_;
  // Some meta functions take a reference to the output before they set it.
  bool asked_ = false;
};

template <class Kernel>
class Probe final : public OutputSetter<Kernel> {
 public:
  explicit Probe(Question& question) : outputs_(question) {}
  const at::Tensor& maybe_get_output(int64_t i) override {
    // The iterator compares its output's device with those of the inputs.
    if constexpr (std::is_base_of_v<at::TensorIteratorBase, Kernel>) {
      return outputs_.get(i);
    } else {
      return outputs_.get_resizable(i);
    }
  }

 private:
  void set(int64_t i, at::IntArrayRef sizes, at::IntArrayRef strides, const at::TensorOptions& options) override {
    outputs_.set(i, sizes, strides, options);
    this->tell_iterator(i, sizes, strides, options);
  }
  StructuredOutputs outputs_;
};

template <class Kernel, class Result, class... A, size_t... I>
void run_meta(Question& question, Result (Kernel::*meta)(A...), std::index_sequence<I...>) {
  std::tuple<Unbox<A>...> arguments{question[I]...};
  Probe<Kernel> probe(question);
  (probe.*meta)(std::get<I>(arguments).get()...);
}

template <class Kernel, class Result, class... A>
void run_meta(Question& question, Result (Kernel::*meta)(A...)) {
  run_meta(question, meta, std::index_sequence_for<A...>());
}

// The rule of a structured operator.
template <class Kernel>
Verdict structured(Question& question) {
  run_meta(question, &Kernel::meta);
  return Verdict::Done;
}

// The same for a kernel whose meta function calls other operators on its arguments: on meta tensors in their place.
template <class Kernel>
Verdict structured_on_meta(Question& question) {
  const auto stack = meta_arguments(question.args);
  if (!stack) return Verdict::Server;
  const Quiet quiet;
  Question whole(question.op, *stack, question.target, question.out, question.written);
  return structured<Kernel>(whole);
}

// A copy of `args` in which a number has become a 0-dim tensor that promotes types like a number.
torch::jit::Stack with_number_as_tensor(const torch::jit::Stack& args, size_t position);

// The rule of `add.Scalar` by the kernel of `add.Tensor`: argument `position` is a number where the kernel has a
// tensor.
template <class Kernel, size_t position>
Verdict structured_with_number(Question& question) {
  const torch::jit::Stack stack = with_number_as_tensor(question.args, position);
  Question whole(question.op, stack, question.target, question.out, question.written);
  return structured<Kernel>(whole);
}

}  // namespace skytorch::oracle
