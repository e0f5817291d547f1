// What a failure does to the tensors that depend on it, and who is told (design, section 4).
#include <gtest/gtest.h>

#include <thread>

#include "fake_wire.h"

namespace skytorch::server::test {
namespace {

// Storage 1 is float32[4]; an operator that fails with `code` makes storage 2 from it.
struct Failing {
  Script script;
  uint32_t neg = 0;
  Failing() {
    script.put(1, at::ones({4}));
    script.op(script.define(kOp, "aten::mm", {tensor(0, s4), tensor(0, s4)}, {s4}), {1, 2});
    neg = script.define(kOp, "aten::neg", {tensor(0, s4)}, {s4});
  }
};

TEST(Poison, FollowsTheDataAndKeepsItsCause) {
  Failing f;
  f.script.op(f.neg, {2, 3});
  f.script.op(f.script.define(kOp, "aten::add_.Tensor", {tensor(0, s4), tensor(1, s4), scalar(1)}), {1, 3});
  f.script.op(f.neg, {1, 4});
  f.script.put(5, at::ones({4}));
  f.script.op(f.neg, {5, 6});
  const auto third = f.script.get(3, s4), fourth = f.script.get(4, s4), independent = f.script.get(6, s4);
  const auto pending = f.script.call(SKY_CALL_TAKE_POISON, {});
  FakeServer server;
  EXPECT_EQ(server.run(f.script), SKY_OK);
  EXPECT_EQ(server.answer(third).code, SKY_ERR_OP_RUNTIME);
  EXPECT_NE(server.answer(third).message.find("[operator aten::mm on float32[4], float32[4]; record 5]"),
            std::string::npos)
      << server.answer(third).message;
  EXPECT_EQ(server.answer(fourth).message, server.answer(third).message);
  EXPECT_TRUE(at::equal(server.tensor(independent, s4), -at::ones({4})));
  EXPECT_EQ(server.answer(pending).code, SKY_OK) << "it was read";
}

TEST(Poison, UnreadOnesAreRaisedAtTheNextWaitOldestFirst) {
  Failing f;
  f.script.op(f.script.define(kOp, "aten::select_copy.int", {tensor(0, s4), integer(0), integer(9)}, {shape({})}),
              {1, 3});
  const auto first = f.script.call(SKY_CALL_SYNCHRONIZE, {0});
  const auto second = f.script.call(SKY_CALL_TAKE_POISON, {});
  const auto third = f.script.call(SKY_CALL_SYNCHRONIZE, {0});
  FakeServer server;
  EXPECT_EQ(server.run(f.script), SKY_OK);
  EXPECT_EQ(server.answer(first).code, SKY_ERR_OP_RUNTIME);
  EXPECT_EQ(server.answer(second).code, SKY_ERR_OP_INDEX);
  EXPECT_EQ(server.answer(third).code, SKY_OK);
}

TEST(Poison, AnInterruptedUploadIsToldToReadersOnly) {
  Script script;
  script.alloc(1, 16);
  script.write_lane(script.define(SKY_TEMPLATE_WRITE, "", {tensor(0, s4)}), 1, 3, 16);
  const auto pending = script.call(SKY_CALL_TAKE_POISON, {});
  const auto read = script.get(1, s4);
  FakeServer server;
  std::thread lane([&] {
    server.wait_for_landing();
    const SkyLandingApi& api = server.landing();
    void* landing = nullptr;
    while (landing == nullptr) landing = api.begin(api.ctx, 3, 16);  // until the executor has opened the table
    api.finish(landing, SKY_ERR_INTERRUPTED);
  });
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  lane.join();
  EXPECT_EQ(server.answer(pending).code, SKY_OK) << "its program knows";
  EXPECT_EQ(server.answer(read).code, SKY_ERR_OP_RUNTIME);
  EXPECT_NE(server.answer(read).message.find("was interrupted"), std::string::npos) << server.answer(read).message;
}

TEST(Poison, QueriesOfPoisonedTensorsAnswerIt) {
  Failing f;
  const auto query = f.script.query(f.script.define(kOp, "aten::nonzero", {tensor(0, s4)}), {2, 9}, 1);
  f.script.free({2});
  FakeServer server;
  EXPECT_EQ(server.run(f.script), SKY_OK);
  EXPECT_EQ(server.answer(query).code, SKY_ERR_OP_RUNTIME);
}

TEST(Poison, ExceptionsKeepTheirClass) {
  const auto code_of = [](const std::string& name, std::vector<Arg> args, Shape input, Shape output) {
    Script script;
    script.put(1, at::zeros(input.sizes, input.dtype));
    script.op(script.define(kOp, name, std::move(args), {output}), {1, 2});
    const auto read = script.get(2, output);
    FakeServer server;
    server.run(script);
    return server.answer(read).code;
  };
  const Shape square = shape({2, 2}), ints = shape({2, 2}, at::kInt);
  Script singular;
  singular.put(1, at::ones({1}, at::kInt));
  const auto query = singular.query(singular.define(kOp, "aten::_linalg_check_errors",
                                                    {tensor(0, shape({1}, at::kInt)), text("inv"), boolean(true)}),
                                    {1}, 0);
  FakeServer server;
  EXPECT_EQ(server.run(singular), SKY_OK);
  EXPECT_EQ(server.answer(query).code, SKY_ERR_OP_LINALG);
  EXPECT_EQ(code_of("aten::select_copy.int", {tensor(0, square), integer(5), integer(0)}, square, shape({2})),
            SKY_ERR_OP_INDEX);
  EXPECT_EQ(code_of("aten::_local_scalar_dense", {tensor(0, square)}, square, square), SKY_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(code_of("aten::_foobar", {tensor(0, ints), boolean(true), boolean(true), boolean(true)}, ints, ints),
            SKY_OK);
  EXPECT_EQ(code_of("aten::geqrf", {tensor(0, ints)}, ints, ints), SKY_ERR_INVALID_ARGUMENT) << "two returns";
  EXPECT_EQ(code_of("aten::_thnn_fused_lstm_cell",
                    {tensor(0, square), tensor(0, square), tensor(0, square), none(), none()}, square, square),
            SKY_ERR_INVALID_ARGUMENT)
      << "three returns";
}

TEST(Poison, OperatorsWithoutAKernelHere) {
  Script script;
  script.put(1, at::zeros({2, 2}));
  const Shape s = shape({2, 2});
  script.op(script.define(kOp, "aten::_thnn_fused_gru_cell",
                          {tensor(0, s), tensor(0, s), tensor(0, s), none(), none()}, {s, s}),
            {1, 2, 3});
  const auto read = script.get(2, s);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_EQ(server.answer(read).code, SKY_ERR_OP_NOT_IMPLEMENTED) << server.answer(read).message;
}

}  // namespace
}  // namespace skytorch::server::test
