// Seeding and state of generators, through CALL records. See generator.h.
#include "generator.h"

#include <ATen/Functions.h>
#include <ATen/core/Generator.h>

#include <cstring>

#include "device.h"

namespace skytorch {

SkyGenerator::SkyGenerator(Device& device, int64_t number)
    : GeneratorImpl(device.device(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
      owner_(device),
      number_(number) {}

c10::intrusive_ptr<SkyGenerator> SkyGenerator::create(Device& device) {
  int64_t number = 0;
  {
    StreamLock lock(device.session());
    number = device.session().next_number();
  }
  auto generator = c10::make_intrusive<SkyGenerator>(device, number);
  generator->set_current_seed(c10::default_rng_seed_val);
  return generator;
}

SkyGenerator::~SkyGenerator() {
  if (number_ != 0) {
    owner_.session().push_freed_generator(number_);
  }
}

void SkyGenerator::set_current_seed(uint64_t seed) {
  seed_ = seed;
  call(owner_.session(), SKY_CALL_GENERATOR_SEED, {number_, owner_.server_device(), static_cast<int64_t>(seed)});
}

uint64_t SkyGenerator::seed() {
  set_current_seed(c10::detail::getNonDeterministicRandom());
  return seed_;
}

void SkyGenerator::set_offset(uint64_t /*offset*/) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "sky: a generator's offset cannot be set; use get_state() and set_state()");
}

uint64_t SkyGenerator::get_offset() const {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "sky: a generator's offset is not known here; use get_state() and set_state()");
}

void SkyGenerator::set_state(const c10::TensorImpl& state) {
  at::detail::check_rng_state(state);
  call(owner_.session(), SKY_CALL_GENERATOR_SET_STATE, {number_, owner_.server_device()},
       {static_cast<const uint8_t*>(state.data()), static_cast<uint64_t>(state.numel())});
}

c10::intrusive_ptr<c10::TensorImpl> SkyGenerator::get_state() const {
  Reply reply(owner_.session().api());
  ask(owner_.session(), SKY_CALL_GENERATOR_GET_STATE, {number_, owner_.server_device()}, reply);
  at::Tensor state = at::empty({static_cast<int64_t>(reply->bytes.size)}, at::TensorOptions(at::kByte));
  std::memcpy(state.mutable_data_ptr(), reply->bytes.data, reply->bytes.size);
  return state.getIntrusivePtr();
}

SkyGenerator* SkyGenerator::clone_impl() const {
  auto copy = create(owner_);
  copy->seed_ = seed_;
  copy->set_state(*get_state());
  return copy.release();
}

}  // namespace skytorch
