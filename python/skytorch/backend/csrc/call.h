// One operator call being keyed: the words of its key, and what an instance of its template carries (input storages
// and scalars). Built on the stack for each call, without allocation for the usual sizes, before the stream lock is
// taken. The key holds everything that decides what the operator returns or how the server must call it; storages are
// in it as numbers in order of appearance, scalar values not at all.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/core/DefaultDtype.h>
#include <c10/util/SmallVector.h>
#include <skytorch/wire.h>

#include <cstring>
#include <memory>
#include <string_view>

#include "device.h"
#include "operator.h"
#include "storage.h"

namespace skytorch {

// Growing array of words with room for a usual key inside.
class Words {
 public:
  uint64_t* extend(size_t n) {
    if (C10_UNLIKELY(size_ + n > capacity_)) {
      grow(n);
    }
    uint64_t* at = data_ + size_;
    size_ += n;
    return at;
  }
  void push(uint64_t word) { *extend(1) = word; }
  const uint64_t* data() const { return data_; }
  uint64_t* data() { return data_; }
  size_t size() const { return size_; }

  Words() = default;
  Words(const Words&) = delete;
  Words& operator=(const Words&) = delete;

 private:
  void grow(size_t n);

  static constexpr size_t kInside = 80;
  uint64_t* data_ = inside_;
  size_t size_ = 0;
  size_t capacity_ = kInside;
  std::unique_ptr<uint64_t[]> heap_;
  uint64_t inside_[kInside];
};

class Call {
 public:
  explicit Call(const Operator& op) : op_(&op) { words_.push(0); }
  // A read or write of one tensor: SKY_TEMPLATE_READ or _WRITE, and SKY_LAYOUT_*.
  Call(uint8_t template_kind, uint8_t layout) : op_(nullptr), kind_(template_kind), layout_(layout) {
    words_.push(0);
  }

  void add(const at::Tensor& tensor) {
    c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
    if (C10_LIKELY(impl->key_set().has_backend(c10::BackendComponent::PrivateUse1Bit))) {
      add_sky(*impl);
    } else {
      add_other(tensor);
    }
  }
  void add(const std::optional<at::Tensor>& tensor) {
    if (tensor.has_value()) {
      add(*tensor);
    } else {
      add_none();
    }
  }
  void add(at::TensorList list) {
    tag(SKY_ARG_LIST, list.size());
    for (const at::Tensor& tensor : list) {
      add(tensor);
    }
  }
  void add(const at::Scalar& scalar);
  void add(const std::optional<at::Scalar>& scalar) { add_optional(scalar); }
  void add(double value);
  void add(std::optional<double> value) { add_optional(value); }
  void add(int64_t value) {
    tag(SKY_ARG_INT);
    words_.push(static_cast<uint64_t>(value));
  }
  void add(const c10::SymInt& value) { add(value.guard_int(__FILE__, __LINE__)); }
  void add(std::optional<int64_t> value) { add_optional(value); }
  void add(bool value) { tag(SKY_ARG_BOOL, value); }
  void add(std::optional<bool> value) { add_optional(value); }
  void add(at::ScalarType dtype) { tag(SKY_ARG_DTYPE, static_cast<uint64_t>(dtype)); }
  void add(std::optional<at::ScalarType> dtype) { add_optional(dtype); }
  void add(at::Layout layout);
  void add(std::optional<at::Layout> layout) { add_optional(layout); }
  void add(at::MemoryFormat format) { tag(SKY_ARG_MEMORY_FORMAT, static_cast<uint64_t>(format)); }
  void add(std::optional<at::MemoryFormat> format) { add_optional(format); }
  void add(at::IntArrayRef list) {
    tag(SKY_ARG_INT_LIST, list.size());
    put(list.data(), list.size());
  }
  void add(c10::SymIntArrayRef list) { add(C10_AS_INTARRAYREF_SLOW(list)); }
  void add(at::OptionalIntArrayRef list) { list.has_value() ? add(*list) : add_none(); }
  void add(at::OptionalSymIntArrayRef list) { list.has_value() ? add(*list) : add_none(); }
  void add(c10::ArrayRef<double> list) {
    tag(SKY_ARG_DOUBLE_LIST, list.size());
    put(list.data(), list.size());
  }
  void add(std::string_view text);
  void add(std::optional<std::string_view> text) { add_optional(text); }
  void add(c10::Device device);
  void add(std::optional<c10::Device> device) { add_optional(device); }
  void add(const at::Generator& generator);
  void add(const std::optional<at::Generator>& generator) { add_optional(generator); }
  template <size_t N>
  void add(std::array<bool, N> list) {
    tag(SKY_ARG_BOOL_LIST, N);
    uint64_t bits = 0;
    for (size_t i = 0; i < N; ++i) {
      bits |= uint64_t{list[i]} << i;
    }
    words_.push(bits);
  }
  void add_none() { tag(SKY_ARG_NONE); }
  // Any argument of a boxed call.
  void add(const c10::IValue& value, ArgKind kind);

  // Completes the key. Nothing is added afterwards.
  void finish();

  // The device on which the operator runs.
  Device& device() const { return *device_; }
  const Operator* op() const { return op_; }
  uint8_t kind() const { return kind_; }
  uint8_t layout() const { return layout_; }

  uint64_t hash() const { return hash_; }
  const uint64_t* key() const { return words_.data(); }
  size_t key_words() const { return words_.size(); }

  // Distinct input storages, in order of appearance; outputs are appended when the call is sent.
  c10::SmallVector<uint64_t, 16>& storages() { return storages_; }
  size_t n_inputs() const { return storages_.size(); }
  const c10::SmallVector<SkyScalar, 4>& scalars() const { return scalars_; }
  // Number of an input storage that was added before.
  uint32_t index_of(uint64_t storage) const;

 private:
  void tag(uint8_t kind, uint64_t payload = 0) { words_.push(kind | payload << 8); }
  template <class T>
  void put(const T* data, size_t n) {
    static_assert(sizeof(T) == sizeof(uint64_t));
    if (n != 0) {
      std::memcpy(words_.extend(n), data, n * sizeof(uint64_t));
    }
  }
  template <class T>
  void add_optional(const std::optional<T>& value) {
    if (value.has_value()) {
      add(*value);
    } else {
      add_none();
    }
  }
  void add_sky(const c10::TensorImpl& impl) {
    StorageContext* context = context_of(&impl);
    if (C10_UNLIKELY(context == nullptr || context->device != device_) && !adopt(impl, context)) {
      return;
    }
    const uint32_t index = intern(context->id);
    const at::IntArrayRef sizes = impl.sizes();
    const at::IntArrayRef strides = impl.strides();
    const size_t n = sizes.size();
    const c10::DispatchKeySet keys = impl.key_set();
    const uint64_t flags = uint64_t{keys.has(c10::DispatchKey::Conjugate)} * SKY_GEOMETRY_CONJ |
                           uint64_t{keys.has(c10::DispatchKey::Negative)} * SKY_GEOMETRY_NEG;
    const auto dtype = static_cast<uint8_t>(c10::typeMetaToScalarType(impl.dtype()));
    uint64_t* at = words_.extend(2 + 2 * n);
    at[0] = SKY_ARG_TENSOR | uint64_t{dtype} << 8 | uint64_t{n} << 16 | flags << 24 | uint64_t{index} << 32;
    at[1] = static_cast<uint64_t>(impl.storage_offset());
    for (size_t i = 0; i < n; ++i) {
      at[2 + i] = static_cast<uint64_t>(sizes[i]);
      at[2 + n + i] = static_cast<uint64_t>(strides[i]);
    }
  }
  void add_other(const at::Tensor& tensor);
  // Takes the device from the first tensor; raises when a later one is elsewhere. False: it was a tensor of another
  // layout, and its components were added.
  bool adopt(const c10::TensorImpl& impl, const StorageContext* context);

  uint32_t intern(uint64_t storage) {
    const size_t n = storages_.size();
    if (C10_LIKELY(n <= kLinear)) {
      for (size_t i = 0; i < n; ++i) {
        if (storages_[i] == storage) {
          return static_cast<uint32_t>(i);
        }
      }
      storages_.push_back(storage);
      return static_cast<uint32_t>(n);
    }
    return intern_many(storage);
  }
  uint32_t intern_many(uint64_t storage);
  void index_storages(size_t from);

  static constexpr size_t kLinear = 16;

  const Operator* op_;
  const uint8_t kind_ = SKY_TEMPLATE_OP;
  const uint8_t layout_ = 0;
  Device* device_ = nullptr;
  uint64_t hash_ = 0;
  Words words_;
  c10::SmallVector<uint64_t, 16> storages_;
  c10::SmallVector<SkyScalar, 4> scalars_;
  // Open-addressing table of positions in `storages_` + 1, used from kLinear storages on.
  std::vector<uint32_t> table_;
};

SkyScalar to_scalar(const at::Scalar& scalar);
// Raises the error for a tensor that the device cannot take (sparse, quantized, nested, ...).
[[noreturn]] void raise_unsupported(std::string_view op, std::string_view what);

}  // namespace skytorch
