// The loop: accept, next, execute, close.
#include "executor.h"

#include <c10/core/InferenceMode.h>

namespace skytorch::server {
namespace {

// How long a wait lasts before it is begun again; both waits end at once when something arrives.
constexpr uint32_t kWaitMs = 1000;

class RecordRunner {
 public:
  RecordRunner(Session& session, LandingTable& landings, const AllowedNamespaces& namespaces, uint32_t n_slots)
      : session_(session),
        ops_(session),
        bytes_(session, landings),
        calls_(session),
        builder_(session.devices, namespaces, session.geometries),
        n_slots_(n_slots) {}

  void run(const SkyBatch& batch) {
    const uint64_t n_failures = session_.poisons.n_failures();
    for (uint32_t i = 0; i < batch.n_records; ++i) {
      session_.stats.records_queued.store(batch.n_records - i, std::memory_order_relaxed);
      run(batch.records[i]);
    }
    session_.stats.records_queued.store(0, std::memory_order_relaxed);
    if (session_.poisons.n_failures() != n_failures) [[unlikely]]
      require_devices();
  }

 private:
  void run(const SkyRecord& record) {
    switch (record.kind) {
      case SKY_RECORD_OP:
        return ops_.op(find(record.slot, SKY_TEMPLATE_OP), record);
      case SKY_RECORD_FREE:
        for (uint32_t i = 0; i < record.n_storages; ++i) session_.storages.erase(record.storages[i]);
        return;
      case SKY_RECORD_DEFINE:
        return define(record);
      case SKY_RECORD_ALLOC:
        return bytes_.alloc(record);
      case SKY_RECORD_RESIZE:
        return bytes_.resize(record);
      case SKY_RECORD_WRITE:
        return bytes_.write(find(record.slot, SKY_TEMPLATE_WRITE), record);
      case SKY_RECORD_WRITE_LANE:
        return bytes_.write_lane(parts(record, SKY_TEMPLATE_WRITE), record);
      case SKY_RECORD_READ:
        return bytes_.read(find(record.slot, SKY_TEMPLATE_READ), record);
      case SKY_RECORD_QUERY:
        return ops_.query(find(record.slot, SKY_TEMPLATE_OP), record);
      case SKY_RECORD_CALL:
        return calls_.run(record);
      case SKY_RECORD_SEND:
        return bytes_.send(parts(record, SKY_TEMPLATE_READ), record);
      default:
        throw ProtocolError("record kind " + std::to_string(record.kind) + " is not known");
    }
  }

  // A failed kernel may have taken its device with it. Errors show late, so the last operators are all suspects.
  void require_devices() const {
    for (const auto& device : session_.devices) {
      if (!device->lost()) continue;
      throw DeviceLost(
          device->torch_device().str() +
          " failed and cannot be used any more in this server process; the last operators were: " + ops_.recent());
    }
  }

  const OpTemplate& find(uint32_t slot, uint8_t kind) const {
    const auto& templates = session_.templates;
    if (slot >= templates.size() || templates[slot] == nullptr) [[unlikely]] {
      throw ProtocolError("template slot " + std::to_string(slot) + " was never defined");
    }
    const OpTemplate& found = *templates[slot];
    if (found.kind != kind) [[unlikely]] {
      throw ProtocolError("template slot " + std::to_string(slot) + " is of another kind than its record");
    }
    return found;
  }

  const std::vector<Part>& parts(const SkyRecord& record, uint8_t kind) {
    if (record.n_storages == 0) throw ProtocolError("a transfer names no tensor");
    parts_.clear();
    for (uint32_t i = 0; i < record.n_storages; ++i) {
      parts_.push_back({&find(record.slots[i], kind), record.storages[i]});
    }
    return parts_;
  }

  void define(const SkyRecord& record) {
    if (record.slot >= n_slots_ || record.template_def == nullptr) {
      throw ProtocolError("template slot " + std::to_string(record.slot) + " is out of range");
    }
    auto& templates = session_.templates;
    if (templates.size() <= record.slot) templates.resize(record.slot + 1);
    templates[record.slot] = builder_.build(*record.template_def);
  }

  Session& session_;
  OpRunner ops_;
  ByteMover bytes_;
  Calls calls_;
  TemplateBuilder builder_;
  std::vector<Part> parts_;  // of the record that runs
  const uint32_t n_slots_;
};

}  // namespace

void Executor::serve(const SkyServer* server) {
  // Below autograd: a call goes straight to the device's kernel, and tensors carry no version counters.
  const c10::InferenceMode below_autograd;
  landings_.set_target(devices_.back().get());
  const SkyLandingApi landing_api = landings_.api();
  api_.set_landing(server, &landing_api);
  for (;;) {
    landings_.open();
    SkyServerSession* connection = nullptr;
    SkyError error{};
    const uint32_t code = api_.accept(server, kWaitMs, &connection, &error);
    if (code == SKY_ERR_TIMEOUT) continue;
    if (code == SKY_ERR_SESSION_CLOSED) break;
    if (code != SKY_OK) throw Failure(code, reinterpret_cast<const char*>(error.message));
    run_session(connection);
  }
  landings_.close();
}

void Executor::run_session(SkyServerSession* connection) {
  Cause end;
  std::exception_ptr fatal;
  try {
    Session session(api_, connection, devices_, stats_, max_storages_);
    RecordRunner runner(session, landings_, namespaces_, kSlots);
    for (;;) {
      SkyBatch batch{};
      SkyError error{};
      const uint32_t code = api_.next(connection, kWaitMs, &batch, &error);
      if (code == SKY_ERR_TIMEOUT) continue;
      if (code != SKY_OK) break;
      runner.run(batch);
    }
  } catch (const DeviceLost&) {
    end = current_cause();
    fatal = std::current_exception();
  } catch (...) {
    end = current_cause();
  }
  stats_.records_queued.store(0, std::memory_order_relaxed);
  landings_.close();
  api_.session_close(connection, end.code, as_bytes(end.message));
  if (fatal) std::rethrow_exception(fatal);
}

}  // namespace skytorch::server
