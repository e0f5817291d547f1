// Reads, sets and restores torch's process-wide flags.
#include "context_flags.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/DefaultDtype.h>

#include "failure.h"

namespace skytorch::server {
namespace {

constexpr int64_t kMaxThreads = 1024;

const char* precision_name(at::Float32MatmulPrecision precision) {
  switch (precision) {
    case at::Float32MatmulPrecision::HIGHEST:
      return "highest";
    case at::Float32MatmulPrecision::HIGH:
      return "high";
    case at::Float32MatmulPrecision::MEDIUM:
      return "medium";
  }
  return "highest";
}

int64_t checked(int64_t value, int64_t first, int64_t last, const char* what) {
  if (value < first || value > last) {
    throw Failure(SKY_ERR_INVALID_ARGUMENT, std::string(what) + " cannot be " + std::to_string(value));
  }
  return value;
}

}  // namespace

ContextFlags::ContextFlags(const DeviceList& devices)
    : devices_(devices),
      deterministic_(at::globalContext().deterministicAlgorithms()),
      deterministic_warn_only_(at::globalContext().deterministicAlgorithmsWarnOnly()),
      matmul_precision_(at::globalContext().float32MatmulPrecision()),
      num_threads_(at::get_num_threads()),
      cudnn_benchmark_(at::globalContext().benchmarkCuDNN()),
      cudnn_deterministic_(at::globalContext().deterministicCuDNN()),
      cudnn_tf32_(at::globalContext().allowTF32CuDNN()),
      cublas_tf32_(at::globalContext().allowTF32CuBLAS()),
      default_dtype_(c10::get_default_dtype()) {
  for (const auto& device : devices_) {
    auto generator = device->default_generator();
    std::lock_guard lock(generator.mutex());
    generator_states_.push_back(generator.get_state());
  }
}

ContextFlags::~ContextFlags() {
  try {
    auto& context = at::globalContext();
    context.setDeterministicAlgorithms(deterministic_, deterministic_warn_only_);
    // This one also sets the precision, so it comes before it.
    context.setAllowTF32CuBLAS(cublas_tf32_);
    context.setFloat32MatmulPrecision(precision_name(matmul_precision_));
    at::set_num_threads(num_threads_);
    context.setBenchmarkCuDNN(cudnn_benchmark_);
    context.setDeterministicCuDNN(cudnn_deterministic_);
    context.setAllowTF32CuDNN(cudnn_tf32_);
    at::Context::setFlushDenormal(false);
    c10::set_default_dtype(default_dtype_);
    for (size_t i = 0; i < generator_states_.size(); ++i) {
      auto generator = devices_[i]->default_generator();
      std::lock_guard lock(generator.mutex());
      generator.set_state(generator_states_[i]);
    }
  } catch (...) {
    // A device that has failed for good cannot be restored; its process is about to end.
  }
}

void ContextFlags::set(int64_t key, int64_t value) {
  auto& context = at::globalContext();
  switch (key) {
    case SKY_CONTEXT_DETERMINISTIC:
      checked(value, 0, 2, "determinism");
      context.setDeterministicAlgorithms(value != 0, value == 2);
      return;
    case SKY_CONTEXT_MATMUL_PRECISION:
      context.setFloat32MatmulPrecision(
          precision_name(static_cast<at::Float32MatmulPrecision>(checked(value, 0, 2, "the float32 precision"))));
      return;
    case SKY_CONTEXT_NUM_THREADS:
      at::set_num_threads(static_cast<int>(checked(value, 1, kMaxThreads, "the number of threads")));
      return;
    case SKY_CONTEXT_CUDNN_BENCHMARK:
      context.setBenchmarkCuDNN(value != 0);
      return;
    case SKY_CONTEXT_CUDNN_DETERMINISTIC:
      context.setDeterministicCuDNN(value != 0);
      return;
    case SKY_CONTEXT_CUDNN_TF32:
      context.setAllowTF32CuDNN(value != 0);
      return;
    case SKY_CONTEXT_CUBLAS_TF32:
      context.setAllowTF32CuBLAS(value != 0);
      return;
    case SKY_CONTEXT_FLUSH_DENORMAL:
      at::Context::setFlushDenormal(value != 0);
      return;
    case SKY_CONTEXT_DEFAULT_DTYPE: {
      const auto dtype = static_cast<at::ScalarType>(
          checked(value, 0, static_cast<int64_t>(at::ScalarType::NumOptions) - 1, "the default dtype"));
      if (!at::isFloatingType(dtype)) {
        throw Failure(SKY_ERR_INVALID_ARGUMENT, "the default dtype cannot be " + std::string(c10::toString(dtype)));
      }
      c10::set_default_dtype(c10::scalarTypeToTypeMeta(dtype));
      return;
    }
    default:
      throw Failure(SKY_ERR_NOT_SUPPORTED, "context flag " + std::to_string(key) +
                                               " is not known to this server; use the same SkyTorch on both sides");
  }
}

}  // namespace skytorch::server
