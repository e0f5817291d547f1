// Events of `sky`: a number on the server, recorded in the op stream. There is one stream per session, so that one
// stream waiting for another's event is free.
#pragma once

#include <cstdint>

namespace skytorch {

class Device;

int64_t event_create(Device& device);
void event_record(int64_t event, Device& device);
void event_synchronize(int64_t event, Device& device);
double event_elapsed_ms(int64_t start, int64_t end, Device& device);
void event_destroy(int64_t event, Device& device);

// Everything before it has run; raises what nobody has read yet.
void synchronize(Device& device);

}  // namespace skytorch
