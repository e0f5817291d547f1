// What one OP record costs on the server, beside the same operator called directly in the same process. Prints one
// line per case: name, ns per record, ns per direct call, ratio. A benchmark and not a test: it asserts nothing.
#include <c10/core/InferenceMode.h>

#include <chrono>
#include <cstdio>

#include "fake_wire.h"

namespace skytorch::server::test {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kBatch = 500;  // operators per message
constexpr size_t kMessages = 200;
constexpr int kRounds = 15;

double ns_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::nano>(end - begin).count() / (kBatch * kMessages);
}

double direct_ns(const std::function<void(uint64_t)>& one) {
  double best = 1e18;
  for (int round = 0; round < kRounds; ++round) {
    const auto begin = Clock::now();
    for (uint64_t i = 0; i < kBatch * kMessages; ++i) one(i);
    best = std::min(best, ns_between(begin, Clock::now()));
  }
  return best;
}

// `body` adds one message of kBatch operators to a session that has x in storage 1 and y in 2.
double record_ns(const at::Tensor& x, const at::Tensor& y, const std::function<void(Script&)>& body) {
  double best = 1e18;
  for (int round = 0; round < kRounds; ++round) {
    Script script;
    script.put(1, x);
    script.put(2, y);
    Clock::time_point first;
    script.before_next_message([&] {
      if (first == Clock::time_point()) first = Clock::now();
    });
    body(script);
    script.repeat(kMessages);
    FakeServer server;
    const bool ok = server.run(script) == SKY_OK;
    const auto last = Clock::now();
    if (!ok) std::printf("session failed: %s\n", server.close_message().c_str());
    best = std::min(best, ns_between(first, last));
  }
  return best;
}

void report(const char* name, double record, double direct) {
  std::printf("%-28s record %6.0f ns   direct %6.0f ns   ratio %.2f\n", name, record, direct, record / direct);
}

void run() {
  const c10::InferenceMode inference;
  const auto x = at::rand({4, 4}), y = at::rand({4, 4});
  auto z = x.clone();
  const Shape s = shape({4, 4});
  Shape transposed = s;
  transposed.strides = {1, 4};
  const auto define = [](Script& script, const char* name, std::vector<Arg> args, std::vector<Shape> outputs) {
    return script.define(SKY_TEMPLATE_OP, name, std::move(args), std::move(outputs));
  };

  report("add, freed in batches",
         record_ns(x, y,
                   [&](Script& script) {
                     const auto add =
                         define(script, "aten::add.Tensor", {tensor(0, s), tensor(1, s), scalar(1)}, {s});
                     std::vector<uint64_t> ids;
                     for (uint64_t id = 10; id < 10 + kBatch; ++id) {
                       script.op(add, {1, 2, id});
                       ids.push_back(id);
                     }
                     script.free(ids);
                   }),
         direct_ns([&](uint64_t) { at::add(x, y); }));

  report("add, freed one by one",
         record_ns(x, y,
                   [&](Script& script) {
                     const auto add =
                         define(script, "aten::add.Tensor", {tensor(0, s), tensor(1, s), scalar(1)}, {s});
                     script.op(add, {1, 2, 10});
                     for (uint64_t id = 10; id < 9 + kBatch; ++id) {
                       script.op(add, {id, 2, id + 1});
                       script.free({id});
                     }
                     script.free({9 + kBatch});
                   }),
         direct_ns([&](uint64_t) { z = at::add(z, y); }));

  report("add_",
         record_ns(x, y,
                   [&](Script& script) {
                     const auto add =
                         define(script, "aten::add_.Tensor", {tensor(0, s), tensor(1, s), scalar(1)}, {});
                     for (uint64_t i = 0; i < kBatch; ++i) script.op(add, {1, 2});
                   }),
         direct_ns([&](uint64_t) { z.add_(y); }));

  report("relu",
         record_ns(x, y,
                   [&](Script& script) {
                     const auto relu = define(script, "aten::relu", {tensor(0, s)}, {s});
                     for (uint64_t i = 0; i < kBatch; ++i) {
                       script.op(relu, {1, 10 + i});
                       script.free({10 + i});
                     }
                   }),
         direct_ns([&](uint64_t) { at::relu(x); }));

  // A growing cache makes every step of a decoder define its operators anew.
  report("define add, then run it",
         record_ns(x, y,
                   [&](Script& script) {
                     for (uint64_t i = 0; i < kBatch; ++i) {
                       const auto add =
                           define(script, "aten::add_.Tensor", {tensor(0, s), tensor(1, s), scalar(double(i))}, {});
                       script.op(add, {1, 2});
                     }
                   }),
         direct_ns([&](uint64_t) { z.add_(y); }));

  report("mm with both views of w",
         record_ns(x, y,
                   [&](Script& script) {
                     const auto straight = define(script, "aten::mm", {tensor(0, s), tensor(1, s)}, {s});
                     const auto turned = define(script, "aten::mm", {tensor(0, s), tensor(1, transposed)}, {s});
                     for (uint64_t i = 0; i < kBatch; ++i) {
                       script.op(i % 2 == 0 ? straight : turned, {1, 2, 10 + i});
                       script.free({10 + i});
                     }
                   }),
         direct_ns([&](uint64_t i) { i % 2 == 0 ? at::mm(x, y) : at::mm(x, y.t()); }));
}

}  // namespace
}  // namespace skytorch::server::test

int main() { skytorch::server::test::run(); }
