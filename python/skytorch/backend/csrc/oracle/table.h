// Which function answers for which operator. Filled once, at the first question, from the generated table of
// structured kernels and the hand-written rules (a rule wins); never changed afterwards, so it is read without a
// lock. Operators that this torch does not have are left out.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>
#include <unordered_map>

#include "question.h"

namespace skytorch::oracle {

using Rule = Verdict (*)(Question&);

struct Entry {
  Rule run = nullptr;
  Source source = Source::Rule;
  c10::SmallVector<uint8_t, 4> written;  // see Question::written
};

class Table {
 public:
  static const Table& get();
  // nullptr: no entry.
  const Entry* find(const c10::OperatorHandle& op) const {
    const auto it = entries_.find(op);
    return it == entries_.end() ? nullptr : &it->second;
  }

  void structured(const char* name, const char* overload, Rule run) { add(name, overload, run, Source::Structured); }
  // `name` without the namespace aten.
  // Also for the in-place and out= operators of the rule: the rule is written for the functional one, and the result
  // is then checked against the written tensors.
  void rule(const std::string& name, const char* overload, Rule run) {
    add(("aten::" + name).c_str(), overload, run, Source::Rule);
  }

 private:
  Table();
  void add(const char* name, const char* overload, Rule run, Source source);
  std::unordered_map<c10::OperatorHandle, Entry> entries_;
};

// Positions of the arguments that `schema` writes and returns, in the order of the returns.
c10::SmallVector<uint8_t, 4> written_arguments(const c10::FunctionSchema& schema);

// Rules of many operators: the result is a fresh tensor like argument 0, or a contiguous one of its sizes and dtype.
Verdict like_first(Question& q);
Verdict contiguous_like_first(Question& q);

// Each file of rules adds its own.
void add_structured(Table& table);  // generated
void add_attention(Table& table);
void add_convolution(Table& table);
void add_copies(Table& table);
void add_factories(Table& table);
void add_fft(Table& table);
void add_foreach(Table& table);
void add_images(Table& table);
void add_indexing(Table& table);
void add_linalg(Table& table);
void add_losses(Table& table);
void add_matrices(Table& table);
void add_norms(Table& table);
void add_pointwise(Table& table);
void add_pools(Table& table);
void add_random(Table& table);
void add_reductions(Table& table);

}  // namespace skytorch::oracle
