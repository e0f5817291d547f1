// A template as the executor runs it: the operator found, every argument checked against the schema, constants made
// into IValues, geometry interned, and what the schema says about aliasing worked out. Built once per DEFINE
// (template_builder.h), so that a record of it needs no look at the schema. Immutable afterwards.
#pragma once

#include "geometry.h"
#include "op_guards.h"
#include "poison.h"

namespace skytorch::server {

enum class Fill : uint8_t { Constant, Tensor, CpuScalar, Double, Scalar, Generator, List, Layout };

// How one stack slot (or list element) of the operator is filled.
struct ArgStep {
  Fill fill = Fill::Constant;
  bool mutated = false;                         // the operator writes to it, says its schema
  bool out = false;                             // and only writes, and may give it another size
  bool wrapped = false;                         // CpuScalar: a Python number, which promotes like one
  uint8_t scalar_kind = SKY_SCALAR_INT;         // Scalar
  at::ScalarType dtype = at::ScalarType::Byte;  // CpuScalar
  uint32_t index = 0;                           // Tensor: of the instance's storages; others: of its scalars
  GeometryRef geometry;                         // Tensor
  c10::IValue constant;                         // Constant
  c10::TypePtr element_type;                    // List
  std::vector<ArgStep> elements;                // List; of a Layout its components
  at::Layout layout = at::kStrided;             // Layout
  bool coalesced = false;                       // Layout, COO
  std::vector<int64_t> sizes;                   // Layout
};

enum class Return : uint8_t { Alias, Tensor, TensorList, Value };

struct OpTemplate {
  uint8_t kind = SKY_TEMPLATE_OP;
  uint8_t layout = SKY_LAYOUT_LOGICAL;  // READ, WRITE
  bool crosses_devices = false;         // a copy between devices: its inputs need not live on `device`
  uint32_t device = 0;
  uint32_t n_storages = 0;
  uint32_t n_scalars = 0;
  std::string name;
  std::optional<c10::OperatorHandle> op;
  // Looks at the arguments of each call; null for nearly all operators.
  Guard guard = nullptr;
  std::vector<ArgStep> steps;
  std::vector<Return> returns;
  // Null for an output that is undefined.
  std::vector<GeometryRef> outputs;
  // Of READ and WRITE.
  GeometryRef geometry;
  // Input storages that the operator writes to, and those of its `out` arguments.
  std::vector<uint32_t> mutated;
  std::vector<uint32_t> outs;
  // It writes to a tensor of another layout, whose components are then others: only a QUERY can answer that.
  bool rewrites_layouts = false;
  // Not OK: it cannot run, and every record of it is poisoned with this.
  Cause broken;

  // "operator aten::add.Tensor on float32[4, 4], float32[4]", for messages.
  std::string describe() const;
};

}  // namespace skytorch::server
