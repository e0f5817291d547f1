// CALL records: generators that give local numbers, flags that are put back, events, memory.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "fake_wire.h"

namespace skytorch::server::test {
namespace {

const Shape s8 = shape({8});

at::Tensor local_normal(uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::empty({8}).normal_(0, 1, generator);
}

TEST(Calls, SeedsGiveTheNumbersOfTheLocalDevice) {
  Script script;
  script.alloc(1, 32);
  script.alloc(2, 32);
  const auto normal = script.define(kOp, "aten::normal_", {tensor(0, s8), real(0), real(1), generator()});
  script.call(SKY_CALL_GENERATOR_SEED, {0, 0, 42}, false);
  script.call(SKY_CALL_GENERATOR_SEED, {7, 0, 43}, false);
  script.op(normal, {1}, {number(int64_t{0})});
  script.op(normal, {2}, {number(int64_t{7})});
  const auto a = script.get(1, s8), b = script.get(2, s8);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_TRUE(at::equal(server.tensor(a, s8), local_normal(42)));
  EXPECT_TRUE(at::equal(server.tensor(b, s8), local_normal(43)));
}

TEST(Calls, GeneratorStatesTravel) {
  auto local = at::detail::createCPUGenerator(5);
  const auto state = local.get_state();
  Script script;
  script.alloc(1, 32);
  script.call(SKY_CALL_GENERATOR_SET_STATE, {0, 0}, false, bytes_of(state));
  const auto got = script.call(SKY_CALL_GENERATOR_GET_STATE, {0, 0});
  const auto normal = script.define(kOp, "aten::normal_", {tensor(0, s8), real(0), real(1), none()});
  script.op(normal, {1});
  const auto numbers = script.get(1, s8);
  const auto bad = script.call(SKY_CALL_GENERATOR_SET_STATE, {0, 0}, true, {1, 2, 3});
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_EQ(server.answer(got).bytes, bytes_of(state));
  EXPECT_TRUE(at::equal(server.tensor(numbers, s8), local_normal(5)));
  EXPECT_NE(server.answer(bad).code, SKY_OK);
}

TEST(Calls, ASessionLeavesNoTraceInTheProcess) {
  auto& context = at::globalContext();
  const auto state = at::detail::getDefaultCPUGenerator().get_state();
  const int threads = at::get_num_threads();
  Script script;
  script.call(SKY_CALL_CONTEXT, {SKY_CONTEXT_DETERMINISTIC, 2}, false);
  script.call(SKY_CALL_CONTEXT, {SKY_CONTEXT_MATMUL_PRECISION, 2}, false);
  script.call(SKY_CALL_CONTEXT, {SKY_CONTEXT_NUM_THREADS, 1}, false);
  script.call(SKY_CALL_CONTEXT, {SKY_CONTEXT_CUDNN_BENCHMARK, 1}, false);
  script.call(SKY_CALL_GENERATOR_SEED, {0, 0, 9}, false);
  bool seen = false;
  script.before_next_message([&] {
    seen = context.deterministicAlgorithmsWarnOnly() && at::get_num_threads() == 1 && context.benchmarkCuDNN() &&
           context.float32MatmulPrecision() == at::Float32MatmulPrecision::MEDIUM;
  });
  const auto bad_value = script.call(SKY_CALL_CONTEXT, {SKY_CONTEXT_NUM_THREADS, -1});
  const auto bad_key = script.call(SKY_CALL_CONTEXT, {99, 0});
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_TRUE(seen);
  EXPECT_EQ(server.answer(bad_value).code, SKY_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(server.answer(bad_key).code, SKY_ERR_NOT_SUPPORTED);
  EXPECT_FALSE(context.deterministicAlgorithms());
  EXPECT_FALSE(context.benchmarkCuDNN());
  EXPECT_EQ(context.float32MatmulPrecision(), at::Float32MatmulPrecision::HIGHEST);
  EXPECT_EQ(at::get_num_threads(), threads);
  EXPECT_TRUE(at::equal(at::detail::getDefaultCPUGenerator().get_state(), state));
}

TEST(Calls, EventsAndMemory) {
  Script script;
  script.call(SKY_CALL_EVENT_RECORD, {1, 0}, false);
  script.alloc(1, 1000);
  script.alloc(2, 500);
  script.free({1});
  script.call(SKY_CALL_EVENT_RECORD, {2, 0}, false);
  const auto waited = script.call(SKY_CALL_EVENT_SYNCHRONIZE, {2});
  const auto elapsed = script.call(SKY_CALL_EVENT_ELAPSED, {1, 2});
  const auto missing = script.call(SKY_CALL_EVENT_SYNCHRONIZE, {3});
  const auto memory = script.call(SKY_CALL_MEMORY_STATS, {0});
  script.call(SKY_CALL_MEMORY_RESET_PEAK, {0}, false);
  const auto reset = script.call(SKY_CALL_MEMORY_STATS, {0});
  const auto no_device = script.call(SKY_CALL_MEMORY_STATS, {9});
  const auto few_arguments = script.call(SKY_CALL_MEMORY_STATS, {});
  const auto probe = script.call(SKY_CALL_PROBE, {}, true, {'x'});
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_EQ(server.answer(waited).code, SKY_OK);
  EXPECT_GE(server.answer(elapsed).values.at(0).real, 0.0);
  EXPECT_EQ(server.answer(missing).code, SKY_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(server.answer(memory).values.at(0).integer, 500);
  EXPECT_EQ(server.answer(memory).values.at(1).integer, 1500);
  EXPECT_EQ(server.answer(reset).values.at(1).integer, 500);
  EXPECT_EQ(server.answer(no_device).code, SKY_ERR_DEVICE_NOT_FOUND);
  EXPECT_EQ(server.answer(few_arguments).code, SKY_ERR_PROTOCOL);
  EXPECT_EQ(server.answer(probe).values.at(0).integer, 1);
}

}  // namespace
}  // namespace skytorch::server::test
