// What one session may take: memory, storages, events, waiting transfers. Each limit is met, said by name, and gone
// with the session that met it.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "../../../server/src/device/cpu.h"
#include "../../../server/src/device/host_memory.h"
#include "fake_wire.h"

namespace skytorch::server::test {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// Tensors may take this much more than they do now.
class MemoryLimit {
 public:
  explicit MemoryLimit(int64_t room) {
    HostMemory::install();
    memory_.set_limit(memory_.used() + static_cast<uint64_t>(room));
  }
  ~MemoryLimit() { memory_.set_limit(0); }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  HostMemory& memory_ = HostMemory::instance();
};

const Shape kFour = shape({kMiB});  // float32, so four MiB

TEST(Limits, MemoryIsWhatTensorsTakeAndComesBackWhenTheyAreFreed) {
  Script script;
  const auto full = script.define(kOp, "aten::full",
                                  {ints({kMiB}), scalar(1), dtype_arg(at::kFloat), none(), none(), none()}, {kFour});
  for (uint64_t id = 1; id <= 4; ++id) script.op(full, {id});
  const auto over = script.get(4, kFour);
  const auto under = script.get(1, kFour);
  script.free({1, 2});
  script.op(full, {5});
  const auto again = script.get(5, kFour);
  FakeServer server;
  const MemoryLimit limit(14 * kMiB);
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  EXPECT_EQ(server.answer(over).code, SKY_ERR_OP_OUT_OF_MEMORY);
  EXPECT_NE(server.answer(over).message.find("--max-memory"), std::string::npos) << server.answer(over).message;
  EXPECT_EQ(server.answer(under).code, SKY_OK);
  EXPECT_EQ(server.answer(again).code, SKY_OK) << server.answer(again).message;
}

// The operator's result is small and what it needs on the way is not.
TEST(Limits, MemoryCountsWhatAnOperatorNeedsOnTheWay) {
  Script script;
  script.put(1, at::ones({kMiB}));
  const auto slot = script.define(kOp, "aten::sort", {tensor(0, kFour), integer(0), boolean(false)},
                                  {kFour, shape({kMiB}, at::kLong)});
  script.op(slot, {1, 2, 3});
  const auto read = script.get(2, kFour);
  FakeServer server;
  const MemoryLimit limit(6 * kMiB);
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_EQ(server.answer(read).code, SKY_ERR_OP_OUT_OF_MEMORY);
}

TEST(Limits, MemoryIsGivenBackByTheEndOfASession) {
  const uint64_t before = HostMemory::instance().used();
  {
    Script script;
    for (uint64_t id = 1; id <= 2000; ++id) script.put(id * 1000, at::ones({16}));
    FakeServer server;
    EXPECT_EQ(server.run(script), SKY_OK);
  }
  EXPECT_EQ(HostMemory::instance().used(), before);
}

// Two large tensors are sent from where they lie, and a small one beside them takes its own bytes.
TEST(Limits, SeveralTensorsAreSentWithoutRoomForThemAll) {
  Script script;
  script.put(1, at::ones({kMiB}));
  script.put(2, at::ones({4}));
  const uint32_t large = script.define(SKY_TEMPLATE_READ, "", {tensor(0, kFour)});
  const uint32_t small = script.define(SKY_TEMPLATE_READ, "", {tensor(0, shape({4}))});
  script.send_of({large, small, large}, {1, 2, 1}, {1}, 2 * 4 * kMiB + 16 + 3);
  FakeServer server;
  const MemoryLimit limit(6 * kMiB);
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  ASSERT_EQ(server.sent.size(), 2 * 4 * kMiB + 16 + 3u);
  EXPECT_EQ(std::vector<uint8_t>(server.sent.end() - 3, server.sent.end()), (std::vector<uint8_t>{1, 1, 1}));
}

uint64_t resident_bytes() {
  uint64_t size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

// Room is counted when a transfer begins, so that one without it is refused before its bytes travel; the memory is
// taken as they come.
TEST(Limits, ATransferThatBringsLittleTakesLittle) {
  HostMemory& memory = HostMemory::instance();
  LandingTable table(uint64_t{1} << 40);
  CpuDevice cpu;
  table.set_target(&cpu);
  table.open();
  const SkyLandingApi api = table.api();
  const uint64_t announced = 512 * kMiB, used = memory.used(), resident = resident_bytes();
  void* landing = api.begin(api.ctx, 1, announced);
  ASSERT_NE(landing, nullptr);
  uint64_t capacity = 0;
  std::memset(api.window(landing, 0, &capacity), 1, 100);
  api.commit(landing, 0, 100);
  EXPECT_GE(memory.used() - used, announced);
  EXPECT_LT(resident_bytes() - resident, announced / 8);
  {
    const MemoryLimit limit(8 * kMiB);
    EXPECT_EQ(api.begin(api.ctx, 2, 16 * kMiB), nullptr);
  }
  api.finish(landing, SKY_ERR_CONNECTION_LOST);
  EXPECT_EQ(memory.used(), used);
}

// A page of the table for each id is more than the ids' own storages take.
TEST(Limits, IdsFarApartCountAsMemory) {
  Script script;
  for (uint64_t i = 1; i < 5000; ++i) script.alloc(i << 20, 4);
  FakeServer server;
  const MemoryLimit limit(16 * kMiB);
  EXPECT_EQ(server.run(script), SKY_ERR_OP_OUT_OF_MEMORY);
}

TEST(Limits, StoragesOfASessionAreCounted) {
  Script script;
  for (uint64_t id = 1; id <= 100; ++id) script.alloc(id, 4);
  script.free({1});
  script.alloc(101, 4);
  FakeServer server;
  server.max_storages = 100;
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  script.alloc(102, 4);
  EXPECT_EQ(server.run(script), SKY_ERR_LIMIT_EXCEEDED);
  EXPECT_NE(server.close_message().find("--max-storages"), std::string::npos) << server.close_message();
}

// One that was refused is not there afterwards: waiting for it is an error too.
TEST(Limits, EventsOfASessionAreCounted) {
  constexpr int64_t kMaxEvents = 65536;
  Script script;
  for (int64_t id = 0; id <= kMaxEvents; ++id) script.call(SKY_CALL_EVENT_RECORD, {id, 0});
  const auto last = script.call(SKY_CALL_EVENT_SYNCHRONIZE, {kMaxEvents - 1});
  const auto refused = script.call(SKY_CALL_EVENT_SYNCHRONIZE, {kMaxEvents});
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_EQ(server.answer(last).code, SKY_OK);
  EXPECT_EQ(server.answer(refused).code, SKY_ERR_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace skytorch::server::test
