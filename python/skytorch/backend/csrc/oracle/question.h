// One question to the oracle as its rules see it: typed access to the boxed arguments, and the answer being built.
// It owns nothing; it lives for one infer(). Argument positions are those of the operator's schema.
#pragma once

#include <ATen/DimVector.h>
#include <ATen/core/Tensor.h>
#include <c10/util/strides.h>

#include <optional>

#include "oracle.h"

namespace skytorch::oracle {

// What a rule says: it filled the answer, or torch's Meta kernel should be asked, or the server. A rule that finds
// its arguments bad says Server, so that the message is the real kernel's own; it never invents one.
enum class Verdict { Done, Dispatcher, Server };

class Question {
 public:
  Question(const c10::OperatorHandle& op, const torch::jit::Stack& args, const Target& target,
           std::vector<Output>& out, c10::ArrayRef<uint8_t> written)
      : op(op), args(args), target(target), out(out), written(written) {}

  const at::IValue& operator[](size_t i) const { return args[i]; }
  size_t size() const { return args.size(); }
  bool none(size_t i) const { return args[i].isNone(); }
  const at::Tensor& tensor(size_t i) const { return args[i].toTensor(); }
  // The undefined tensor stands for None.
  const at::Tensor& maybe_tensor(size_t i) const {
    static const at::Tensor undefined;
    return args[i].isNone() ? undefined : args[i].toTensor();
  }
  int64_t integer(size_t i) const { return args[i].toInt(); }
  bool flag(size_t i) const { return args[i].toBool(); }
  at::DimVector ints(size_t i) const { return args[i].toDimVector(); }
  at::ScalarType dtype_or(size_t i, at::ScalarType otherwise) const {
    return args[i].isNone() ? otherwise : args[i].toScalarType();
  }
  std::optional<at::MemoryFormat> memory_format(size_t i) const {
    return args[i].isNone() ? std::nullopt : std::optional(args[i].toMemoryFormat());
  }

  Output& add(at::ScalarType dtype, at::IntArrayRef sizes, at::IntArrayRef strides) const {
    out.emplace_back();
    Output& o = out.back();
    o.defined = true;
    o.dtype = dtype;
    o.sizes.assign(sizes.begin(), sizes.end());
    o.strides.assign(strides.begin(), strides.end());
    return o;
  }
  Output& add(at::ScalarType dtype, at::IntArrayRef sizes) const {
    return add(dtype, sizes, c10::contiguous_strides(sizes));
  }
  // Dense strides in `format`, which is neither Preserve nor of another rank than `sizes`.
  Output& add(at::ScalarType dtype, at::IntArrayRef sizes, at::MemoryFormat format) const;
  Output& add_undefined() const { return out.emplace_back(); }
  // Geometry of empty_like(t): the strides are kept where they are dense and do not overlap.
  Output& add_like(const at::Tensor& t) const { return add_like(t, t.scalar_type()); }
  Output& add_like(const at::Tensor& t, at::ScalarType dtype) const;

  const c10::OperatorHandle& op;
  const torch::jit::Stack& args;
  const Target& target;
  std::vector<Output>& out;
  // Positions of the arguments that the operator writes and returns, in the order of the returns.
  const c10::ArrayRef<uint8_t> written;
};

// torch's promotion of the types of two tensors, 0-dim ones and numbers counting less.
at::ScalarType promoted(const at::Tensor& a, const at::Tensor& b);
// Strides of empty_like(t) with the Preserve format.
at::DimVector preserved_strides(const at::Tensor& t);
// Strides of a dense tensor in `format` (Contiguous, ChannelsLast or ChannelsLast3d).
at::DimVector format_strides(at::IntArrayRef sizes, at::MemoryFormat format);

}  // namespace skytorch::oracle
