// Schema analysis. See operator.h.
#include "operator.h"

#include <algorithm>
#include <string_view>

#include "oracle/twin.h"

namespace skytorch {

namespace {

ArgKind kind_of_type(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::OptionalType:
      return kind_of_type(*type.castRaw<c10::OptionalType>()->getElementType());
    case c10::TypeKind::TensorType:
      return ArgKind::Tensor;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      return ArgKind::Int;
    case c10::TypeKind::FloatType:
      return ArgKind::Double;
    case c10::TypeKind::BoolType:
      return ArgKind::Bool;
    case c10::TypeKind::NumberType:
      return ArgKind::Scalar;
    case c10::TypeKind::StringType:
      return ArgKind::String;
    case c10::TypeKind::ScalarTypeType:
      return ArgKind::Dtype;
    case c10::TypeKind::LayoutType:
      return ArgKind::Layout;
    case c10::TypeKind::MemoryFormatType:
      return ArgKind::MemoryFormat;
    case c10::TypeKind::DeviceObjType:
      return ArgKind::Device;
    case c10::TypeKind::GeneratorType:
      return ArgKind::Generator;
    case c10::TypeKind::ListType: {
      const c10::Type& element = *type.castRaw<c10::ListType>()->getElementType();
      const bool optional = element.kind() == c10::TypeKind::OptionalType;
      switch (kind_of_type(element)) {
        case ArgKind::Tensor:
          return optional ? ArgKind::OptionalTensorList : ArgKind::TensorList;
        case ArgKind::Int:
          return ArgKind::IntList;
        case ArgKind::Double:
          return ArgKind::DoubleList;
        case ArgKind::Bool:
          return ArgKind::BoolList;
        case ArgKind::Scalar:
          return ArgKind::ScalarList;
        default:
          return ArgKind::Unsupported;
      }
    }
    default:
      return ArgKind::Unsupported;
  }
}

// Output shapes, or parameters that are checked on a call with a new key only.
constexpr std::string_view kConstantScalars[] = {
    "aten::arange",  "aten::range",        "aten::uniform_",    "aten::normal_", "aten::geometric_",
    "aten::cauchy_", "aten::exponential_", "aten::log_normal_", "aten::pow",     "aten::pow_"};
constexpr std::string_view kCpuIndices[] = {
    "aten::index",         "aten::index_put",         "aten::index_put_",           "aten::_index_put_impl_",
    "aten::_unsafe_index", "aten::_unsafe_index_put", "aten::_unsafe_masked_index", "aten::_index_put_impl"};

}  // namespace

ArgKind kind_of(const c10::Argument& argument) { return kind_of_type(*argument.real_type()); }

Operator::Operator(const c10::OperatorHandle& op, uint32_t n) : handle(op), number(n) {
  const c10::FunctionSchema& schema = op.schema();
  name = schema.name();
  constant_scalars = is_one_of(name, kConstantScalars);
  cpu_indices = is_one_of(name, kCpuIndices);
  pointwise = op.hasTag(at::Tag::pointwise);
  any_device = name == "aten::copy_";
  makes_layouts = name.rfind("aten::_to_sparse", 0) == 0;
  if (!schema.overload_name().empty()) {
    name += "." + schema.overload_name();
  }
  for (const c10::Argument& argument : schema.arguments()) {
    const int position = static_cast<int>(args.size());
    args.push_back(kind_of(argument));
    written.push_back(argument.alias_info() != nullptr && argument.alias_info()->isWrite());
    if (argument.is_out() && first_out < 0) {
      first_out = position;
    }
    if (args.back() == ArgKind::Device && device_arg < 0) {
      device_arg = position;
    }
    if (args.back() == ArgKind::Tensor && first_tensor_arg < 0) {
      first_tensor_arg = position;
    }
  }
  for (const c10::Argument& value : schema.returns()) {
    Return& r = returns.emplace_back();
    const c10::Type* type = value.type().get();
    r.is_list = type->kind() == c10::TypeKind::ListType;
    r.type = (r.is_list ? type->castRaw<c10::ListType>()->getElementType().get() : type)->kind();
    if (value.alias_info() != nullptr) {
      for (size_t i = 0; i < written.size(); ++i) {
        const c10::AliasInfo* info = schema.arguments()[i].alias_info();
        if (written[i] && info->beforeSets() == value.alias_info()->beforeSets()) {
          r.alias = static_cast<int>(i);
        }
      }
    }
    n_fresh += r.alias < 0 && r.is_tensor();
    returns_list |= r.alias < 0 && r.is_tensor() && r.is_list;
    returns_values |= !r.is_tensor();
    returns_aliases |= r.alias >= 0;
  }
}

std::optional<c10::OperatorHandle> functional_twin(const Operator& op) { return oracle::functional_twin(op.handle); }

OperatorTable& OperatorTable::get() {
  static OperatorTable* table = std::make_unique<OperatorTable>().release();
  return *table;
}

const Operator& OperatorTable::of(const c10::OperatorHandle& handle) {
  std::lock_guard<std::mutex> hold(mutex_);
  auto& entry = operators_[handle];
  if (entry == nullptr) {
    entry = std::make_unique<Operator>(handle, static_cast<uint32_t>(operators_.size()));
  }
  return *entry;
}

}  // namespace skytorch
