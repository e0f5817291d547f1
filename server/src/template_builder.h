// Turns a template from the wire into an OpTemplate. A template that asks for something that cannot be becomes a
// broken one with the reason: only records of it fail. Nothing here runs an operator.
#pragma once

#include <set>

#include "device/device.h"
#include "op_template.h"

namespace skytorch::server {

// Namespaces of operators that clients may run besides aten: those that `--import` registered.
class AllowedNamespaces {
 public:
  void allow(const std::string& name);
  bool contains(std::string_view name) const;

 private:
  mutable std::mutex mutex_;
  std::set<std::string, std::less<>> names_{"aten"};
};

class TemplateBuilder {
 public:
  TemplateBuilder(const DeviceList& devices, const AllowedNamespaces& namespaces, GeometryTable& geometries)
      : devices_(devices), namespaces_(namespaces), geometries_(geometries) {}

  std::unique_ptr<const OpTemplate> build(const SkyTemplate& wire);

 private:
  void build_op(const SkyTemplate& wire, OpTemplate& out);
  void build_bytes(const SkyTemplate& wire, OpTemplate& out);
  void add_returns(const SkyTemplate& wire, const c10::FunctionSchema& schema, OpTemplate& out);
  void add_outputs(const SkyTemplate& wire, OpTemplate& out);

  const DeviceList& devices_;
  const AllowedNamespaces& namespaces_;
  GeometryTable& geometries_;
};

}  // namespace skytorch::server
