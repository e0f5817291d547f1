// SEND: what goes out, from where it lies, and which of several tensors fail.
#include <gtest/gtest.h>

#include "../../../server/src/device/cpu.h"
#include "fake_wire.h"
#include "lazy_engine.h"

namespace skytorch::server::test {
namespace {

uint32_t read(Script& script, const Shape& s) { return script.define(SKY_TEMPLATE_READ, "", {tensor(0, s)}); }

// A device that fails to hand out anything of `n_bytes` once it is armed.
class FailingEngine final : public LazyEngine {
 public:
  FailingEngine(uint64_t n_bytes, const bool& armed) : n_bytes_(n_bytes), armed_(armed) {}
  TicketRef copy(Queue queue, void* dst, const void* src, uint64_t n) override {
    if (armed_ && n == n_bytes_) throw std::runtime_error("the bus is gone");
    return LazyEngine::copy(queue, dst, src, n);
  }

 private:
  const uint64_t n_bytes_;
  const bool& armed_;
};

TEST(Send, APoisonedSourceSendsNothing) {
  Script script;
  script.put(1, at::ones({4}));
  script.op(script.define(kOp, "aten::mm", {tensor(0, shape({4})), tensor(0, shape({4}))}, {shape({4})}), {1, 2});
  script.send(read(script, shape({4})), 2, {1}, 16);
  FakeServer server;
  server.sent = {1};
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_TRUE(server.sent.empty()) << "the receiver must be told that nothing comes";
}

TEST(Send, SendHandsTheBytesOn) {
  const auto x = at::rand({2, 3});
  Script script;
  script.put(1, x);
  script.send(read(script, shape({2, 3})), 1, {1, 2, 3}, 24);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_EQ(server.sent, bytes_of(x));
}

TEST(Send, SeveralTensorsAreSentTogether) {
  const auto x = at::rand({2, 3});
  const auto large = at::rand({100, 1000});
  Script script;
  script.put(1, x);
  script.op(script.define(kOp, "aten::mm", {tensor(0, shape({2, 3})), tensor(0, shape({2, 3}))}, {shape({4})}),
            {1, 2});
  script.put(3, large);
  const uint32_t small = read(script, shape({2, 3}));
  const uint64_t total = 3 * 24 + 16 + large.nbytes();
  script.send_of({small, read(script, shape({4})), small, read(script, shape({100, 1000})), small}, {1, 2, 1, 3, 9},
                 {1}, total + 5);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  std::vector<uint8_t> expected = bytes_of(x);
  expected.resize(24 + 16);  // the second has no value
  for (const auto& bytes : {bytes_of(x), bytes_of(large)})
    expected.insert(expected.end(), bytes.begin(), bytes.end());
  expected.resize(total);  // nor has the last: there is no such storage
  expected.insert(expected.end(), {1, 0, 1, 1, 0});
  EXPECT_EQ(server.sent, expected);
  EXPECT_EQ(server.n_pieces, 6u) << "a large tensor is sent from where it lies";
}

TEST(Send, ABrokenTemplateFailsAloneAmongSeveral) {
  const auto x = at::rand({4});
  Script script;
  script.put(1, x);
  const uint32_t good = read(script, shape({4}));
  Shape gaps = shape({2});
  gaps.strides = {3};
  const uint32_t no_order = script.define(SKY_TEMPLATE_READ, "", {tensor(0, gaps)}, {}, SKY_LAYOUT_MEMORY);
  const uint32_t elsewhere = script.define(SKY_TEMPLATE_READ, "", {tensor(0, shape({4}))}, {}, SKY_LAYOUT_LOGICAL, 7);
  Shape real = shape({3});
  real.flags = SKY_GEOMETRY_CONJ;
  script.send_of({good, no_order, elsewhere, read(script, real), good}, {1, 1, 1, 1, 1}, {1},
                 16 + 8 + 16 + 12 + 16 + 5);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  std::vector<uint8_t> expected = bytes_of(x);
  expected.resize(16 + 8 + 16 + 12);
  for (const uint8_t byte : bytes_of(x)) expected.push_back(byte);
  expected.insert(expected.end(), {1, 0, 0, 0, 1});
  EXPECT_EQ(server.sent, expected);
}

TEST(Send, ADeviceThatCannotBeReadFailsOneOfSeveral) {
  const auto first = at::rand({4});
  const auto last = at::rand({20000});
  bool armed = false;
  Script script;
  script.put(1, first);
  script.put(2, at::rand({5}));
  script.put(3, last);
  script.before_next_message([&] { armed = true; });
  const uint64_t total = 16 + 20 + 80000;
  script.send_of({read(script, shape({4})), read(script, shape({5})), read(script, shape({20000}))}, {1, 2, 3}, {1},
                 total + 3);
  const auto failure = script.call(SKY_CALL_TAKE_POISON, {});
  DeviceList devices;
  devices.push_back(std::make_unique<CpuDevice>(
      std::make_shared<Staging>(std::make_unique<FailingEngine>(20, armed), 64 << 10, 2)));
  FakeServer server(std::move(devices));
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  std::vector<uint8_t> expected = bytes_of(first);
  expected.resize(16 + 20);
  for (const uint8_t byte : bytes_of(last)) expected.push_back(byte);
  expected.insert(expected.end(), {1, 0, 1});
  EXPECT_EQ(server.sent, expected);
  EXPECT_NE(server.answer(failure).message.find("the bus is gone"), std::string::npos)
      << server.answer(failure).message;
}

TEST(Send, SeveralTensorsOfAnotherSizeAreNotSent) {
  Script script;
  script.put(1, at::rand({4}));
  const uint32_t slot = read(script, shape({4}));
  script.send_of({slot, slot}, {1, 1}, {1}, 40);
  FakeServer server;
  server.sent = {1};
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_TRUE(server.sent.empty());
}

}  // namespace
}  // namespace skytorch::server::test
