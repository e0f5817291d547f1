// Stands in for cuda.cpp in a build without the CUDA half.
#include "device.h"

namespace skytorch::server {

void append_cuda_devices(DeviceList& devices) {}

}  // namespace skytorch::server
