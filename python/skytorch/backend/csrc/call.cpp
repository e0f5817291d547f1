// The rarer argument kinds of a key, and its hash. See call.h.
#include "call.h"

#include "generator.h"
#include "layouts.h"

namespace skytorch {

namespace {

std::string_view name_of(const Operator* op) { return op == nullptr ? std::string_view("copy") : op->name; }

// The value of a 0-dim CPU tensor, without a dispatcher call.
SkyScalar value_of(const at::Tensor& tensor) {
  if (tensor.is_conj() || tensor.is_neg()) {
    return to_scalar(tensor.resolve_conj().resolve_neg().item());
  }
  SkyScalar out{};
  const void* data = tensor.const_data_ptr();
  switch (tensor.scalar_type()) {
    case at::kDouble:
      out.kind = SKY_SCALAR_FLOAT;
      out.real = *static_cast<const double*>(data);
      return out;
    case at::kFloat:
      out.kind = SKY_SCALAR_FLOAT;
      out.real = *static_cast<const float*>(data);
      return out;
    case at::kLong:
      out.kind = SKY_SCALAR_INT;
      out.integer = *static_cast<const int64_t*>(data);
      return out;
    case at::kBool:
      out.kind = SKY_SCALAR_BOOL;
      out.integer = *static_cast<const bool*>(data);
      return out;
    default:
      return to_scalar(tensor.item());
  }
}

uint64_t mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace

SkyScalar to_scalar(const at::Scalar& scalar) {
  SkyScalar out{};
  if (scalar.isBoolean()) {
    out.kind = SKY_SCALAR_BOOL;
    out.integer = scalar.toBool();
  } else if (scalar.isIntegral(false)) {
    out.kind = SKY_SCALAR_INT;
    // Above 2^63 the bits are those of the unsigned number.
    out.integer = scalar.type() == at::kUInt64 ? static_cast<int64_t>(scalar.toUInt64()) : scalar.toLong();
  } else if (scalar.isComplex()) {
    const auto value = scalar.toComplexDouble();
    out.kind = SKY_SCALAR_COMPLEX;
    out.real = value.real();
    out.imag = value.imag();
  } else {
    out.kind = SKY_SCALAR_FLOAT;
    out.real = scalar.toDouble();
  }
  return out;
}

void raise_unsupported(std::string_view op, std::string_view what) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "sky: operator ", op, " is not supported on ", what,
                              " yet; use dense tensors there, or move them to the cpu");
}

void Words::grow(size_t n) {
  size_t capacity = 2 * capacity_;
  while (capacity < size_ + n) {
    capacity *= 2;
  }
  auto bigger = std::make_unique<uint64_t[]>(capacity);
  std::memcpy(bigger.get(), data_, size_ * sizeof(uint64_t));
  heap_ = std::move(bigger);
  data_ = heap_.get();
  capacity_ = capacity;
}

void Call::add(const at::Scalar& scalar) {
  const SkyScalar value = to_scalar(scalar);
  if (C10_UNLIKELY(op_->constant_scalars)) {
    tag(SKY_ARG_SCALAR, value.kind);
    const double parts[] = {value.real, value.imag};
    words_.push(static_cast<uint64_t>(value.integer));
    put(parts, 2);
    return;
  }
  tag(SKY_ARG_SCALAR_SLOT, value.kind);
  scalars_.push_back(value);
}

void Call::add(double value) {
  if (C10_UNLIKELY(op_->constant_scalars)) {
    tag(SKY_ARG_DOUBLE);
    put(&value, 1);
    return;
  }
  tag(SKY_ARG_DOUBLE_SLOT);
  scalars_.push_back({SKY_SCALAR_FLOAT, 0, value, 0});
}

void Call::add(at::Layout layout) {
  if (layout != at::kStrided && !op_->makes_layouts) {
    raise_unsupported(name_of(op_), c10::str(layout) + " results");
  }
  tag(SKY_ARG_LAYOUT, static_cast<uint64_t>(layout));
}

void Call::add(std::string_view text) {
  tag(SKY_ARG_STRING, text.size());
  const size_t n = (text.size() + 7) / 8;
  if (n != 0) {
    uint64_t* at = words_.extend(n);
    at[n - 1] = 0;
    std::memcpy(at, text.data(), text.size());
  }
}

void Call::add(c10::Device device) {
  TORCH_CHECK(device.type() == c10::DeviceType::PrivateUse1, "Expected all tensors to be on the same device, but ",
              name_of(op_), " was asked for a result on ", device, " from tensors on sky");
  Device& target = Registry::get().at(device.index());
  if (device_ == nullptr) {
    device_ = &target;
  }
  tag(SKY_ARG_DEVICE, target.server_device());
}

void Call::add(const at::Generator& generator) {
  if (!generator.defined()) {
    add_none();
    return;
  }
  TORCH_CHECK(generator.device().type() == c10::DeviceType::PrivateUse1,
              "Expected a 'sky' device type for generator but found '", generator.device().type(), "'");
  const auto* ours = generator.get<SkyGenerator>();
  tag(SKY_ARG_GENERATOR);
  scalars_.push_back({SKY_SCALAR_INT, ours->number(), 0, 0});
}

void Call::add_other(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    add_none();
    return;
  }
  if (tensor.device().type() == c10::DeviceType::CPU && tensor.dim() == 0 && tensor.layout() == at::kStrided) {
    const auto dtype = static_cast<uint64_t>(tensor.scalar_type());
    tag(SKY_ARG_CPU_SCALAR, dtype | uint64_t{tensor.unsafeGetTensorImpl()->is_wrapped_number()} << 8);
    scalars_.push_back(value_of(tensor));
    return;
  }
  TORCH_CHECK(device_ != nullptr, "Expected all tensors to be on the same device, but found at least two devices, ",
              tensor.device(), " and sky! (when calling ", name_of(op_), ")");
  TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, ",
              device_->device(), " and ", tensor.device(), "! (when calling ", name_of(op_), ")");
}

bool Call::adopt(const c10::TensorImpl& impl, const StorageContext* context) {
  if (context == nullptr) {
    const c10::DispatchKeySet keys = impl.key_set();
    if (impl.layout() != at::kStrided) {
      const LayoutParts parts = take_apart(impl, name_of(op_));
      tag(SKY_ARG_LIST, parts.n_args());
      tag(SKY_ARG_LAYOUT, static_cast<uint64_t>(parts.layout));
      add(parts.sizes);
      if (parts.layout == at::kSparse) {
        add(parts.coalesced);
      }
      for (const at::Tensor& component : parts.components) {
        add(component);
      }
      return false;
    }
    TORCH_CHECK(!keys.has(c10::DispatchKey::ZeroTensor), "sky: operator ", name_of(op_),
                " does not take zero tensors without storage");
    TORCH_CHECK(false, "sky: operator ", name_of(op_), " got a tensor whose storage is not one of a sky device");
  }
  if (device_ == nullptr) {
    device_ = context->device;
    return true;
  }
  Device& other = *context->device;
  if (op_ != nullptr && op_->any_device && &other.session() == &device_->session()) {
    return true;
  }
  if (other.session().closed() || device_->session().closed()) {
    raise(SKY_ERR_SESSION_CLOSED, "sky: operator " + std::string(name_of(op_)) +
                                      " got a tensor of a session that is closed; what lived in it is gone");
  }
  TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, ",
              device_->device(), " and ", other.device(), "! (when calling ", name_of(op_), ")");
}

uint32_t Call::intern_many(uint64_t storage) {
  if (table_.size() < 2 * (storages_.size() + 1)) {
    table_.assign(std::max<size_t>(64, 2 * table_.size()), 0);
    index_storages(0);
  }
  const size_t mask = table_.size() - 1;
  size_t at = mix(storage, 0x9E3779B97F4A7C15) & mask;
  for (; table_[at] != 0; at = (at + 1) & mask) {
    if (storages_[table_[at] - 1] == storage) {
      return table_[at] - 1;
    }
  }
  storages_.push_back(storage);
  table_[at] = static_cast<uint32_t>(storages_.size());
  return table_[at] - 1;
}

void Call::index_storages(size_t from) {
  const size_t mask = table_.size() - 1;
  for (size_t i = from; i < storages_.size(); ++i) {
    size_t at = mix(storages_[i], 0x9E3779B97F4A7C15) & mask;
    while (table_[at] != 0) {
      at = (at + 1) & mask;
    }
    table_[at] = static_cast<uint32_t>(i + 1);
  }
}

uint32_t Call::index_of(uint64_t storage) const {
  if (table_.empty()) {
    const auto* found = std::find(storages_.begin(), storages_.end(), storage);
    return static_cast<uint32_t>(found - storages_.begin());
  }
  const size_t mask = table_.size() - 1;
  size_t at = mix(storage, 0x9E3779B97F4A7C15) & mask;
  while (storages_[table_[at] - 1] != storage) {
    at = (at + 1) & mask;
  }
  return table_[at] - 1;
}

void Call::add(const c10::IValue& value, ArgKind kind) {
  if (value.isNone()) {
    add_none();
    return;
  }
  switch (kind) {
    case ArgKind::Tensor:
      return add(value.toTensor());
    case ArgKind::TensorList:
    case ArgKind::OptionalTensorList: {
      const auto list = value.toListRef();
      tag(SKY_ARG_LIST, list.size());
      for (const c10::IValue& element : list) {
        add(element, ArgKind::Tensor);
      }
      return;
    }
    case ArgKind::Int:
      return add(value.isSymInt() ? value.toSymInt().guard_int(__FILE__, __LINE__) : value.toInt());
    case ArgKind::IntList:
      return add(at::IntArrayRef(value.toDimVector()));
    case ArgKind::Double:
      return add(value.isSymFloat() ? value.toSymFloat().guard_float(__FILE__, __LINE__) : value.toDouble());
    case ArgKind::DoubleList:
      return add(c10::ArrayRef<double>(value.toDoubleVector()));
    case ArgKind::Bool:
      return add(value.toBool());
    case ArgKind::BoolList: {
      const auto list = value.toBoolList();
      tag(SKY_ARG_BOOL_LIST, list.size());
      uint64_t bits = 0;
      for (size_t i = 0; i < list.size(); ++i) {
        bits |= uint64_t{list.get(i)} << (i % 64);
        if (i % 64 == 63 || i + 1 == list.size()) {
          words_.push(std::exchange(bits, 0));
        }
      }
      return;
    }
    case ArgKind::Scalar:
      return add(value.toScalar());
    case ArgKind::ScalarList: {
      const auto list = value.toListRef();
      tag(SKY_ARG_LIST, list.size());
      for (const c10::IValue& element : list) {
        add(element, ArgKind::Scalar);
      }
      return;
    }
    case ArgKind::String:
      return add(std::string_view(value.toStringRef()));
    case ArgKind::Dtype:
      return add(value.toScalarType());
    case ArgKind::Layout:
      return add(value.toLayout());
    case ArgKind::MemoryFormat:
      return add(value.toMemoryFormat());
    case ArgKind::Device:
      return add(value.toDevice());
    case ArgKind::Generator:
      return add(value.toGenerator());
    case ArgKind::Unsupported:
      break;
  }
  raise_unsupported(name_of(op_), "arguments of type " + value.tagKind());
}

void Call::finish() {
  TORCH_CHECK(device_ != nullptr, "sky: operator ", name_of(op_), " got no tensor on sky and no device");
  uint64_t* words = words_.data();
  const auto default_dtype = static_cast<uint8_t>(c10::get_default_dtype_as_scalartype());
  words[0] = uint64_t{op_ == nullptr ? 0 : op_->number} << 32 | uint64_t{default_dtype} << 24 |
             uint64_t{layout_} << 16 | uint64_t{kind_} << 8 | device_->server_device();
  // Two chains, so that the multiplications overlap.
  uint64_t a = 0x2D358DCCAA6C78A5;
  uint64_t b = 0x8BB84B93962EACC9;
  size_t i = 0;
  for (; i + 2 <= words_.size(); i += 2) {
    a = mix(a ^ words[i], 0x4B33A62ED433D4A3);
    b = mix(b ^ words[i + 1], 0x4D5A2DA51DE1AA47);
  }
  if (i < words_.size()) {
    a = mix(a ^ words[i], 0x4B33A62ED433D4A3);
  }
  hash_ = mix(a ^ 0xA0761D6478BD642F, b ^ words_.size());
}

}  // namespace skytorch
