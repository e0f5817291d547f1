// The process-wide flags of torch that a client may set (SKY_CALL_CONTEXT), and the states of the default generators.
// It remembers all of them when it is made and puts them back when it goes, so that a session leaves no trace.
#pragma once

#include "device/device.h"

namespace skytorch::server {

class ContextFlags {
 public:
  explicit ContextFlags(const DeviceList& devices);
  ~ContextFlags();
  ContextFlags(const ContextFlags&) = delete;
  ContextFlags& operator=(const ContextFlags&) = delete;

  // `key` is SKY_CONTEXT_*. Throws Failure for a key or value that is not known.
  void set(int64_t key, int64_t value);

 private:
  const DeviceList& devices_;
  const bool deterministic_;
  const bool deterministic_warn_only_;
  const at::Float32MatmulPrecision matmul_precision_;
  const int num_threads_;
  const bool cudnn_benchmark_;
  const bool cudnn_deterministic_;
  const bool cudnn_tf32_;
  const bool cublas_tf32_;
  const caffe2::TypeMeta default_dtype_;
  std::vector<at::Tensor> generator_states_;  // by device
};

}  // namespace skytorch::server
