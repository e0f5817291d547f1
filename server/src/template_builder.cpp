// Looks operators up, refuses those that may not run, and fills OpTemplate.
#include "template_builder.h"

#include <torch/version.h>

#include <algorithm>

#include "arg_parser.h"
#include "deny_list.h"
#include "layouts.h"

namespace skytorch::server {
namespace {

std::string_view text(const SkyBytes& bytes) { return {reinterpret_cast<const char*>(bytes.data), bytes.size}; }

[[noreturn]] void refuse(const std::string& name, std::string_view reason) {
  throw Failure(SKY_ERR_NOT_SUPPORTED,
                "operator " + name + " is not allowed on a SkyTorch server: it " + std::string(reason));
}

// Copies, whose source and destination may be on different devices of this server.
bool is_copy(std::string_view base) {
  return base == "aten::copy_" || base == "aten::copy" || base == "aten::_to_copy" || base == "aten::_copy_from";
}

bool takes_tensors(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType:
      return true;
    case c10::TypeKind::OptionalType:
      return takes_tensors(*type.expectRef<c10::OptionalType>().getElementType());
    default:
      return false;
  }
}

void note_written(const ArgStep& step, OpTemplate& out) {
  if (step.fill == Fill::Tensor && step.mutated) out.mutated.push_back(step.index);
  if (step.fill == Fill::Tensor && step.out) out.outs.push_back(step.index);
  if (step.fill == Fill::Layout && step.mutated) out.rewrites_layouts = true;
  for (const ArgStep& element : step.elements) note_written(element, out);
}

void append_tensors(const ArgStep& step, std::string& out, size_t& n) {
  constexpr size_t kMaxShown = 8;
  if (step.fill == Fill::Tensor && n < kMaxShown) out += (n++ == 0 ? " on " : ", ") + describe(*step.geometry);
  for (const ArgStep& element : step.elements) append_tensors(element, out, n);
  if (n == kMaxShown && out.back() != '.') out += ", ...";
}

}  // namespace

std::string OpTemplate::describe() const {
  if (kind == SKY_TEMPLATE_READ || kind == SKY_TEMPLATE_WRITE) {
    return std::string(kind == SKY_TEMPLATE_READ ? "read of " : "write to ") +
           (geometry ? server::describe(*geometry) : "a tensor");
  }
  std::string out = "operator " + name;
  size_t n = 0;
  for (const ArgStep& step : steps) append_tensors(step, out, n);
  return out;
}

void AllowedNamespaces::allow(const std::string& name) {
  std::lock_guard lock(mutex_);
  names_.insert(name);
}

bool AllowedNamespaces::contains(std::string_view name) const {
  std::lock_guard lock(mutex_);
  return names_.find(name) != names_.end();
}

std::unique_ptr<const OpTemplate> TemplateBuilder::build(const SkyTemplate& wire) {
  auto out = std::make_unique<OpTemplate>();
  out->kind = wire.kind;
  out->layout = wire.layout;
  out->device = wire.device;
  out->n_storages = wire.n_storages;
  out->n_scalars = wire.n_scalars;
  out->name = std::string(text(wire.name));
  try {
    // First what a template that cannot run must say all the same: how many storages its records poison, and how many
    // bytes of a transfer are its tensor's.
    out->outputs.resize(wire.n_outputs);
    const bool moves_bytes = wire.kind == SKY_TEMPLATE_READ || wire.kind == SKY_TEMPLATE_WRITE;
    if (moves_bytes) build_bytes(wire, *out);
    if (wire.device >= devices_.size()) {
      throw Failure(SKY_ERR_DEVICE_NOT_FOUND, "this server has no device number " + std::to_string(wire.device));
    }
    if (!moves_bytes) build_op(wire, *out);
  } catch (...) {
    out->broken = current_cause();
  }
  return out;
}

void TemplateBuilder::build_bytes(const SkyTemplate& wire, OpTemplate& out) {
  if (wire.n_args != 1 || wire.n_storages != 1 || wire.n_scalars != 0 || wire.n_outputs != 0 ||
      wire.args[0].kind != SKY_ARG_TENSOR) {
    throw Failure(SKY_ERR_PROTOCOL, "a READ or WRITE template names one tensor and nothing else");
  }
  if (wire.layout != SKY_LAYOUT_LOGICAL && wire.layout != SKY_LAYOUT_MEMORY) {
    throw Failure(SKY_ERR_PROTOCOL, "byte layout " + std::to_string(wire.layout) + " is not known");
  }
  SkyGeometry geometry = wire.args[0].geometry;
  try {
    out.geometry = geometries_.intern(geometry);
  } catch (...) {
    // A bit that the dtype cannot have takes nothing from its size. What is refused then too has none that we know.
    geometry.flags = 0;
    out.geometry = geometries_.intern(geometry);
    throw;
  }
  if (wire.layout == SKY_LAYOUT_MEMORY && !out.geometry->dense) {
    throw Failure(SKY_ERR_PROTOCOL, "bytes in memory order need a tensor that is dense and does not overlap");
  }
}

void TemplateBuilder::build_op(const SkyTemplate& wire, OpTemplate& out) {
  if (wire.kind != SKY_TEMPLATE_OP) {
    throw Failure(SKY_ERR_PROTOCOL, "template kind " + std::to_string(wire.kind) + " is not known");
  }
  const size_t scope = out.name.find("::");
  if (scope == std::string::npos) {
    throw Failure(SKY_ERR_PROTOCOL, "'" + out.name + "' is not an operator name with a namespace");
  }
  if (const auto reason = denied_because(out.name); !reason.empty()) refuse(out.name, reason);
  if (!namespaces_.contains(std::string_view(out.name).substr(0, scope))) {
    throw Failure(SKY_ERR_NOT_SUPPORTED, "operator " + out.name +
                                             " is outside of the namespaces that this server runs; start it with "
                                             "--import MODULE for the module that registers it");
  }
  const size_t dot = out.name.find('.', scope);
  const std::string base = out.name.substr(0, dot);
  const std::string overload = dot == std::string::npos ? "" : out.name.substr(dot + 1);
  out.op = c10::Dispatcher::singleton().findSchema({base, overload});
  if (!out.op.has_value()) {
    throw Failure(SKY_ERR_NOT_SUPPORTED, "operator " + out.name +
                                             " is not in torch " TORCH_VERSION
                                             " of this server; use the same torch on client and server");
  }
  const c10::FunctionSchema& schema = out.op->schema();
  if (const auto reason = base.rfind("aten::", 0) == 0 ? unneeded_because(*out.op) : std::string_view();
      !reason.empty()) {
    refuse(out.name, reason);
  }
  out.guard = guard_of(base);
  out.crosses_devices = is_copy(base);

  ArgParser parser(wire, devices_, geometries_, makes_sparse(base));
  out.steps.reserve(schema.arguments().size());
  for (const c10::Argument& argument : schema.arguments()) out.steps.push_back(parser.next(argument));
  if (!parser.at_end()) {
    throw Failure(SKY_ERR_INVALID_ARGUMENT,
                  "operator " + out.name + " takes " + std::to_string(schema.arguments().size()) +
                      " arguments in torch " TORCH_VERSION " of this server and the client sent more");
  }
  if (parser.n_scalars() != wire.n_scalars) {
    throw Failure(SKY_ERR_PROTOCOL, "the template's scalar count does not match its arguments");
  }
  for (const ArgStep& step : out.steps) note_written(step, out);
  require_layout_kernels(*out.op, out.steps, devices_[wire.device]->torch_device());
  add_returns(wire, schema, out);
  add_outputs(wire, out);
}

void TemplateBuilder::add_returns(const SkyTemplate& wire, const c10::FunctionSchema& schema, OpTemplate& out) {
  size_t n_single = 0;
  bool has_list = false;
  for (const c10::Argument& ret : schema.returns()) {
    const c10::Type& type = *ret.real_type();
    Return kind = Return::Value;
    if (ret.alias_info() != nullptr) {
      kind = Return::Alias;
    } else if (takes_tensors(type)) {
      kind = Return::Tensor;
      ++n_single;
    } else if (type.kind() == c10::TypeKind::ListType &&
               takes_tensors(*type.expectRef<c10::ListType>().getElementType())) {
      kind = Return::TensorList;
      has_list = true;
    }
    out.returns.push_back(kind);
  }
  // A template for a QUERY has no outputs: only the server knows them.
  if (wire.n_outputs != 0 && (has_list ? wire.n_outputs < n_single : wire.n_outputs != n_single)) {
    throw Failure(SKY_ERR_INVALID_ARGUMENT, "operator " + out.name + " returns " + std::to_string(n_single) +
                                                " tensors and the template names " + std::to_string(wire.n_outputs));
  }
}

void TemplateBuilder::add_outputs(const SkyTemplate& wire, OpTemplate& out) {
  const uint64_t limit = devices_[wire.device]->allocation_limit();
  for (uint32_t i = 0; i < wire.n_outputs; ++i) {
    const SkyGeometry& geometry = wire.outputs[i];
    if (geometry.dtype == SKY_DTYPE_UNDEFINED) continue;
    out.outputs[i] = geometries_.intern(geometry);
    if (out.outputs[i]->offset != 0) throw Failure(SKY_ERR_PROTOCOL, "an output's offset is not 0");
    if (out.outputs[i]->required_bytes > limit) {
      throw Failure(SKY_ERR_OP_OUT_OF_MEMORY, "an output of " + std::to_string(out.outputs[i]->required_bytes) +
                                                  " bytes is larger than the memory of " +
                                                  devices_[wire.device]->torch_device().str());
    }
  }
}

}  // namespace skytorch::server
