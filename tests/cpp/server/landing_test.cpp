// Lane transfers: the fence, adoption without a copy, staging through slabs, limits, and the end of a session in the
// middle of one.
#include <gtest/gtest.h>

#include <thread>

#include "../../../server/src/device/cpu.h"
#include "fake_wire.h"
#include "lazy_engine.h"

namespace skytorch::server::test {
namespace {

DeviceList staged_cpu(uint64_t slab_bytes, uint32_t n_slabs) {
  DeviceList devices;
  devices.push_back(
      std::make_unique<CpuDevice>(std::make_shared<Staging>(std::make_unique<LazyEngine>(), slab_bytes, n_slabs)));
  return devices;
}

void expect_upload(FakeServer& server, const at::Tensor& x, const Shape& wire, uint64_t piece) {
  Script script;
  script.alloc(1, x.nbytes());
  script.write_lane(script.define(SKY_TEMPLATE_WRITE, "", {tensor(0, wire)}), 1, 11, x.nbytes());
  const Shape flat = shape({x.numel()});
  script.op(script.define(SKY_TEMPLATE_OP, "aten::neg_", {tensor(0, flat)}), {1});
  const auto read = script.get(1, wire);
  std::thread lane([&] {
    server.wait_for_landing();
    while (!server.upload(11, bytes_of(x), piece)) {  // until the executor has opened the table
    }
  });
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  lane.join();
  EXPECT_TRUE(at::equal(server.tensor(read, shape(x.sizes().vec())), -x));
}

TEST(Landing, WhatFollowsTheFenceSeesTheBytes) {
  const auto x = at::rand({1000, 7});
  Shape transposed = shape({1000, 7});
  transposed.strides = {1, 1000};
  for (const Shape& wire : {shape({1000, 7}), transposed}) {
    FakeServer host;
    expect_upload(host, x, wire, 999);
    FakeServer staged(staged_cpu(4096, 2));
    expect_upload(staged, x, wire, 999);
  }
}

// Five tensors in one transfer: a part of a storage, one whose bytes lie unaligned, a transposed one, one without a
// value and one without a storage. Each fails or succeeds by itself.
TEST(Landing, SeveralTensorsComeInOneTransfer) {
  const auto part = at::rand({3});
  const auto bytes = at::arange(5, at::kByte);
  const auto matrix = at::rand({4, 3});
  Shape inner = shape({3});
  inner.offset = 2;
  Shape transposed = shape({4, 3});
  transposed.strides = {1, 4};
  std::vector<uint8_t> transfer;
  for (const auto& tensor : {part, bytes, matrix, part, part}) {
    const auto more = bytes_of(tensor);
    transfer.insert(transfer.end(), more.begin(), more.end());
  }
  transfer.insert(transfer.end(), {1, 1, 1, 0, 1});
  const auto run = [&](FakeServer& server) {
    Script script;
    script.put(1, at::zeros({8}));
    script.put(2, at::zeros({5}, at::kByte));
    script.put(3, at::zeros({12}));
    script.put(4, at::zeros({3}));
    std::vector<uint32_t> slots;
    for (const Shape& s : {inner, shape({5}, at::kByte), transposed, shape({3}), shape({3})}) {
      slots.push_back(script.define(SKY_TEMPLATE_WRITE, "", {tensor(0, s)}));
    }
    script.write_lane_of(slots, {1, 2, 3, 4, 99}, 7, transfer.size());
    const auto first = script.get(1, shape({8}));
    const auto second = script.get(2, shape({5}, at::kByte));
    const auto third = script.get(3, transposed);
    const auto fourth = script.get(4, shape({3}));
    std::thread lane([&] {
      server.wait_for_landing();
      while (!server.upload(7, transfer, 11)) {  // until the executor has opened the table
      }
    });
    EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
    lane.join();
    const auto whole = server.tensor(first, shape({8}));
    EXPECT_TRUE(at::equal(whole.slice(0, 2, 5), part));
    EXPECT_EQ(whole.slice(0, 0, 2).sum().item<float>() + whole.slice(0, 5).sum().item<float>(), 0);
    EXPECT_TRUE(at::equal(server.tensor(second, shape({5}, at::kByte)), bytes));
    EXPECT_TRUE(at::equal(server.tensor(third, shape({4, 3})), matrix));
    EXPECT_EQ(server.answer(fourth).code, SKY_ERR_CONNECTION_LOST) << server.answer(fourth).message;
  };
  FakeServer host;
  run(host);
  FakeServer staged(staged_cpu(16, 2));
  run(staged);
}

// Templates that cannot run, each for itself: of a tensor whose bytes have no memory order, of a device that is not
// there, and of a conjugate of real numbers.
TEST(Landing, ABrokenTemplateFailsAloneAmongSeveral) {
  const auto x = at::rand({4});
  Script script;
  for (uint64_t id = 1; id <= 5; ++id) script.put(id, at::zeros({4}));
  const uint32_t good = script.define(SKY_TEMPLATE_WRITE, "", {tensor(0, shape({4}))});
  Shape gaps = shape({2});
  gaps.strides = {3};
  const uint32_t no_order = script.define(SKY_TEMPLATE_WRITE, "", {tensor(0, gaps)}, {}, SKY_LAYOUT_MEMORY);
  const uint32_t elsewhere =
      script.define(SKY_TEMPLATE_WRITE, "", {tensor(0, shape({4}))}, {}, SKY_LAYOUT_LOGICAL, 7);
  Shape real = shape({3});
  real.flags = SKY_GEOMETRY_CONJ;
  const uint32_t conjugate = script.define(SKY_TEMPLATE_WRITE, "", {tensor(0, real)});
  std::vector<uint8_t> transfer = bytes_of(x);
  transfer.resize(16 + 8 + 16 + 12);
  const auto last = bytes_of(-x);
  transfer.insert(transfer.end(), last.begin(), last.end());
  transfer.insert(transfer.end(), {1, 1, 1, 1, 1});
  script.write_lane_of({good, no_order, elsewhere, conjugate, good}, {1, 2, 3, 4, 5}, 3, transfer.size());
  std::vector<uint64_t> answers;
  for (uint64_t id = 1; id <= 5; ++id) answers.push_back(script.get(id, shape({4})));
  FakeServer server;
  std::thread lane([&] {
    server.wait_for_landing();
    while (!server.upload(3, transfer)) {  // until the executor has opened the table
    }
  });
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  lane.join();
  EXPECT_TRUE(at::equal(server.tensor(answers[0], shape({4})), x));
  EXPECT_EQ(server.answer(answers[1]).code, SKY_ERR_PROTOCOL) << server.answer(answers[1]).message;
  EXPECT_EQ(server.answer(answers[2]).code, SKY_ERR_DEVICE_NOT_FOUND) << server.answer(answers[2]).message;
  EXPECT_EQ(server.answer(answers[3]).code, SKY_ERR_INVALID_ARGUMENT) << server.answer(answers[3]).message;
  EXPECT_TRUE(at::equal(server.tensor(answers[4], shape({4})), -x));
}

TEST(Landing, SeveralTensorsFailTogetherWithTheirTransfer) {
  Script script;
  script.put(1, at::zeros({4}));
  script.put(2, at::zeros({4}));
  const uint32_t slot = script.define(SKY_TEMPLATE_WRITE, "", {tensor(0, shape({4}))});
  script.write_lane_of({slot, slot}, {1, 2}, 3, 34);
  const auto first = script.get(1, shape({4}));
  const auto second = script.get(2, shape({4}));
  FakeServer server;
  std::thread lane([&] {
    server.wait_for_landing();
    const SkyLandingApi& api = server.landing();
    void* landing = nullptr;
    while (landing == nullptr) landing = api.begin(api.ctx, 3, 0);  // until the executor has opened the table
    api.finish(landing, SKY_ERR_CONNECTION_LOST);
  });
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  lane.join();
  EXPECT_EQ(server.answer(first).code, SKY_ERR_CONNECTION_LOST);
  EXPECT_EQ(server.answer(second).code, SKY_ERR_CONNECTION_LOST);
}

TEST(Landing, StagedWritesAndReadsKeepTheirOrder) {
  const auto x = at::rand({5000});
  const Shape s = shape({5000});
  Script script;
  script.put(1, x);
  script.op(script.define(SKY_TEMPLATE_OP, "aten::neg_", {tensor(0, s)}), {1});
  const auto read = script.get(1, s);
  script.op(script.define(SKY_TEMPLATE_OP, "aten::zero_", {tensor(0, s)}), {1});
  const auto zero = script.get(1, s);
  FakeServer server(staged_cpu(1024, 2));
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_TRUE(at::equal(server.tensor(read, s), -x));
  EXPECT_TRUE(at::equal(server.tensor(zero, s), at::zeros({5000})));
}

TEST(Landing, ABrokenTransferMayComeAgain) {
  LandingTable table(1 << 20);
  CpuDevice cpu;
  table.set_target(&cpu);
  table.open();
  const SkyLandingApi api = table.api();
  void* first = api.begin(api.ctx, 5, 4);
  ASSERT_NE(first, nullptr);
  api.finish(first, SKY_ERR_CONNECTION_LOST);
  void* second = api.begin(api.ctx, 5, 4);
  ASSERT_NE(second, nullptr);
  uint64_t capacity = 0;
  uint8_t* window = api.window(second, 0, &capacity);
  ASSERT_EQ(capacity, 4u);
  std::memcpy(window, "abcd", 4);
  EXPECT_EQ(api.window(second, 4, &capacity), nullptr) << "past the end";
  api.commit(second, 0, 4);
  api.finish(second, SKY_OK);
  const auto landing = table.wait(5, 4, [] { return false; });
  ASSERT_NE(landing, nullptr);
  const auto bytes = landing->take();
  EXPECT_EQ(bytes.get(), window) << "adopted where it landed";
  EXPECT_EQ(std::memcmp(bytes.get(), "abcd", 4), 0);
}

TEST(Landing, AFailedTransferEndsTheFence) {
  LandingTable table(1 << 20);
  CpuDevice cpu;
  table.set_target(&cpu);
  table.open();
  const SkyLandingApi api = table.api();
  const auto code_of = [&](uint64_t transfer) {
    try {
      table.wait(transfer, 4, [] { return false; });
    } catch (const Failure& failure) {
      return failure.code();
    }
    return uint32_t{SKY_OK};
  };
  api.finish(api.begin(api.ctx, 1, 4), SKY_ERR_PROTOCOL);
  EXPECT_EQ(code_of(1), uint32_t{SKY_ERR_PROTOCOL});
  EXPECT_EQ(api.begin(api.ctx, 2, UINT64_MAX), nullptr);
  api.finish(api.begin(api.ctx, 2, 0), SKY_ERR_PROTOCOL);  // the lane tells that nothing will come
  EXPECT_EQ(code_of(2), uint32_t{SKY_ERR_OP_OUT_OF_MEMORY}) << "the first reason counts";
  api.finish(api.begin(api.ctx, 3, 4), SKY_OK);
  EXPECT_EQ(code_of(3), uint32_t{SKY_OK});
}

TEST(Landing, ADeadSessionEndsTheWait) {
  Script script;
  script.alloc(1, 16);
  script.write_lane(script.define(SKY_TEMPLATE_WRITE, "", {tensor(0, shape({4}))}), 1, 3, 16);
  const auto read = script.get(1, shape({4}));
  FakeServer server;
  server.set_dead(true);
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_EQ(server.answer(read).code, SKY_ERR_CONNECTION_LOST);
}

TEST(Landing, AWrongSizeIsAnError) {
  LandingTable table(1 << 20);
  CpuDevice cpu;
  table.set_target(&cpu);
  table.open();
  const SkyLandingApi api = table.api();
  api.finish(api.begin(api.ctx, 5, 4), SKY_OK);
  EXPECT_THROW(table.wait(5, 8, [] { return false; }), Failure);
  EXPECT_EQ(api.begin(api.ctx, 6, UINT64_MAX), nullptr) << "absurd sizes are refused";
}

TEST(Landing, BytesThatWaitAreBoundedButTheAwaitedTransferIsLetIn) {
  LandingTable table(100);
  CpuDevice cpu;
  table.set_target(&cpu);
  table.open();
  const SkyLandingApi api = table.api();
  api.finish(api.begin(api.ctx, 2, 80), SKY_OK);
  std::atomic<bool> third_in{false};
  std::thread third([&] {
    void* landing = api.begin(api.ctx, 3, 80);
    third_in = true;
    if (landing != nullptr) api.finish(landing, SKY_OK);
  });
  std::thread first([&] { api.finish(api.begin(api.ctx, 1, 80), SKY_OK); });
  EXPECT_NE(table.wait(1, 80, [] { return false; }), nullptr);
  first.join();
  EXPECT_FALSE(third_in);
  EXPECT_NE(table.wait(2, 80, [] { return false; }), nullptr);
  third.join();
  EXPECT_NE(table.wait(3, 80, [] { return false; }), nullptr);
}

TEST(Landing, ClosingReleasesWhoeverWaits) {
  LandingTable table(100);
  auto devices = staged_cpu(16, 1);
  table.set_target(devices[0].get());
  table.open();
  const SkyLandingApi api = table.api();
  void* holder = api.begin(api.ctx, 1, 64);
  uint64_t capacity = 0;
  ASSERT_NE(api.window(holder, 0, &capacity), nullptr);  // takes the only slab
  void* waiting = api.begin(api.ctx, 2, 16);
  std::thread lane([&] {
    uint64_t room = 0;
    EXPECT_EQ(api.window(waiting, 0, &room), nullptr);
    api.finish(waiting, SKY_ERR_CONNECTION_LOST);
  });
  std::thread late([&] { EXPECT_EQ(api.begin(api.ctx, 3, 90), nullptr); });
  table.close();
  lane.join();
  late.join();
  api.finish(holder, SKY_ERR_CONNECTION_LOST);
  EXPECT_EQ(api.begin(api.ctx, 4, 1), nullptr);
}

TEST(Landing, BuffersAreUsedAgain) {
  const auto pool = PagePool::make(uint64_t{64} << 20);
  void* first = nullptr;
  {
    const auto buffer = pool->allocate(5 << 20);
    first = buffer.get();
  }
  EXPECT_GE(pool->free_bytes(), uint64_t{5} << 20);
  const auto again = pool->allocate((5 << 20) - 100);
  EXPECT_EQ(again.get(), first);
  EXPECT_EQ(pool->free_bytes(), 0u);
  EXPECT_FALSE(pool->allocate(UINT64_MAX));
}

}  // namespace
}  // namespace skytorch::server::test
