// Turns one boxed argument into the C++ type that a structured meta function takes. Each Unbox holds what its
// reference type points into, so it must outlive the call it was made for.
#pragma once

#include <ATen/DimVector.h>
#include <ATen/core/IListRef.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/OptionalArrayRef.h>

#include <optional>
#include <string_view>

namespace skytorch::oracle {

template <class T>
struct Unbox;

template <>
struct Unbox<const at::Tensor&> {
  explicit Unbox(const at::IValue& v) : tensor(v.toTensor()) {}
  const at::Tensor& get() const { return tensor; }
  const at::Tensor& tensor;
};

template <>
struct Unbox<at::OptionalTensorRef> {
  explicit Unbox(const at::IValue& v) : value(v) {}
  at::OptionalTensorRef get() const {
    // An undefined tensor, which backwards pass on, is none.
    const bool is_none = value.isNone() || !value.toTensor().defined();
    return is_none ? at::OptionalTensorRef() : at::OptionalTensorRef(value.toTensor());
  }
  const at::IValue& value;
};

template <>
struct Unbox<const at::ITensorListRef&> {
  explicit Unbox(const at::IValue& v) : list(v.toTensorList()), ref(list) {}
  const at::ITensorListRef& get() const { return ref; }
  c10::List<at::Tensor> list;
  at::ITensorListRef ref;
};

template <>
struct Unbox<const at::Scalar&> {
  explicit Unbox(const at::IValue& v) : scalar(v.toScalar()) {}
  const at::Scalar& get() const { return scalar; }
  at::Scalar scalar;
};

template <>
struct Unbox<at::OptionalScalarRef> {
  explicit Unbox(const at::IValue& v) : scalar(v.isNone() ? std::nullopt : std::optional(v.toScalar())) {}
  at::OptionalScalarRef get() const { return scalar ? at::OptionalScalarRef(*scalar) : at::OptionalScalarRef(); }
  std::optional<at::Scalar> scalar;
};

template <>
struct Unbox<at::IntArrayRef> {
  explicit Unbox(const at::IValue& v) : dims(v.toDimVector()) {}
  at::IntArrayRef get() const { return dims; }
  at::DimVector dims;
};

template <>
struct Unbox<at::OptionalIntArrayRef> {
  explicit Unbox(const at::IValue& v) : dims(v.isNone() ? std::nullopt : std::optional(v.toDimVector())) {}
  at::OptionalIntArrayRef get() const {
    return dims ? at::OptionalIntArrayRef(at::IntArrayRef(*dims)) : at::OptionalIntArrayRef();
  }
  std::optional<at::DimVector> dims;
};

// The remaining ones are values that need no storage.
template <class T>
T unbox_value(const at::IValue& v);
template <>
inline bool unbox_value<bool>(const at::IValue& v) {
  return v.toBool();
}
template <>
inline int64_t unbox_value<int64_t>(const at::IValue& v) {
  return v.toInt();
}
template <>
inline double unbox_value<double>(const at::IValue& v) {
  return v.toDouble();
}
template <>
inline at::ScalarType unbox_value<at::ScalarType>(const at::IValue& v) {
  return v.toScalarType();
}
template <>
inline std::string_view unbox_value<std::string_view>(const at::IValue& v) {
  return v.toStringView();
}

template <class T>
struct Unbox {
  explicit Unbox(const at::IValue& v) : value(unbox_value<T>(v)) {}
  T get() const { return value; }
  T value;
};

template <class T>
struct Unbox<std::optional<T>> {
  explicit Unbox(const at::IValue& v) : value(v.isNone() ? std::nullopt : std::optional(unbox_value<T>(v))) {}
  std::optional<T> get() const { return value; }
  std::optional<T> value;
};

}  // namespace skytorch::oracle
