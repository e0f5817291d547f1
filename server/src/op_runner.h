// Runs operators: fills the stack as a template says, calls the dispatcher, stores what came back. A failure poisons
// the outputs and what the operator writes to, and is never thrown further; only a record that breaks the protocol is
// (ProtocolError). This is the path that every operator takes: nothing in it looks a name up or allocates beyond the
// tensors themselves.
#pragma once

#include <array>

#include "session.h"

namespace skytorch::server {

class OpRunner {
 public:
  explicit OpRunner(Session& session) : session_(session) {}

  void op(const OpTemplate& t, const SkyRecord& record);
  // As `op`, and answers the request with the outputs' geometry and the other values. A failure is the answer.
  void query(const OpTemplate& t, const SkyRecord& record);
  // The operators that ran last, oldest first, for the message when a device is lost.
  std::string recent() const;

 private:
  // Finds the inputs. Returns the poison of the first that has one.
  PoisonRef gather(const OpTemplate& t, const SkyRecord& record);
  void call(const OpTemplate& t, const SkyRecord& record);
  c10::IValue value(const ArgStep& step, const OpTemplate& t, const SkyRecord& record);
  at::Tensor tensor(const ArgStep& step, const OpTemplate& t);
  void require_separate_outs(const OpTemplate& t) const;
  void check_mutated(const ArgStep& step, const OpTemplate& t);
  void store(const OpTemplate& t, const SkyRecord& record);
  void store_one(const OpTemplate& t, const SkyRecord& record, uint32_t output, at::Tensor result);
  void spread(const OpTemplate& t, const SkyRecord& record, const PoisonRef& poison, uint32_t n_outputs);
  at::Tensor layout(const ArgStep& step, const OpTemplate& t);
  void answer(const OpTemplate& t, const SkyRecord& record);

  Session& session_;
  torch::jit::Stack stack_;
  std::vector<StorageEntry*> inputs_;
  // Tensors of another layout that the operator writes to.
  std::vector<at::Tensor> rewritten_;
  static constexpr size_t kRecent = 8;
  std::array<uint32_t, kRecent> recent_slots_{};
  uint64_t n_calls_ = 0;
};

}  // namespace skytorch::server
