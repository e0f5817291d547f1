// Events and synchronisation as CALL records. See event.h.
#include "event.h"

#include "device.h"

namespace skytorch {

int64_t event_create(Device& device) {
  StreamLock lock(device.session());
  return device.session().next_number();
}

void event_record(int64_t event, Device& device) {
  call(device.session(), SKY_CALL_EVENT_RECORD, {event, device.server_device()});
}

void event_synchronize(int64_t event, Device& device) {
  Reply reply(device.session().api());
  ask(device.session(), SKY_CALL_EVENT_SYNCHRONIZE, {event}, reply);
}

double event_elapsed_ms(int64_t start, int64_t end, Device& device) {
  Reply reply(device.session().api());
  ask(device.session(), SKY_CALL_EVENT_ELAPSED, {start, end}, reply);
  TORCH_CHECK(reply->n_values == 1, "sky: the server did not say how much time passed between two events");
  return reply->values[0].real;
}

void event_destroy(int64_t event, Device& device) { call(device.session(), SKY_CALL_EVENT_FREE, {event}); }

void synchronize(Device& device) {
  Reply reply(device.session().api());
  ask(device.session(), SKY_CALL_SYNCHRONIZE, {device.server_device()}, reply);
}

}  // namespace skytorch
