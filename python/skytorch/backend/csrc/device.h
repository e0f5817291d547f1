// The devices sky:0 to sky:15. A Device is one opening of an index: a session, the number of the server's device, its
// default generator. It is never destroyed, because tensors, generators and the autograd engine keep pointing to it;
// closing it only frees the index for another.
#pragma once

#include <ATen/core/Generator.h>
#include <c10/core/Device.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "session.h"

namespace skytorch {

// Fixed, and what the guard reports: the autograd engine sizes its queues once, at the first backward.
constexpr c10::DeviceIndex kMaxDevices = 16;

class Device {
 public:
  Device(Session& session, c10::DeviceIndex index, uint8_t server_device, std::string server_type)
      : session_(session),
        index_(index),
        server_device_(server_device),
        server_type_(std::move(server_type)),
        is_cuda_(server_type_.rfind("cuda", 0) == 0) {}
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  Session& session() const { return session_; }
  c10::DeviceIndex index() const { return index_; }
  c10::Device device() const { return {c10::DeviceType::PrivateUse1, index_}; }
  uint8_t server_device() const { return server_device_; }
  const std::string& server_type() const { return server_type_; }
  bool is_cuda() const { return is_cuda_; }

  const at::Generator& default_generator() const { return default_generator_; }
  void set_default_generator(at::Generator generator) { default_generator_ = std::move(generator); }

 private:
  Session& session_;
  const c10::DeviceIndex index_;
  const uint8_t server_device_;
  const std::string server_type_;
  const bool is_cuda_;
  at::Generator default_generator_;
};

// Which devices are open. The one owner of sessions and devices.
class Registry {
 public:
  static Registry& get();

  void attach(int64_t client_api);
  void set_opener(int64_t function) { opener_ = reinterpret_cast<Opener>(function); }

  c10::DeviceIndex open(int64_t session, uint8_t server_device, std::string server_type);
  void close(c10::DeviceIndex index);

  // The open device of that index, or null. Never raises.
  Device* find(c10::DeviceIndex index) const noexcept {
    return index >= 0 && index < kMaxDevices ? open_[static_cast<size_t>(index)].load(std::memory_order_acquire)
                                             : nullptr;
  }
  // The open device of that index (-1: the current one). With none open, the opener is asked to open one.
  Device& at(c10::DeviceIndex index);
  c10::DeviceIndex count() const noexcept;
  bool can_open() const noexcept { return opener_ != nullptr || count() > 0; }

  static c10::DeviceIndex current() noexcept { return current_; }
  // Also indices that are not open: the autograd engine visits all of them.
  static void set_current(c10::DeviceIndex index) noexcept { current_ = index; }

  const SkyClientApi& api() const;
  // True when `session` is one whose devices are all gone.
  static bool is_open(const Device& device) { return !device.session().closed(); }

 private:
  // Opens a default device. Writes why it could not, and answers with the error's code.
  using Opener = uint32_t (*)(uint8_t* message, uint64_t capacity);

  static thread_local c10::DeviceIndex current_;

  Session& session_of(const SkySession* wire);

  std::mutex mutex_;
  std::atomic<const SkyClientApi*> api_{nullptr};
  std::atomic<Opener> opener_{nullptr};
  std::array<std::atomic<Device*>, kMaxDevices> open_{};
  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<std::unique_ptr<Device>> devices_;
};

}  // namespace skytorch
