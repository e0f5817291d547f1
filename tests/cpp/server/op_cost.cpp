// What one OP record costs on the server, beside the same operator called directly in the same process. Prints one line
// per case: name, ns per record, ns per direct call, ratio. A benchmark and not a test: it asserts nothing.
#include <c10/core/InferenceMode.h>

#include <chrono>
#include <cstdio>
#include <cstring>

#include "fake_wire.h"

namespace skytorch::server::test {
namespace {

constexpr int kRecords = 200000;
constexpr int kBatch = 500;
constexpr int kRounds = 7;

double best_ns(const std::function<void()>& body, int count) {
  double best = 1e18;
  for (int round = 0; round < kRounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
    best = std::min(best, took.count() / count);
  }
  return best;
}

// Times from the first message after `prepare` to the end of the session.
double record_ns(const std::function<void(Script&)>& prepare, const std::function<int(Script&)>& body) {
  double best = 1e18;
  for (int round = 0; round < kRounds; ++round) {
    Script script;
    prepare(script);
    std::chrono::steady_clock::time_point begin, end;
    script.before_next_message([&] { begin = std::chrono::steady_clock::now(); });
    const int count = body(script);
    script.before_next_message([&] { end = std::chrono::steady_clock::now(); });
    FakeServer server;
    if (server.run(script) != SKY_OK) std::printf("session failed: %s\n", server.close_message().c_str());
    best = std::min(best, std::chrono::duration<double, std::nano>(end - begin).count() / count);
  }
  return best;
}

void report(const char* name, double record, double direct) {
  std::printf("%-28s record %7.0f ns   direct %7.0f ns   ratio %.2f\n", name, record, direct, record / direct);
}

void run() {
  const c10::InferenceMode inference;
  const auto x = at::rand({4, 4}), y = at::rand({4, 4});
  const Shape s = shape({4, 4});
  const auto prepare = [&](Script& script) {
    script.put(1, x);
    script.put(2, y);
  };

  report("add, freed in batches", record_ns(prepare,
                                            [&](Script& script) {
                                              const auto slot = script.define(
                                                  SKY_TEMPLATE_OP, "aten::add.Tensor",
                                                  {tensor(0, s), tensor(1, s), scalar_slot(SKY_SCALAR_INT)}, {s});
                                              uint64_t id = 10;
                                              for (int i = 0; i < kRecords; ++i) {
                                                script.op(slot, {1, 2, id++}, {number(int64_t{1})});
                                                if (i % kBatch == kBatch - 1) {
                                                  std::vector<uint64_t> old;
                                                  for (int k = 0; k < kBatch; ++k) old.push_back(id - 1 - k);
                                                  script.free(old);
                                                  script.cut();
                                                }
                                              }
                                              return kRecords;
                                            }),
         best_ns([&] { for (int i = 0; i < kRecords; ++i) at::add(x, y); }, kRecords));

  report("add chain, freed one by one", record_ns(prepare,
                                                  [&](Script& script) {
                                                    const auto slot = script.define(
                                                        SKY_TEMPLATE_OP, "aten::add.Tensor",
                                                        {tensor(0, s), tensor(1, s), scalar(1)}, {s});
                                                    uint64_t id = 10;
                                                    script.op(slot, {1, 2, id});
                                                    for (int i = 0; i < kRecords; ++i, ++id) {
                                                      script.op(slot, {id, 2, id + 1});
                                                      script.free({id});
                                                      if (i % kBatch == 0) script.cut();
                                                    }
                                                    return kRecords;
                                                  }),
         best_ns([&] {
           auto z = at::add(x, y);
           for (int i = 0; i < kRecords; ++i) z = at::add(z, y);
         }, kRecords));

  auto z = x.clone();
  report("add_", record_ns(prepare,
                           [&](Script& script) {
                             const auto slot = script.define(SKY_TEMPLATE_OP, "aten::add_.Tensor",
                                                             {tensor(0, s), tensor(1, s), scalar(1)});
                             for (int i = 0; i < kRecords; ++i) {
                               script.op(slot, {1, 2});
                               if (i % kBatch == 0) script.cut();
                             }
                             return kRecords;
                           }),
         best_ns([&] { for (int i = 0; i < kRecords; ++i) z.add_(y); }, kRecords));

  Shape transposed = s;
  transposed.strides = {1, 4};
  report("mm with both views of w", record_ns(prepare,
                                              [&](Script& script) {
                                                const auto a = script.define(SKY_TEMPLATE_OP, "aten::mm",
                                                                             {tensor(0, s), tensor(1, s)}, {s});
                                                const auto b = script.define(SKY_TEMPLATE_OP, "aten::mm",
                                                                             {tensor(0, s), tensor(1, transposed)}, {s});
                                                uint64_t id = 10;
                                                for (int i = 0; i < kRecords; i += 2) {
                                                  script.op(a, {1, 2, id});
                                                  script.op(b, {1, 2, id + 1});
                                                  script.free({id, id + 1});
                                                  id += 2;
                                                  if (i % kBatch == 0) script.cut();
                                                }
                                                return kRecords;
                                              }),
         best_ns([&] {
           for (int i = 0; i < kRecords; i += 2) {
             at::mm(x, y);
             at::mm(x, y.t());
           }
         }, kRecords));

  report("relu", record_ns(prepare,
                           [&](Script& script) {
                             const auto slot = script.define(SKY_TEMPLATE_OP, "aten::relu", {tensor(0, s)}, {s});
                             for (int i = 0; i < kRecords; ++i) {
                               script.op(slot, {1, 10 + static_cast<uint64_t>(i)});
                               script.free({10 + static_cast<uint64_t>(i)});
                               if (i % kBatch == 0) script.cut();
                             }
                             return kRecords;
                           }),
         best_ns([&] { for (int i = 0; i < kRecords; ++i) at::relu(x); }, kRecords));
}

}  // namespace
}  // namespace skytorch::server::test

int main() { skytorch::server::test::run(); }
