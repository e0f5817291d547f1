// The methods.
#include "calls.h"

#include "reply.h"

namespace skytorch::server {
namespace {

constexpr size_t kMaxGenerators = 65536;
constexpr size_t kMaxEvents = 65536;

template <class Map>
void require_room(const Map& map, size_t limit, const char* what) {
  if (map.size() >= limit) {
    throw Failure(SKY_ERR_LIMIT_EXCEEDED, "a session can have at most " + std::to_string(limit) + " " + what);
  }
}

}  // namespace

void Calls::run(const SkyRecord& record) {
  try {
    dispatch(record);
  } catch (const ProtocolError&) {
    throw;
  } catch (...) {
    const Cause cause = current_cause();
    if (record.request != 0) {
      session_.poisons.note_failure();
      reply_error(session_, record.request, cause);
    } else {
      session_.poisons.record(cause, "control call " + std::to_string(record.method), record.sequence);
    }
  }
}

int64_t Calls::argument(const SkyRecord& record, uint32_t position) const {
  if (position >= record.n_args) {
    throw Failure(SKY_ERR_PROTOCOL, "control call " + std::to_string(record.method) + " has too few arguments");
  }
  return record.args[position];
}

uint32_t Calls::device(const SkyRecord& record, uint32_t position) {
  const int64_t number = argument(record, position);
  if (number < 0 || number >= static_cast<int64_t>(session_.devices.size())) {
    throw Failure(SKY_ERR_DEVICE_NOT_FOUND, "this server has no device number " + std::to_string(number));
  }
  session_.current_device.use(static_cast<uint32_t>(number));
  return static_cast<uint32_t>(number);
}

DeviceEvent& Calls::event(int64_t id) {
  auto it = session_.events.find(id);
  if (it == session_.events.end()) {
    throw Failure(SKY_ERR_INVALID_ARGUMENT, "event " + std::to_string(id) + " was never recorded");
  }
  return *it->second;
}

at::Generator Calls::generator(int64_t id, uint32_t device) {
  if (id == 0) return session_.devices[device]->default_generator();
  auto it = session_.generators.find(id);
  if (it == session_.generators.end()) {
    require_room(session_.generators, kMaxGenerators, "generators");
    it = session_.generators.emplace(id, session_.devices[device]->make_generator()).first;
  }
  return it->second;
}

void Calls::dispatch(const SkyRecord& record) {
  auto& session = session_;
  switch (record.method) {
    case SKY_CALL_CONTEXT:
      session.flags.set(argument(record, 0), argument(record, 1));
      break;
    case SKY_CALL_GENERATOR_SEED:
      seed(argument(record, 0), device(record, 1), argument(record, 2));
      break;
    case SKY_CALL_GENERATOR_GET_STATE:
      return get_state(record);
    case SKY_CALL_GENERATOR_SET_STATE:
      set_state(record);
      break;
    case SKY_CALL_GENERATOR_FREE:
      session.generators.erase(argument(record, 0));
      break;
    case SKY_CALL_SYNCHRONIZE:
      return synchronize(record);
    case SKY_CALL_EVENT_RECORD: {
      const uint32_t number = device(record, 1);
      auto it = session.events.find(argument(record, 0));
      if (it == session.events.end()) {
        require_room(session.events, kMaxEvents, "events");
        it = session.events.emplace(argument(record, 0), session.devices[number]->make_event()).first;
      }
      it->second->record();
      break;
    }
    case SKY_CALL_EVENT_SYNCHRONIZE:
      event(argument(record, 0)).synchronize();
      break;
    case SKY_CALL_EVENT_ELAPSED: {
      const double ms = event(argument(record, 0)).elapsed_ms(event(argument(record, 1)));
      return reply_ok(session, record.request, {float_value(ms)});
    }
    case SKY_CALL_EVENT_FREE:
      session.events.erase(argument(record, 0));
      break;
    case SKY_CALL_MEMORY_STATS:
      return memory_stats(record);
    case SKY_CALL_MEMORY_RESET_PEAK:
      session.devices[device(record, 0)]->reset_peak();
      session.storages.reset_peak();
      break;
    case SKY_CALL_EMPTY_CACHE:
      session.devices[device(record, 0)]->empty_cache();
      break;
    case SKY_CALL_TAKE_POISON:
      return take_poison(record);
    case SKY_CALL_PROBE:
      return reply_ok(session, record.request,
                      {int_value(session.api.probe(session.connection, record.payload) != 0 ? 1 : 0)});
    case SKY_CALL_ORIGIN:
      session.poisons.set_origin({reinterpret_cast<const char*>(record.payload.data), record.payload.size});
      break;
    default:
      throw Failure(SKY_ERR_NOT_SUPPORTED, "control call " + std::to_string(record.method) +
                                               " is not known to this server; use the same SkyTorch on both sides");
  }
  reply_ok(session, record.request);
}

void Calls::seed(int64_t id, uint32_t device, int64_t seed) {
  auto generator = this->generator(id, device);
  std::lock_guard lock(generator.mutex());
  generator.set_current_seed(static_cast<uint64_t>(seed));
}

void Calls::get_state(const SkyRecord& record) {
  auto generator = this->generator(argument(record, 0), device(record, 1));
  at::Tensor state;
  {
    std::lock_guard lock(generator.mutex());
    state = generator.get_state().contiguous();
  }
  reply_ok(session_, record.request, {}, {static_cast<const uint8_t*>(state.const_data_ptr()), state.nbytes()});
}

void Calls::set_state(const SkyRecord& record) {
  auto generator = this->generator(argument(record, 0), device(record, 1));
  auto state = at::empty({static_cast<int64_t>(record.payload.size)}, at::kByte);
  if (record.payload.size > 0) std::memcpy(state.mutable_data_ptr(), record.payload.data, record.payload.size);
  std::lock_guard lock(generator.mutex());
  generator.set_state(state);
}

void Calls::synchronize(const SkyRecord& record) {
  session_.devices[device(record, 0)]->synchronize();
  take_poison(record);
}

// Without a request there is nobody to take it.
void Calls::take_poison(const SkyRecord& record) {
  if (record.request == 0) return;
  if (PoisonRef poison = session_.poisons.take_unread()) {
    reply_error(session_, record.request, poison->cause);
  } else {
    reply_ok(session_, record.request);
  }
}

void Calls::memory_stats(const SkyRecord& record) {
  const auto& storages = session_.storages;
  const MemoryStats stats =
      session_.devices[device(record, 0)]->memory_stats(storages.bytes(), storages.peak_bytes());
  reply_ok(session_, record.request,
           {int_value(stats.allocated), int_value(stats.max_allocated), int_value(stats.reserved),
            int_value(stats.max_reserved), int_value(stats.free), int_value(stats.total)});
}

}  // namespace skytorch::server
