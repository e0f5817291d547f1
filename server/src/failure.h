// What can go wrong while a record is executed, as an error code of the C ABI and a message.
// `Failure` is thrown by our own checks and poisons the record's outputs; `ProtocolError` ends the session, because a
// record that cannot even be attributed to a storage leaves nothing to poison; so does passing a limit of storages.
// `current_cause` turns whatever torch threw into the same pair.
#pragma once

#include <skytorch/wire.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace skytorch::server {

struct Cause {
  uint32_t code = SKY_OK;
  std::string message;
};

class Failure : public std::runtime_error {
 public:
  Failure(uint32_t code, const std::string& message) : std::runtime_error(message), code_(code) {}
  uint32_t code() const { return code_; }

 private:
  uint32_t code_;
};

class ProtocolError : public Failure {
 public:
  explicit ProtocolError(const std::string& message, uint32_t code = SKY_ERR_PROTOCOL) : Failure(code, message) {}
};

// A device can do nothing more in this process: the session ends, and so must the process.
class DeviceLost : public Failure {
 public:
  explicit DeviceLost(const std::string& message) : Failure(SKY_ERR_OP_RUNTIME, message) {}
};

// The exception that is being handled: call it only inside a catch block. Never throws anything itself.
Cause current_cause() noexcept;

// A string's bytes, borrowed, as the C ABI wants them.
SkyBytes as_bytes(const std::string& text);

}  // namespace skytorch::server
