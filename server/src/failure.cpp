// Maps exceptions to error codes. The order matters: torch's subclasses before c10::Error, that before the rest.
#include "failure.h"

#include <c10/util/Exception.h>

#include <new>

namespace skytorch::server {
namespace {

template <class E>
Cause torch_cause(uint32_t code, const E& error) {
  return {code, error.what_without_backtrace()};
}

}  // namespace

Cause current_cause() noexcept {
  try {
    try {
      throw;
    } catch (const Failure& e) {
      return {e.code(), e.what()};
    } catch (const c10::IndexError& e) {
      return torch_cause(SKY_ERR_OP_INDEX, e);
    } catch (const c10::ValueError& e) {
      return torch_cause(SKY_ERR_OP_VALUE, e);
    } catch (const c10::TypeError& e) {
      return torch_cause(SKY_ERR_OP_TYPE, e);
    } catch (const c10::NotImplementedError& e) {
      return torch_cause(SKY_ERR_OP_NOT_IMPLEMENTED, e);
    } catch (const c10::OutOfMemoryError& e) {
      return torch_cause(SKY_ERR_OP_OUT_OF_MEMORY, e);
    } catch (const c10::LinAlgError& e) {
      return torch_cause(SKY_ERR_OP_LINALG, e);
    } catch (const c10::Error& e) {
      return torch_cause(SKY_ERR_OP_RUNTIME, e);
    } catch (const std::bad_alloc&) {
      return {SKY_ERR_OP_OUT_OF_MEMORY, "the server is out of host memory"};
    } catch (const std::exception& e) {
      return {SKY_ERR_OP_RUNTIME, e.what()};
    } catch (...) {
      return {SKY_ERR_INTERNAL, "an exception of unknown type"};
    }
  } catch (...) {
    // Out of memory while building the message: an empty one allocates nothing.
    return {SKY_ERR_OP_OUT_OF_MEMORY, {}};
  }
}

SkyBytes as_bytes(const std::string& text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }

}  // namespace skytorch::server
