// A call written out as the SkyTemplate that the server gets once. Works from the boxed arguments of the very call
// that missed; the pointers in the template are into those arguments and into this object, and live as long as both.
#pragma once

#include <ATen/core/stack.h>
#include <skytorch/wire.h>

#include <deque>
#include <vector>

#include "call.h"
#include "template_cache.h"

namespace skytorch {

class TemplateEncoder {
 public:
  TemplateEncoder(const Call& call, const torch::jit::Stack& args, const std::vector<OutputSpec>& outputs);
  TemplateEncoder(const TemplateEncoder&) = delete;
  TemplateEncoder& operator=(const TemplateEncoder&) = delete;

  const SkyTemplate& result() const { return template_; }

 private:
  void add(const c10::IValue& value, ArgKind kind);
  void add(const at::Tensor& tensor);
  void add_parts(const c10::TensorImpl& impl);
  void add_scalar(const at::Scalar& scalar);
  SkyArg& push(uint8_t kind);
  template <class T>
  void add_bytes(uint8_t kind, std::vector<T> values);

  const Call& call_;
  std::vector<SkyArg> args_;
  std::vector<SkyGeometry> outputs_;
  std::deque<std::vector<uint8_t>> bytes_;
  SkyTemplate template_{};
};

}  // namespace skytorch
