// Reads torch's process-wide flags. See flags.h.
#include "flags.h"

#include <ATen/Context.h>
#include <c10/core/DefaultDtype.h>

namespace skytorch {

namespace {

// Through the per-backend getters, which never raise (the older ones do when old and new settings were mixed).
uint64_t matmul_precision(const at::Context& context) {
  switch (context.float32Precision(at::Float32Backend::MKLDNN, at::Float32Op::MATMUL)) {
    case at::Float32Precision::BF16:
      return 2;
    case at::Float32Precision::TF32:
      return 1;
    default:
      return 0;
  }
}

uint64_t tf32(const at::Context& context, at::Float32Op op) {
  return context.float32Precision(at::Float32Backend::CUDA, op) == at::Float32Precision::TF32;
}

}  // namespace

Flags Flags::now(const Flags& last, bool all) {
  constexpr uint64_t kPrecisions = 0x0000'ffff'0000'ff00;
  const at::Context& context = at::globalContext();
  uint64_t word = context.deterministicAlgorithms() ? (context.deterministicAlgorithmsWarnOnly() ? 2 : 1) : 0;
  word |= uint64_t{context.benchmarkCuDNN()} << 16;
  word |= uint64_t{context.deterministicCuDNN()} << 24;
  word |= uint64_t{static_cast<uint8_t>(c10::get_default_dtype_as_scalartype())} << 48;
  if (all || last == Flags()) {
    word |= matmul_precision(context) << 8;
    word |= tf32(context, at::Float32Op::CONV) << 32;
    word |= tf32(context, at::Float32Op::MATMUL) << 40;
  } else {
    word |= last.word & kPrecisions;
  }
  return {word};
}

}  // namespace skytorch
