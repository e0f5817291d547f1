// Checks the arguments of a template against the types of a schema and makes the steps that fill the operator's
// stack. A kind that does not fit its type is a Failure here, so that no kernel ever unboxes an IValue of another
// type.
#pragma once

#include <c10/util/ArrayRef.h>

#include "device/device.h"
#include "op_template.h"

namespace skytorch::server {

class ArgParser {
 public:
  // `makes_layouts`: the operator makes a sparse tensor of a dense one, and may be told which.
  ArgParser(const SkyTemplate& wire, const DeviceList& devices, GeometryTable& geometries, bool makes_layouts)
      : wire_(wire), devices_(devices), geometries_(geometries), makes_layouts_(makes_layouts) {}

  // The step for the next argument of the schema.
  ArgStep next(const c10::Argument& argument);
  bool at_end() const { return position_ == wire_.n_args; }
  uint32_t n_scalars() const { return n_scalars_; }

 private:
  const SkyArg& take();
  ArgStep step(const SkyArg& arg, const c10::Type& type, bool mutated);
  ArgStep tensor(const SkyArg& arg, bool mutated);
  ArgStep layout(const SkyArg& arg, bool mutated);
  ArgStep list(const SkyArg& arg, const c10::TypePtr& element_type, bool mutated);
  void make_out(ArgStep& step) const;
  ArgStep scalar(Fill fill);
  c10::IValue number(const SkyArg& arg) const;
  [[noreturn]] void mismatch(const SkyArg& arg, const c10::Type& type) const;

  const SkyTemplate& wire_;
  const DeviceList& devices_;
  GeometryTable& geometries_;
  const bool makes_layouts_;
  uint32_t position_ = 0;
  uint32_t n_scalars_ = 0;
  const c10::Argument* argument_ = nullptr;
};

}  // namespace skytorch::server
