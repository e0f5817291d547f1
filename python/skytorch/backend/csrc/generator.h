// torch.Generator on `sky`: a number that names a generator on the server. Its state lives there; only the seed is
// known here. Number 0 is the device's default generator.
#pragma once

#include <c10/core/GeneratorImpl.h>

#include <cstdint>

namespace skytorch {

class Device;

class SkyGenerator final : public c10::GeneratorImpl {
 public:
  // With number 0 nothing is sent until it is seeded.
  SkyGenerator(Device& device, int64_t number);
  // A generator of the user's own, seeded with torch's default seed.
  static c10::intrusive_ptr<SkyGenerator> create(Device& device);
  ~SkyGenerator() override;

  static c10::DeviceType device_type() { return c10::DeviceType::PrivateUse1; }
  int64_t number() const { return number_; }
  Device& owner() const { return owner_; }

  void set_current_seed(uint64_t seed) override;
  uint64_t current_seed() const override { return seed_; }
  uint64_t seed() override;
  void set_offset(uint64_t offset) override;
  uint64_t get_offset() const override;
  void set_state(const c10::TensorImpl& state) override;
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override;

 private:
  SkyGenerator* clone_impl() const override;

  Device& owner_;
  const int64_t number_;
  uint64_t seed_ = c10::default_rng_seed_val;
};

}  // namespace skytorch
