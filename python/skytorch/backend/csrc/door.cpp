// torch.ops.skytorch: what Python tells and asks the device. Integers that are pointers come from skytorch._wire.
#include <torch/library.h>

#include "allocator.h"
#include "device.h"
#include "event.h"
#include "generator.h"
#include "oracle/oracle.h"

namespace skytorch {

namespace {

c10::DeviceIndex to_index(int64_t device) {
  TORCH_CHECK_VALUE(device >= -1 && device < kMaxDevices, "sky: there is no device sky:", device,
                    "; the last one is sky:", kMaxDevices - 1);
  return static_cast<c10::DeviceIndex>(device);
}

Device& at(int64_t device) { return Registry::get().at(to_index(device)); }

void attach(int64_t client_api) { Registry::get().attach(client_api); }
void set_exception(int64_t code, int64_t py_class) { ExceptionClasses::get().set(code, py_class); }
void set_opener(int64_t function) { Registry::get().set_opener(function); }

int64_t open_device(int64_t session, int64_t server_device, std::string server_type) {
  TORCH_CHECK_VALUE(session != 0 && server_device >= 0 && server_device < 256,
                    "sky: open_device needs a session and a "
                    "server device number below 256");
  return Registry::get().open(session, static_cast<uint8_t>(server_device), std::move(server_type));
}
void close_device(int64_t device) { Registry::get().close(to_index(device)); }
int64_t device_count() { return Registry::get().count(); }
int64_t current_device() { return Registry::current(); }
void set_device(int64_t device) { Registry::set_current(to_index(device)); }
bool is_open(int64_t device) { return Registry::get().find(to_index(device)) != nullptr; }
std::string server_device_type(int64_t device) { return at(device).server_type(); }

void do_synchronize(int64_t device) { synchronize(at(device)); }
std::vector<int64_t> do_memory_stats(int64_t device) {
  const auto stats = memory_stats(at(device));
  return {stats.begin(), stats.end()};
}
void reset_peak_memory(int64_t device) {
  call(at(device).session(), SKY_CALL_MEMORY_RESET_PEAK, {at(device).server_device()});
}
void empty_cache(int64_t device) { call(at(device).session(), SKY_CALL_EMPTY_CACHE, {at(device).server_device()}); }
void flush(int64_t device) {
  Session& session = at(device).session();
  {
    // Sends what has gathered in the free list.
    StreamLock lock(session);
  }
  session.api().flush(session.wire());
}

void manual_seed(int64_t device, int64_t seed) {
  at(device).default_generator().unsafeGetGeneratorImpl()->set_current_seed(static_cast<uint64_t>(seed));
}
int64_t initial_seed(int64_t device) { return static_cast<int64_t>(at(device).default_generator().current_seed()); }
at::Tensor get_rng_state(int64_t device) { return at(device).default_generator().get_state(); }
void set_rng_state(int64_t device, const at::Tensor& state) {
  at(device).default_generator().unsafeGetGeneratorImpl()->set_state(*state.unsafeGetTensorImpl());
}

int64_t do_event_create() { return event_create(at(-1)); }
void do_event_record(int64_t event, int64_t device) { event_record(event, at(device)); }
void do_event_synchronize(int64_t event, int64_t device) { event_synchronize(event, at(device)); }
double do_event_elapsed_ms(int64_t start, int64_t end, int64_t device) {
  return event_elapsed_ms(start, end, at(device));
}
void do_event_destroy(int64_t event, int64_t device) { event_destroy(event, at(device)); }

std::vector<std::string> oracle_report() { return oracle::report(); }
void oracle_reset() { oracle::reset_report(); }

TORCH_LIBRARY(skytorch, m) {
  m.def("attach(int client_api) -> ()", TORCH_FN(attach));
  m.def("set_exception(int code, int py_class) -> ()", TORCH_FN(set_exception));
  m.def("set_opener(int function) -> ()", TORCH_FN(set_opener));
  m.def("open_device(int session, int server_device, str server_device_type) -> int", TORCH_FN(open_device));
  m.def("close_device(int device) -> ()", TORCH_FN(close_device));
  m.def("device_count() -> int", TORCH_FN(device_count));
  m.def("current_device() -> int", TORCH_FN(current_device));
  m.def("set_device(int device) -> ()", TORCH_FN(set_device));
  m.def("is_open(int device) -> bool", TORCH_FN(is_open));
  m.def("server_device_type(int device) -> str", TORCH_FN(server_device_type));
  m.def("synchronize(int device) -> ()", TORCH_FN(do_synchronize));
  m.def("memory_stats(int device) -> int[]", TORCH_FN(do_memory_stats));
  m.def("reset_peak_memory(int device) -> ()", TORCH_FN(reset_peak_memory));
  m.def("empty_cache(int device) -> ()", TORCH_FN(empty_cache));
  m.def("flush(int device) -> ()", TORCH_FN(flush));
  m.def("manual_seed(int device, int seed) -> ()", TORCH_FN(manual_seed));
  m.def("initial_seed(int device) -> int", TORCH_FN(initial_seed));
  m.def("get_rng_state(int device) -> Tensor", TORCH_FN(get_rng_state));
  m.def("set_rng_state(int device, Tensor state) -> ()", TORCH_FN(set_rng_state));
  m.def("event_create() -> int", TORCH_FN(do_event_create));
  m.def("event_record(int event, int device) -> ()", TORCH_FN(do_event_record));
  m.def("event_synchronize(int event, int device) -> ()", TORCH_FN(do_event_synchronize));
  m.def("event_elapsed_ms(int start, int end, int device) -> float", TORCH_FN(do_event_elapsed_ms));
  m.def("event_destroy(int event, int device) -> ()", TORCH_FN(do_event_destroy));
  m.def("oracle_report() -> str[]", TORCH_FN(oracle_report));
  m.def("oracle_reset() -> ()", TORCH_FN(oracle_reset));
}

}  // namespace

}  // namespace skytorch
