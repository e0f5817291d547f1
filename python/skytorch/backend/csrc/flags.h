// The process-wide torch flags that change what an operator computes, as one word. They travel in the op stream when
// they change, so that the server computes what this process would. Autocast is not among them: it is resolved here.
#pragma once

#include <cstdint>

namespace skytorch {

struct Flags {
  // Byte i holds the value of the i-th key below; all ones stands for a server that was told nothing yet.
  uint64_t word = ~uint64_t{0};

  // With `all` false the float32 precisions, which cost a look-up each, are taken from `last`.
  static Flags now(const Flags& last, bool all);
  bool operator==(const Flags& other) const = default;

  // All of them: setting one on the server may change another (float32 precision has several names in torch).
  template <class F>
  void each(F&& send) const;
};

}  // namespace skytorch

#include <skytorch/wire.h>

template <class F>
void skytorch::Flags::each(F&& send) const {
  static constexpr uint8_t kKeys[] = {SKY_CONTEXT_DETERMINISTIC,   SKY_CONTEXT_MATMUL_PRECISION,
                                      SKY_CONTEXT_CUDNN_BENCHMARK, SKY_CONTEXT_CUDNN_DETERMINISTIC,
                                      SKY_CONTEXT_CUDNN_TF32,      SKY_CONTEXT_CUBLAS_TF32,
                                      SKY_CONTEXT_DEFAULT_DTYPE};
  for (unsigned i = 0; i < sizeof(kKeys); ++i) {
    send(int64_t{kKeys[i]}, static_cast<int64_t>(static_cast<uint8_t>(word >> (8 * i))));
  }
}
