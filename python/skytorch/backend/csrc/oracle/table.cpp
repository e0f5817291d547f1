// Filling of the table, see table.h.
#include "table.h"

namespace skytorch::oracle {

Verdict like_first(Question& q) {
  q.add_like(q.tensor(0));
  return Verdict::Done;
}

Verdict contiguous_like_first(Question& q) {
  q.add(q.tensor(0).scalar_type(), q.tensor(0).sizes());
  return Verdict::Done;
}

c10::SmallVector<uint8_t, 4> written_arguments(const c10::FunctionSchema& schema) {
  c10::SmallVector<uint8_t, 4> positions;
  const auto& arguments = schema.arguments();
  for (const auto& returned : schema.returns()) {
    if (!returned.alias_info() || !returned.alias_info()->isWrite()) continue;
    for (size_t i = 0; i < arguments.size(); ++i) {
      const auto* alias = arguments[i].alias_info();
      if (alias && alias->isWrite() && arguments[i].type()->kind() == c10::TypeKind::TensorType &&
          alias->beforeSets() == returned.alias_info()->beforeSets()) {
        positions.push_back(static_cast<uint8_t>(i));
      }
    }
  }
  return positions;
}

const Table& Table::get() {
  static const Table table;
  return table;
}

Table::Table() {
  add_structured(*this);
  for (auto add_rules :
       {add_attention, add_convolution, add_copies, add_factories, add_fft, add_foreach, add_images, add_indexing,
        add_linalg, add_losses, add_matrices, add_norms, add_pointwise, add_pools, add_random, add_reductions}) {
    add_rules(*this);
  }
}

void Table::add(const char* name, const char* overload, Rule run, Source source) {
  const auto op = c10::Dispatcher::singleton().findSchema({name, overload});
  if (!op) return;
  Entry& entry = entries_[*op];
  entry.run = run;
  entry.source = source;
  entry.written = written_arguments(op->schema());
}

}  // namespace skytorch::oracle
