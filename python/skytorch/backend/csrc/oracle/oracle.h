// The shape oracle: what an operator returns (dtype, sizes, strides), worked out on the client without any data.
// It is not a cache: the template table remembers answers, the oracle is asked for keys that were never seen.
//
// Arguments may be PrivateUse1 tensors (their memory is never touched) or meta tensors. infer() takes no lock while
// it calls torch, may take the GIL (source Dispatcher), and may be called from any thread; never call it under the
// stream lock. A bad argument raises torch's own exception with torch's own message, or answers Source::Server: the
// server then says what is wrong, so the caller must run a Source::Server operator as one synchronous round trip.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/core/ScalarType.h>
#include <c10/util/SmallVector.h>

#include <cstdint>
#include <string>
#include <vector>

namespace skytorch::oracle {

// One returned tensor. An undefined one (an optional gradient that was not asked for) has defined == false and no
// geometry; it has a place in the list all the same. in_list: it is an element of a returned Tensor[].
struct Output {
  bool defined = false;
  bool in_list = false;
  at::ScalarType dtype = at::ScalarType::Undefined;
  c10::SmallVector<int64_t, 5> sizes;
  c10::SmallVector<int64_t, 5> strides;
};

enum class Source {
  Structured,  // the generated table over at::meta::*
  Rule,        // a hand-written rule
  Dispatcher,  // torch's kernel for the Meta key, usually Python: tens of microseconds to a millisecond
  Server,      // not known here: the shape depends on data, or torch has no shape function, or the arguments are bad
};

// What the operator will run on; a few operators differ between the two (dtype of layer_norm's statistics in bf16).
struct Target {
  bool server_is_cuda = false;
};

// Fills `out` (cleared first) for the call `op(args...)`, args being the boxed call's stack, which is left unchanged.
//
// Functional operators: every returned tensor that is not an alias of an argument by the schema, lists flattened, in
// the order of the schema.
// In-place and out= operators: one Output for each written tensor that the schema returns, in that order, as it has
// to be when the operator has run: `sizes` is what an out= tensor must be resized to, `dtype` is the written tensor's
// own (casting was checked, as was an in-place operator's shape). `strides` is meaningful where a resize is needed.
// Operators that write arguments and return nothing (`_foreach_add_`) leave `out` empty.
// Operators that do both (`_native_batch_norm_legit`, `native_batch_norm`) list the fresh returns only.
//
// Source::Server leaves `out` empty.
Source infer(const c10::OperatorHandle& op, const torch::jit::Stack& args, const Target& target,
             std::vector<Output>& out);

// One line "op<TAB>dispatcher|server<TAB>count" for each operator that neither the table nor a rule answered.
std::vector<std::string> report();
void reset_report();

}  // namespace skytorch::oracle
