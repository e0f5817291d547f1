// See encode.h.
#include "encode.h"

#include <cstring>

#include "layouts.h"

namespace skytorch {

TemplateEncoder::TemplateEncoder(const Call& call, const torch::jit::Stack& args,
                                 const std::vector<OutputSpec>& outputs)
    : call_(call) {
  const Operator* op = call.op();
  for (size_t i = 0; i < args.size(); ++i) {
    add(args[i], op == nullptr ? ArgKind::Tensor : op->args[i]);
  }
  for (const OutputSpec& spec : outputs) {
    SkyGeometry& geometry = outputs_.emplace_back();
    geometry.dtype = spec.defined ? static_cast<uint8_t>(spec.dtype) : SKY_DTYPE_UNDEFINED;
    geometry.ndim = static_cast<uint8_t>(spec.sizes.size());
    geometry.flags = spec.in_list ? SKY_GEOMETRY_IN_LIST : 0;
    geometry.sizes = spec.sizes.data();
    geometry.strides = spec.strides.data();
  }
  template_.kind = call.kind();
  template_.layout = call.layout();
  template_.device = call.device().server_device();
  if (op != nullptr) {
    template_.name = {reinterpret_cast<const uint8_t*>(op->name.data()), op->name.size()};
  }
  template_.args = args_.data();
  template_.n_args = static_cast<uint32_t>(args_.size());
  template_.outputs = outputs_.data();
  template_.n_outputs = static_cast<uint32_t>(outputs_.size());
  template_.n_storages = static_cast<uint32_t>(call.n_inputs());
  template_.n_scalars = static_cast<uint32_t>(call.scalars().size());
}

SkyArg& TemplateEncoder::push(uint8_t kind) {
  SkyArg& arg = args_.emplace_back();
  arg.kind = kind;
  return arg;
}

template <class T>
void TemplateEncoder::add_bytes(uint8_t kind, std::vector<T> values) {
  auto& bytes = bytes_.emplace_back(values.size() * sizeof(T));
  if (!values.empty()) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
  }
  SkyArg& arg = push(kind);
  arg.count = static_cast<uint32_t>(values.size());
  arg.bytes = {bytes.data(), bytes.size()};
}

void TemplateEncoder::add(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    push(SKY_ARG_NONE);
    return;
  }
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  if (!impl->key_set().has_backend(c10::BackendComponent::PrivateUse1Bit)) {
    SkyArg& arg = push(SKY_ARG_CPU_SCALAR);
    arg.integer = static_cast<int64_t>(tensor.scalar_type());
    arg.flag = impl->is_wrapped_number();
    return;
  }
  if (impl->layout() != at::kStrided) {
    return add_parts(*impl);
  }
  SkyArg& arg = push(SKY_ARG_TENSOR);
  arg.integer = call_.index_of(context_of(impl)->id);
  arg.geometry.dtype = static_cast<uint8_t>(tensor.scalar_type());
  TORCH_CHECK(impl->dim() <= 64, "only tensors with up to 64 dims are supported");
  arg.geometry.ndim = static_cast<uint8_t>(impl->dim());
  arg.geometry.flags =
      static_cast<uint8_t>((tensor.is_conj() ? SKY_GEOMETRY_CONJ : 0) | (tensor.is_neg() ? SKY_GEOMETRY_NEG : 0));
  arg.geometry.offset = impl->storage_offset();
  arg.geometry.sizes = impl->sizes().data();
  arg.geometry.strides = impl->strides().data();
}

void TemplateEncoder::add_parts(const c10::TensorImpl& impl) {
  const LayoutParts parts = take_apart(impl, call_.op()->name);
  push(SKY_ARG_LIST).count = parts.n_args();
  push(SKY_ARG_LAYOUT).integer = static_cast<int64_t>(parts.layout);
  add_bytes(SKY_ARG_INT_LIST, parts.sizes.vec());
  if (parts.layout == at::kSparse) {
    push(SKY_ARG_BOOL).integer = parts.coalesced;
  }
  for (const at::Tensor& component : parts.components) {
    add(component);
  }
}

void TemplateEncoder::add_scalar(const at::Scalar& scalar) {
  const SkyScalar value = to_scalar(scalar);
  if (!call_.op()->constant_scalars) {
    push(SKY_ARG_SCALAR_SLOT).integer = value.kind;
    return;
  }
  SkyArg& arg = push(SKY_ARG_SCALAR);
  arg.flag = value.kind;
  arg.integer = value.integer;
  arg.real = value.real;
  arg.imag = value.imag;
}

void TemplateEncoder::add(const c10::IValue& value, ArgKind kind) {
  if (value.isNone()) {
    push(SKY_ARG_NONE);
    return;
  }
  switch (kind) {
    case ArgKind::Tensor:
      return add(value.toTensor());
    case ArgKind::TensorList:
    case ArgKind::OptionalTensorList:
    case ArgKind::ScalarList: {
      const auto list = value.toListRef();
      SkyArg& arg = push(SKY_ARG_LIST);
      arg.count = static_cast<uint32_t>(list.size());
      arg.flag = kind == ArgKind::OptionalTensorList;
      for (const c10::IValue& element : list) {
        add(element, kind == ArgKind::ScalarList ? ArgKind::Scalar : ArgKind::Tensor);
      }
      return;
    }
    case ArgKind::Int:
      push(SKY_ARG_INT).integer = value.isSymInt() ? value.toSymInt().guard_int(__FILE__, __LINE__) : value.toInt();
      return;
    case ArgKind::IntList: {
      const auto list = value.toDimVector();
      return add_bytes(SKY_ARG_INT_LIST, std::vector<int64_t>(list.begin(), list.end()));
    }
    case ArgKind::Double:
      if (call_.op()->constant_scalars) {
        push(SKY_ARG_DOUBLE).real = value.toDouble();
      } else {
        push(SKY_ARG_DOUBLE_SLOT);
      }
      return;
    case ArgKind::DoubleList:
      return add_bytes(SKY_ARG_DOUBLE_LIST, value.toDoubleVector());
    case ArgKind::Bool:
      push(SKY_ARG_BOOL).integer = value.toBool();
      return;
    case ArgKind::BoolList: {
      std::vector<uint8_t> flags;
      for (const bool flag : value.toBoolList()) {
        flags.push_back(flag);
      }
      return add_bytes(SKY_ARG_BOOL_LIST, std::move(flags));
    }
    case ArgKind::Scalar:
      return add_scalar(value.toScalar());
    case ArgKind::String: {
      const std::string& text = value.toStringRef();
      push(SKY_ARG_STRING).bytes = {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
      return;
    }
    case ArgKind::Dtype:
      push(SKY_ARG_DTYPE).integer = static_cast<int64_t>(value.toScalarType());
      return;
    case ArgKind::Layout:
      push(SKY_ARG_LAYOUT).integer = static_cast<int64_t>(value.toLayout());
      return;
    case ArgKind::MemoryFormat:
      push(SKY_ARG_MEMORY_FORMAT).integer = static_cast<int64_t>(value.toMemoryFormat());
      return;
    case ArgKind::Device:
      push(SKY_ARG_DEVICE).integer = Registry::get().at(value.toDevice().index()).server_device();
      return;
    case ArgKind::Generator:
      push(value.toGenerator().defined() ? SKY_ARG_GENERATOR : SKY_ARG_NONE);
      return;
    case ArgKind::Unsupported:
      break;
  }
  TORCH_INTERNAL_ASSERT(false, "sky: an argument was keyed but cannot be encoded");
}

}  // namespace skytorch
