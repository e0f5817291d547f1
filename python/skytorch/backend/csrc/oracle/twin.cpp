// Looks through the overloads of the same name, see twin.h.
#include "twin.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>

namespace skytorch::oracle {
namespace {

std::optional<c10::OperatorHandle> look_up(const c10::OperatorHandle& op) {
  const auto& args = op.schema().arguments();
  const auto first_out = std::find_if(args.begin(), args.end(), [](const c10::Argument& a) { return a.is_out(); });
  if (first_out == args.end()) return std::nullopt;
  const auto n = static_cast<size_t>(first_out - args.begin());
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    if (name.name != op.operator_name().name) continue;
    const auto candidate = dispatcher.findSchema(name);
    if (!candidate || candidate->schema().arguments().size() != n) continue;
    const auto& others = candidate->schema().arguments();
    const bool same = std::equal(others.begin(), others.end(), args.begin(), [](const auto& a, const auto& b) {
      return !a.is_out() && a.name() == b.name() && *a.type() == *b.type();
    });
    if (same) return candidate;
  }
  return std::nullopt;
}

}  // namespace

std::optional<c10::OperatorHandle> functional_twin(const c10::OperatorHandle& op) {
  static std::mutex mutex;
  static std::unordered_map<c10::OperatorHandle, std::optional<c10::OperatorHandle>> known;
  const std::lock_guard lock(mutex);
  const auto found = known.find(op);
  return found != known.end() ? found->second : known.emplace(op, look_up(op)).first->second;
}

}  // namespace skytorch::oracle
