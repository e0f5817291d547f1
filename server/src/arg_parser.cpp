// One case per type of the schema language that the wire can express.
#include "arg_parser.h"

#include <cstring>

#include "call_arguments.h"
#include "layouts.h"

namespace skytorch::server {
namespace {

ArgStep constant(c10::IValue value) {
  ArgStep step;
  step.constant = std::move(value);
  return step;
}

template <class T>
c10::List<T> copy_list(const SkyArg& arg) {
  if (arg.bytes.size != uint64_t{arg.count} * sizeof(T)) {
    throw Failure(SKY_ERR_PROTOCOL, "a list argument's byte count does not match its element count");
  }
  std::vector<T> values(arg.count);
  if (arg.count > 0) std::memcpy(values.data(), arg.bytes.data, arg.bytes.size);
  return c10::List<T>(at::ArrayRef<T>(values));
}

c10::List<bool> copy_bools(const SkyArg& arg) {
  if (arg.bytes.size != arg.count) {
    throw Failure(SKY_ERR_PROTOCOL, "a list argument's byte count does not match its element count");
  }
  c10::List<bool> values;
  values.reserve(arg.count);
  for (uint32_t i = 0; i < arg.count; ++i) values.push_back(arg.bytes.data[i] != 0);
  return values;
}

int64_t in_range(const SkyArg& arg, int64_t end, const char* what) {
  if (arg.integer < 0 || arg.integer >= end) {
    throw Failure(SKY_ERR_INVALID_ARGUMENT,
                  std::string(what) + " number " + std::to_string(arg.integer) + " is not known to this torch");
  }
  return arg.integer;
}

}  // namespace

const SkyArg& ArgParser::take() {
  if (at_end())
    throw Failure(SKY_ERR_INVALID_ARGUMENT, "the template has fewer arguments than the operator's schema");
  return wire_.args[position_++];
}

void ArgParser::mismatch(const SkyArg& arg, const c10::Type& type) const {
  throw Failure(SKY_ERR_INVALID_ARGUMENT, "argument '" + argument_->name() + "' is " + type.str() +
                                              " in this server's torch and the client sent kind " +
                                              std::to_string(arg.kind));
}

ArgStep ArgParser::next(const c10::Argument& argument) {
  argument_ = &argument;
  const bool mutated = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
  const SkyArg& arg = take();
  if (arg.kind == SKY_ARG_NONE && argument.name() == "self" &&
      argument.real_type()->kind() == c10::TypeKind::TensorType) {
    mismatch(arg, *argument.real_type());
  }
  ArgStep made = step(arg, *argument.real_type(), mutated);
  if (argument.is_out()) make_out(made);
  return made;
}

// Kernels take an output for contiguous once it has the size they want. One of these has fewer addresses than
// elements.
void ArgParser::make_out(ArgStep& step) const {
  step.out = true;
  if (step.fill == Fill::Layout) return;
  if (step.fill == Fill::Tensor && !has_own_memory(step.geometry->sizes, step.geometry->strides)) {
    throw Failure(SKY_ERR_INVALID_ARGUMENT, "argument '" + argument_->name() + "' is " + describe(*step.geometry) +
                                                " with elements on top of each other; write to a clone of it");
  }
  for (ArgStep& element : step.elements) make_out(element);
}

ArgStep ArgParser::scalar(Fill fill) {
  ArgStep step;
  step.fill = fill;
  step.index = n_scalars_++;
  return step;
}

c10::IValue ArgParser::number(const SkyArg& arg) const {
  switch (arg.flag) {
    case SKY_SCALAR_INT:
      return arg.integer;
    case SKY_SCALAR_FLOAT:
      return arg.real;
    case SKY_SCALAR_COMPLEX:
      return c10::complex<double>(arg.real, arg.imag);
    case SKY_SCALAR_BOOL:
      return arg.integer != 0;
    default:
      throw Failure(SKY_ERR_INVALID_ARGUMENT, "scalar kind " + std::to_string(arg.flag) + " is not known");
  }
}

ArgStep ArgParser::tensor(const SkyArg& arg, bool mutated) {
  if (arg.kind == SKY_ARG_CPU_SCALAR) {
    ArgStep step = scalar(Fill::CpuScalar);
    step.dtype = dtype_from_wire(arg.integer);
    step.wrapped = arg.flag != 0;
    return step;
  }
  if (arg.integer < 0 || arg.integer >= wire_.n_storages) {
    throw Failure(SKY_ERR_PROTOCOL, "a tensor argument names input storage " + std::to_string(arg.integer) + " of " +
                                        std::to_string(wire_.n_storages));
  }
  ArgStep step;
  step.fill = Fill::Tensor;
  step.mutated = mutated;
  step.index = static_cast<uint32_t>(arg.integer);
  step.geometry = geometries_.intern(arg.geometry);
  return step;
}

// docs/wire.md, "Tensors of other layouts". That the components make a tensor is seen when there are values.
ArgStep ArgParser::layout(const SkyArg& arg, bool mutated) {
  ArgStep step;
  step.fill = Fill::Layout;
  step.mutated = mutated;
  const auto part = [&](uint8_t kind) -> const SkyArg& {
    const SkyArg& found = take();
    if (found.kind != kind) mismatch(found, *argument_->real_type());
    return found;
  };
  step.layout =
      static_cast<at::Layout>(in_range(part(SKY_ARG_LAYOUT), static_cast<int64_t>(at::Layout::NumOptions), "layout"));
  const bool coo = step.layout == at::kSparse;
  if (!coo && !is_compressed(step.layout)) {
    throw Failure(SKY_ERR_NOT_SUPPORTED, "argument '" + argument_->name() + "' has a layout that does not travel");
  }
  const uint32_t n_tensors = coo ? 2 : 3;
  if (arg.count != (coo ? 3U : 2U) + n_tensors) mismatch(arg, *argument_->real_type());
  step.sizes = copy_list<int64_t>(part(SKY_ARG_INT_LIST)).vec();
  require_sizes(step.sizes);
  if (coo) step.coalesced = part(SKY_ARG_BOOL).integer != 0;
  for (uint32_t i = 0; i < n_tensors; ++i) step.elements.push_back(tensor(part(SKY_ARG_TENSOR), false));
  return step;
}

ArgStep ArgParser::list(const SkyArg& arg, const c10::TypePtr& element_type, bool mutated) {
  const c10::Type& element = *element_type;
  switch (arg.kind) {
    case SKY_ARG_INT_LIST:
      if (element.kind() == c10::TypeKind::IntType || element.kind() == c10::TypeKind::SymIntType) {
        return constant(copy_list<int64_t>(arg));
      }
      break;
    case SKY_ARG_DOUBLE_LIST:
      if (element.kind() == c10::TypeKind::FloatType) return constant(copy_list<double>(arg));
      break;
    case SKY_ARG_BOOL_LIST:
      if (element.kind() == c10::TypeKind::BoolType) return constant(copy_bools(arg));
      break;
    case SKY_ARG_LIST: {
      if (element.kind() == c10::TypeKind::ListType) break;
      ArgStep step;
      step.fill = Fill::List;
      step.mutated = mutated;
      // SymInt elements travel as ints.
      step.element_type =
          element.kind() == c10::TypeKind::SymIntType ? c10::TypePtr(c10::IntType::get()) : element_type;
      step.elements.reserve(std::min<uint32_t>(arg.count, wire_.n_args));
      for (uint32_t i = 0; i < arg.count; ++i) step.elements.push_back(this->step(take(), element, mutated));
      return step;
    }
    default:
      break;
  }
  mismatch(arg, element);
}

ArgStep ArgParser::step(const SkyArg& arg, const c10::Type& type, bool mutated) {
  switch (type.kind()) {
    case c10::TypeKind::OptionalType:
      if (arg.kind == SKY_ARG_NONE) return constant({});
      return step(arg, *type.expectRef<c10::OptionalType>().getElementType(), mutated);
    case c10::TypeKind::TensorType:
      if (arg.kind == SKY_ARG_TENSOR || arg.kind == SKY_ARG_CPU_SCALAR) return tensor(arg, mutated);
      if (arg.kind == SKY_ARG_LIST) return layout(arg, mutated);
      // An undefined tensor; some backward operators take one where the schema does not say so.
      if (arg.kind == SKY_ARG_NONE) return constant(at::Tensor());
      break;
    case c10::TypeKind::ListType:
      return list(arg, type.expectRef<c10::ListType>().getElementType(), mutated);
    case c10::TypeKind::NumberType:
      if (arg.kind == SKY_ARG_SCALAR) return constant(number(arg));
      if (arg.kind == SKY_ARG_SCALAR_SLOT) {
        ArgStep step = scalar(Fill::Scalar);
        step.scalar_kind = static_cast<uint8_t>(in_range(arg, SKY_SCALAR_BOOL + 1, "scalar kind"));
        return step;
      }
      if (arg.kind == SKY_ARG_INT) return constant(arg.integer);
      if (arg.kind == SKY_ARG_DOUBLE) return constant(arg.real);
      if (arg.kind == SKY_ARG_BOOL) return constant(arg.integer != 0);
      break;
    case c10::TypeKind::FloatType:
      if (arg.kind == SKY_ARG_DOUBLE) return constant(arg.real);
      if (arg.kind == SKY_ARG_DOUBLE_SLOT) return scalar(Fill::Double);
      break;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      if (arg.kind == SKY_ARG_INT) return constant(arg.integer);
      break;
    case c10::TypeKind::BoolType:
    case c10::TypeKind::SymBoolType:
      if (arg.kind == SKY_ARG_BOOL) return constant(arg.integer != 0);
      break;
    case c10::TypeKind::StringType:
      if (arg.kind == SKY_ARG_STRING) {
        return constant(std::string(reinterpret_cast<const char*>(arg.bytes.data), arg.bytes.size));
      }
      break;
    case c10::TypeKind::ScalarTypeType:
      if (arg.kind == SKY_ARG_DTYPE) return constant(static_cast<int64_t>(dtype_from_wire(arg.integer)));
      break;
    case c10::TypeKind::LayoutType:
      if (arg.kind == SKY_ARG_LAYOUT) {
        const auto layout =
            static_cast<at::Layout>(in_range(arg, static_cast<int64_t>(at::Layout::NumOptions), "layout"));
        if (layout != at::kStrided && !(makes_layouts_ && (layout == at::kSparse || is_compressed(layout)))) {
          throw Failure(SKY_ERR_NOT_SUPPORTED, "a SkyTorch server makes strided tensors here and no others");
        }
        return constant(arg.integer);
      }
      break;
    case c10::TypeKind::MemoryFormatType:
      if (arg.kind == SKY_ARG_MEMORY_FORMAT) {
        return constant(in_range(arg, static_cast<int64_t>(at::MemoryFormat::NumOptions), "memory format"));
      }
      break;
    case c10::TypeKind::DeviceObjType:
      if (arg.kind == SKY_ARG_DEVICE) {
        return constant(devices_[in_range(arg, static_cast<int64_t>(devices_.size()), "device")]->torch_device());
      }
      break;
    case c10::TypeKind::GeneratorType:
      if (arg.kind == SKY_ARG_GENERATOR) return scalar(Fill::Generator);
      break;
    default:
      throw Failure(SKY_ERR_NOT_SUPPORTED, "argument '" + argument_->name() + "' is a " + type.str() +
                                               ", which cannot travel to a SkyTorch server");
  }
  mismatch(arg, type);
}

}  // namespace skytorch::server
