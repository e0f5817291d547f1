// infer(): the table first, torch's Meta kernel next, the server last; and the count of what the table did not know.
#include "oracle.h"

#include <ATen/MemoryOverlap.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "dispatcher.h"
#include "suspects.h"
#include "table.h"
#include "twin.h"

namespace skytorch::oracle {
namespace {

class Misses {
 public:
  void count(const c10::OperatorHandle& op, Source source) {
    const std::lock_guard lock(mutex_);
    ++counts_[{c10::toString(op.operator_name()), source}];
  }
  std::vector<std::string> lines() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> lines;
    for (const auto& [key, count] : counts_) {
      lines.push_back(key.first + (key.second == Source::Server ? "\tserver\t" : "\tdispatcher\t") +
                      std::to_string(count));
    }
    return lines;
  }
  void clear() {
    const std::lock_guard lock(mutex_);
    counts_.clear();
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, Source>, int64_t> counts_;
};

Misses& misses() {
  static Misses instance;
  return instance;
}

// An out= tensor that partly shares memory with an argument, or a written one with itself: torch refuses most such
// calls, in code that runs only on the device. Where `whole`, also one that is an argument under another name, which
// elementwise operators allow.
bool overlapping(const Question& question, bool whole) {
  for (const uint8_t w : question.written) {
    const at::Tensor& given = question.tensor(w);
    if (at::has_internal_overlap(given) == at::MemOverlap::Yes) return true;
    if (w != question.written[0] &&
        at::get_overlap_status(given, question.tensor(question.written[0])) != at::MemOverlapStatus::No)
      return true;
    if (w == 0 || !given.has_storage()) continue;
    const auto shares = [&](const at::Tensor& t) {
      if (!t.defined() || !t.has_storage() || !t.storage().is_alias_of(given.storage()) || t.is_same(given))
        return false;
      const at::MemOverlapStatus status = at::get_overlap_status(t, given);
      return status == at::MemOverlapStatus::Partial || (whole && status == at::MemOverlapStatus::Full);
    };
    for (const at::IValue& v : question.args) {
      if (v.isTensor() && shares(v.toTensor())) return true;
      if (v.isTensorList()) {
        for (const at::Tensor& t : v.toTensorVector()) {
          if (shares(t)) return true;
        }
      }
    }
  }
  return false;
}

// A rule answers for the functional operator; this is what is left to do where tensors were given to be written.
Verdict settle(Question& question) {
  if (question.written.empty()) return Verdict::Done;
  if (question.out.size() != question.written.size()) return Verdict::Server;
  for (size_t i = 0; i < question.written.size(); ++i) {
    const at::Tensor& given = question.tensor(question.written[i]);
    Output& o = question.out[i];
    const bool in_place = question.written[i] == 0;
    // Outside the elementwise operators an out= tensor must have the very dtype; the real kernel says so.
    if (!in_place && o.dtype != given.scalar_type()) return Verdict::Server;
    TORCH_CHECK(c10::canCast(o.dtype, given.scalar_type()), "result type ", o.dtype,
                " can't be cast to the desired output type ", given.scalar_type());
    const bool same = given.sizes().equals(o.sizes);
    TORCH_CHECK(same || !in_place, "output with shape ", given.sizes(), " doesn't match the broadcast shape ",
                at::IntArrayRef(o.sizes));
    o.dtype = given.scalar_type();
    if (same) o.strides.assign(given.strides().begin(), given.strides().end());
  }
  return Verdict::Done;
}

// Their out= variants copy what the functional one has made.
bool copies_into_out(const std::string& name) {
  return name == "aten::_fft_r2c" || name == "aten::_fft_c2c" || name == "aten::_fft_c2r" ||
         name == "aten::cholesky_solve";
}

// What the functional operator makes is what its out= variant gives an out= tensor that it has to resize: sizes and
// strides. The Meta kernels of many out= variants know less (the strides of linalg and fft), or do not exist.
Verdict ask_twin(Question& question) {
  const auto twin = functional_twin(question.op);
  if (!twin) return Verdict::Dispatcher;
  const size_t n = twin->schema().arguments().size();
  const torch::jit::Stack stack(question.args.begin(), question.args.begin() + static_cast<int64_t>(n));
  if (infer(*twin, stack, question.target, question.out) == Source::Server) return Verdict::Server;
  if (copies_into_out(question.op.operator_name().name)) {
    for (Output& o : question.out) {
      const auto strides = c10::contiguous_strides(o.sizes);
      o.strides.assign(strides.begin(), strides.end());
    }
  }
  return settle(question);
}

}  // namespace

Source infer(const c10::OperatorHandle& op, const torch::jit::Stack& args, const Target& target,
             std::vector<Output>& out) {
  out.clear();
  const Entry* entry = Table::get().find(op);
  const auto written = entry ? entry->written : written_arguments(op.schema());
  Question question(op, args, target, out, written);
  Verdict verdict = suspect(question) ? Verdict::Server : Verdict::Dispatcher;
  if (entry && verdict != Verdict::Server) {
    verdict = overlapping(question, /*whole=*/false) ? Verdict::Server : entry->run(question);
    if (verdict == Verdict::Done && entry->source == Source::Rule) verdict = settle(question);
    if (verdict == Verdict::Done) return entry->source;
    out.clear();
  }
  if (verdict == Verdict::Dispatcher) {
    verdict = overlapping(question, /*whole=*/true) ? Verdict::Server
              : entry                               ? Verdict::Dispatcher
                                                    : ask_twin(question);
  }
  if (verdict == Verdict::Dispatcher) {
    out.clear();
    Question without_outs(op, args, target, out, {});
    verdict = ask_dispatcher(without_outs);
  }
  const Source source = verdict == Verdict::Done ? Source::Dispatcher : Source::Server;
  if (source == Source::Server) out.clear();
  misses().count(op, source);
  return source;
}

std::vector<std::string> report() { return misses().lines(); }
void reset_report() { misses().clear(); }

}  // namespace skytorch::oracle
