// Translation of SKY_ERR_* into C++ exceptions. See error.h.
#include "error.h"

#include <cstring>
#include <exception>

// PyObject of the interpreter, known here by name only.
struct _object;
typedef _object PyObject;

namespace torch {

// torch/csrc/Exceptions.h declares this class; that header needs Python's. The declaration is repeated here with the
// same layout: catch clauses match it by its type name. tests/backend raise through it on every supported torch.
struct __attribute__((visibility("default"))) PyTorchError : public std::exception {
  PyTorchError() = default;
  explicit PyTorchError(std::string text) : msg(std::move(text)) {}
  virtual PyObject* python_type() = 0;
  const char* what() const noexcept override { return msg.c_str(); }
  std::string msg;
};

}  // namespace torch

namespace skytorch {

namespace {

struct __attribute__((visibility("default"))) ClassError final : public torch::PyTorchError {
  ClassError(PyObject* type, const std::string& text) : torch::PyTorchError(text), type_(type) {}
  PyObject* python_type() override { return type_; }

 private:
  PyObject* type_;
};

}  // namespace

ExceptionClasses& ExceptionClasses::get() {
  static ExceptionClasses classes;
  return classes;
}

void ExceptionClasses::set(int64_t code, int64_t py_class) {
  TORCH_CHECK_VALUE(code > 0 && code < static_cast<int64_t>(classes_.size()),
                    "skytorch: no exception class belongs to code ", code);
  classes_[static_cast<size_t>(code)] = py_class;
}

int64_t ExceptionClasses::find(uint32_t code) const { return code < classes_.size() ? classes_[code].load() : 0; }

void raise(uint32_t code, const std::string& message) {
  switch (code) {
    case SKY_ERR_OP_RUNTIME:
      TORCH_CHECK(false, message);
    case SKY_ERR_OP_INDEX:
      TORCH_CHECK_INDEX(false, message);
    case SKY_ERR_OP_VALUE:
      TORCH_CHECK_VALUE(false, message);
    case SKY_ERR_OP_TYPE:
      TORCH_CHECK_TYPE(false, message);
    case SKY_ERR_OP_NOT_IMPLEMENTED:
      TORCH_CHECK_NOT_IMPLEMENTED(false, message);
    case SKY_ERR_OP_OUT_OF_MEMORY:
      TORCH_CHECK_WITH(OutOfMemoryError, false, message);
    case SKY_ERR_OP_LINALG:
      TORCH_CHECK_LINALG(false, message);
    default:
      break;
  }
  if (int64_t py_class = ExceptionClasses::get().find(code)) {
    throw ClassError(reinterpret_cast<PyObject*>(py_class), message);
  }
  TORCH_CHECK(false, message);
}

void raise(uint32_t code, const SkyError& error) {
  const auto* text = reinterpret_cast<const char*>(error.message);
  raise(code, std::string(text, strnlen(text, SKY_MESSAGE_BYTES)));
}

}  // namespace skytorch
