// INV-5: records that no honest client sends. Each is an error or the end of the session, never a crash or a read
// outside a storage (run this one under the sanitizers).
#include <gtest/gtest.h>

#include <random>

#include "../../../server/src/deny_list.h"
#include "fake_wire.h"

namespace skytorch::server::test {
namespace {

constexpr int64_t kHuge = INT64_MAX / 2;

// Runs one operator on storage 1 (float32[4], all ones) with output 2, and returns the answer to reading 2.
Answer outcome(const std::string& name, std::vector<Arg> args, std::vector<Shape> outputs,
               std::vector<SkyScalar> scalars = {}) {
  Script script;
  script.put(1, at::ones({4}));
  const bool has_output = !outputs.empty();
  bool has_tensor = false;
  for (const Arg& a : args) has_tensor = has_tensor || a.arg.kind == SKY_ARG_TENSOR;
  const auto slot = script.define(kOp, name, std::move(args), std::move(outputs));
  std::vector<uint64_t> ids;
  if (has_tensor) ids.push_back(1);
  if (has_output) ids.push_back(2);
  script.op(slot, ids, std::move(scalars));
  const auto read = script.get(has_output ? 2 : 1, shape({4}));
  const auto untouched = script.call(SKY_CALL_MEMORY_STATS, {0});
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  EXPECT_EQ(server.answer(untouched).code, SKY_OK);
  return server.answer(read);
}

uint32_t closing_code(const std::function<void(Script&)>& body) {
  Script script;
  script.put(1, at::ones({4}));
  body(script);
  FakeServer server;
  return server.run(script);
}

TEST(Hostile, UnknownOperatorsAreNamedWithTheServersVersion) {
  const Answer got = outcome("aten::frobnicate.Tensor", {tensor(0, s4)}, {s4});
  EXPECT_EQ(got.code, SKY_ERR_NOT_SUPPORTED);
  EXPECT_NE(got.message.find("aten::frobnicate.Tensor is not in torch 2."), std::string::npos) << got.message;
}

TEST(Hostile, DeniedOperatorsDoNotRun) {
  for (const char* name : {"aten::from_file", "aten::set_.source_Tensor", "aten::resize_", "aten::_print"}) {
    const Answer got = outcome(name, {tensor(0, s4)}, {s4});
    EXPECT_EQ(got.code, SKY_ERR_NOT_SUPPORTED) << name;
    EXPECT_NE(got.message.find("is not allowed"), std::string::npos) << got.message;
  }
}

TEST(Hostile, OtherNamespacesNeedPermission) {
  const Answer got = outcome("quantized::add", {tensor(0, s4)}, {s4});
  EXPECT_EQ(got.code, SKY_ERR_NOT_SUPPORTED);
  EXPECT_NE(got.message.find("--import"), std::string::npos);
}

TEST(Hostile, ArgumentsOfTheWrongKind) {
  const std::vector<Arg> wrong = {none(),    integer(1), boolean(true),         real(1),   text("x"),
                                  ints({1}), bools({}),  dtype_arg(at::kFloat), device(0), list(0)};
  for (const Arg& arg : wrong) {
    const Answer got = outcome("aten::sum.dim_IntList", {tensor(0, s4), arg, arg, arg}, {s4});
    EXPECT_NE(got.code, SKY_OK);
  }
  EXPECT_EQ(outcome("aten::add.Tensor", {tensor(0, s4), integer(1), scalar(1)}, {s4}).code, SKY_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(outcome("aten::add.Tensor", {tensor(0, s4), tensor(0, s4)}, {s4}).code, SKY_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(outcome("aten::relu", {tensor(0, s4), tensor(0, s4)}, {s4}).code, SKY_ERR_INVALID_ARGUMENT);
}

TEST(Hostile, ScalarsOfTheWrongKind) {
  const auto args = [] { return std::vector<Arg>{tensor(0, s4), scalar_slot(SKY_SCALAR_INT), scalar(1)}; };
  EXPECT_EQ(outcome("aten::add.Scalar", args(), {s4}, {number(1.5)}).code, SKY_ERR_PROTOCOL);
  EXPECT_EQ(outcome("aten::add.Scalar", args(), {s4}, {number(int64_t{1})}).code, SKY_OK);
}

TEST(Hostile, GeometryOutsideItsStorage) {
  Shape longer = shape({5}), shifted = s4, strided = s4, huge = shape({kHuge}), wrapping = s4, negative = s4;
  shifted.offset = 1;
  strided.strides = {2};
  wrapping.strides = {kHuge};
  negative.strides = {-1};
  Shape overflow = shape({kHuge, kHuge});
  Shape far = s4;
  far.offset = INT64_MAX;
  Shape empty_far = shape({0});
  empty_far.offset = INT64_MAX;
  for (const Shape& bad : {longer, shifted, strided, huge, wrapping, negative, overflow, far}) {
    EXPECT_EQ(outcome("aten::neg", {tensor(0, bad)}, {s4}).code, SKY_ERR_INVALID_ARGUMENT);
    Script script;
    script.put(1, at::ones({4}));
    const auto read = script.get(1, bad);
    script.write(script.define(SKY_TEMPLATE_WRITE, "", {tensor(0, bad)}), 1, std::vector<uint8_t>(16));
    FakeServer server;
    EXPECT_EQ(server.run(script), SKY_OK);
    EXPECT_EQ(server.answer(read).code, SKY_ERR_INVALID_ARGUMENT);
  }
  Script script;
  script.put(1, at::ones({4}));
  const auto read = script.get(1, empty_far);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_EQ(server.answer(read).code, SKY_OK);
  EXPECT_TRUE(server.answer(read).bytes.empty());
}

TEST(Hostile, DtypesOutOfRange) {
  Shape strange = s4;
  for (int number : {12, 13, 14, 16, 17, 200, 254}) {
    strange.dtype = static_cast<at::ScalarType>(number);
    EXPECT_EQ(outcome("aten::neg", {tensor(0, strange)}, {s4}).code, SKY_ERR_INVALID_ARGUMENT) << number;
  }
}

TEST(Hostile, MemoryLayoutNeedsADenseTensor) {
  Shape repeated = s4;
  repeated.strides = {0};
  Script script;
  script.put(1, at::ones({4}));
  const auto read =
      script.read(script.define(SKY_TEMPLATE_READ, "", {tensor(0, repeated)}, {}, SKY_LAYOUT_MEMORY), 1);
  const auto logical = script.get(1, repeated);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_EQ(server.answer(read).code, SKY_ERR_PROTOCOL);
  EXPECT_EQ(server.answer(logical).bytes.size(), 16u);
}

TEST(Hostile, AbsurdSizesAreOutOfMemory) {
  Script script;
  for (uint64_t size : {uint64_t{1} << 50, uint64_t{INT64_MAX}, UINT64_MAX}) script.alloc(size, size);
  const auto read = script.get(uint64_t{1} << 50, shape({1}));
  script.put(7, at::ones({4}));
  script.resize(7, uint64_t{1} << 60);
  const auto resized = script.get(7, s4);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_EQ(server.answer(read).code, SKY_ERR_OP_OUT_OF_MEMORY);
  EXPECT_EQ(server.answer(resized).code, SKY_ERR_OP_OUT_OF_MEMORY);
  EXPECT_EQ(outcome("aten::full", {ints({kHuge}), scalar(1), dtype_arg(at::kFloat), none(), none(), none()},
                    {shape({kHuge / 8})})
                .code,
            SKY_ERR_OP_OUT_OF_MEMORY);
}

TEST(Hostile, WrongShapePredictionsAreInternalErrors) {
  const Answer sizes = outcome("aten::neg", {tensor(0, s4)}, {shape({5})});
  EXPECT_EQ(sizes.code, SKY_ERR_INTERNAL);
  EXPECT_NE(sizes.message.find("float32[4]"), std::string::npos) << sizes.message;
  EXPECT_EQ(outcome("aten::neg", {tensor(0, s4)}, {shape({4}, at::kDouble)}).code, SKY_ERR_INTERNAL);
  // An out= operator that resizes what it was given.
  EXPECT_EQ(outcome("aten::full.out", {ints({2, 2}), scalar(1), tensor(0, s4)}, {}).code, SKY_ERR_INTERNAL);
}

TEST(Hostile, RecordsThatBreakTheProtocolEndTheSession) {
  EXPECT_EQ(closing_code([](Script& s) { s.op(77, {1}); }), SKY_ERR_PROTOCOL);
  EXPECT_EQ(closing_code([](Script& s) { s.alloc(1, 4); }), SKY_ERR_PROTOCOL) << "an id twice";
  EXPECT_EQ(closing_code([](Script& s) { s.alloc(0, 4); }), SKY_ERR_PROTOCOL);
  EXPECT_EQ(closing_code([](Script& s) { s.alloc(2, 4, 99); }), SKY_ERR_PROTOCOL);
  EXPECT_EQ(closing_code([](Script& s) { s.define_into(1 << 20, kOp, "aten::neg", {}); }), SKY_ERR_PROTOCOL);
  EXPECT_EQ(closing_code([](Script& s) {
              SkyRecord record{};
              record.kind = 99;
              s.raw(record);
            }),
            SKY_ERR_PROTOCOL);
  EXPECT_EQ(closing_code([](Script& s) { s.op(s.define(kOp, "aten::neg", {tensor(0, s4)}, {s4}), {1}); }),
            SKY_ERR_PROTOCOL)
      << "no id for the output";
  EXPECT_EQ(closing_code([](Script& s) { s.op(s.define(kOp, "aten::neg", {tensor(0, s4)}, {s4, s4}), {1, 2, 3}); }),
            SKY_OK)
      << "a template with too many outputs poisons them";
  EXPECT_EQ(closing_code([](Script& s) { s.op(s.define(SKY_TEMPLATE_READ, "", {tensor(0, s4)}), {1}); }),
            SKY_ERR_PROTOCOL);
  EXPECT_EQ(closing_code([](Script& s) { s.free({1, 1, 12345}); }), SKY_OK) << "freeing nothing is harmless";
}

TEST(Hostile, UnknownInputsPoisonTheOutputs) {
  Script script;
  script.op(script.define(kOp, "aten::neg", {tensor(0, s4)}, {s4}), {5, 6});
  const auto read = script.get(6, s4);
  const auto ghost = script.get(5, s4);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_EQ(server.answer(read).code, SKY_ERR_PROTOCOL);
  EXPECT_EQ(server.answer(ghost).code, SKY_ERR_PROTOCOL);
}

// Every operator that torch knows, with arguments of random kinds: defining it must never crash, whatever it answers.
TEST(Hostile, RandomTemplatesOfEveryOperator) {
  std::mt19937 random(20260101);
  const std::vector<std::function<Arg()>> kinds = {[] { return none(); },
                                                   [] { return tensor(0, s4); },
                                                   [] { return tensor(9, s4); },
                                                   [] { return integer(-1); },
                                                   [] { return boolean(true); },
                                                   [] { return real(0.5); },
                                                   [] { return real_slot(); },
                                                   [] { return scalar(2); },
                                                   [] { return scalar_slot(SKY_SCALAR_INT); },
                                                   [] { return text("sum"); },
                                                   [] { return ints({1, 2}); },
                                                   [] { return bools({true}); },
                                                   [] { return dtype_arg(at::kFloat); },
                                                   [] { return device(0); },
                                                   [] { return device(300); },
                                                   [] { return generator(); },
                                                   [] { return list(2); },
                                                   [] { return list(1u << 31); },
                                                   [] { return cpu_scalar(at::kLong); },
                                                   [] { return cpu_scalar(static_cast<at::ScalarType>(99)); }};
  Script script;
  size_t n = 0;
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
    for (int round = 0; round < 3; ++round, ++n) {
      std::vector<Arg> args(random() % 8);
      for (Arg& arg : args) arg = kinds[random() % kinds.size()]();
      const std::string full = name.name + (name.overload_name.empty() ? "" : "." + name.overload_name);
      script.define_into(static_cast<uint32_t>(n % 60000), kOp, full, std::move(args), {s4});
    }
  }
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_GT(n, 5000u);
}

TEST(Hostile, EveryEntryOfTheDenyListIsRefusedWithAllItsOverloads) {
  for (const std::string& line : deny_list()) {
    const std::string name = line.substr(0, line.find(": "));
    EXPECT_FALSE(denied_because(name).empty());
    EXPECT_FALSE(denied_because(name + ".out").empty());
  }
  EXPECT_TRUE(denied_because("aten::add.Tensor").empty());
  // Operators that open files: whoever moves to a new torch sees here what it added.
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
    if (name.name.rfind("aten::", 0) != 0) continue;
    if (name.name.find("file") == std::string::npos || name.name.find("profile") != std::string::npos) continue;
    EXPECT_FALSE(denied_because(name.name).empty()) << name.name;
  }
}

}  // namespace
}  // namespace skytorch::server::test
