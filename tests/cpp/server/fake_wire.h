// Stands in for the Rust half: a SkyServerApi table that feeds hand-made records to the executor and keeps what it
// answers. A Script is one session's records; `run` serves scripts one after another on the calling thread. Pointers
// in records live as long as their Script. Not for tests of the wire itself.
#pragma once

#include <skytorch/wire.h>

#include <condition_variable>
#include <functional>
#include <map>

#include "../../../server/src/executor.h"

namespace skytorch::server::test {

// A geometry that owns its arrays.
struct Shape {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;  // empty: row-major
  int64_t offset = 0;
  uint8_t flags = 0;
};
Shape shape(std::vector<int64_t> sizes, at::ScalarType dtype = at::kFloat);

// What most tests are about.
constexpr uint8_t kOp = SKY_TEMPLATE_OP;
inline const Shape s4 = shape({4});
inline at::Tensor longs(std::vector<int64_t> values) { return at::tensor(values, at::kLong); }

struct Answer {
  uint32_t code = SKY_OK;
  std::string message;
  std::vector<uint8_t> bytes;
  std::vector<SkyGeometry> geometries;  // sizes and strides point into `dims`
  std::deque<std::vector<int64_t>> dims;
  std::vector<SkyScalar> values;
};

// Builds arguments of a template.
struct Arg {
  SkyArg arg{};
  Shape shape;
  std::string bytes;
};
Arg none();
Arg tensor(int64_t storage, const Shape& shape);
Arg cpu_scalar(at::ScalarType dtype, bool wrapped = true);
Arg integer(int64_t value);
Arg boolean(bool value);
Arg real(double value);
Arg real_slot();
Arg scalar(double value);
Arg scalar_slot(uint8_t kind);
Arg text(const std::string& value);
Arg ints(const std::vector<int64_t>& values);
Arg bools(const std::vector<bool>& values);
Arg dtype_arg(at::ScalarType value);
Arg device(int64_t number);
Arg generator();
// `count` elements follow.
Arg list(uint32_t count);

SkyScalar number(double value);
SkyScalar number(int64_t value);

class Script {
 public:
  // Each adds one record. Slots and request numbers are given out in order.
  uint32_t define(uint8_t kind, const std::string& name, std::vector<Arg> args, std::vector<Shape> outputs = {},
                  uint8_t layout = SKY_LAYOUT_LOGICAL, uint32_t device = 0);
  void define_into(uint32_t slot, uint8_t kind, const std::string& name, std::vector<Arg> args,
                   std::vector<Shape> outputs = {}, uint8_t layout = SKY_LAYOUT_LOGICAL, uint32_t device = 0);
  void op(uint32_t slot, std::vector<uint64_t> storages, std::vector<SkyScalar> scalars = {});
  uint64_t query(uint32_t slot, std::vector<uint64_t> storages, uint32_t n_outputs,
                 std::vector<SkyScalar> scalars = {});
  void alloc(uint64_t storage, uint64_t n_bytes, uint32_t device = 0);
  void resize(uint64_t storage, uint64_t n_bytes);
  void free(std::vector<uint64_t> storages);
  void write(uint32_t slot, uint64_t storage, std::vector<uint8_t> bytes);
  void write_lane(uint32_t slot, uint64_t storage, uint64_t transfer, uint64_t n_bytes);
  // Of several tensors.
  void write_lane_of(std::vector<uint32_t> slots, std::vector<uint64_t> storages, uint64_t transfer,
                     uint64_t n_bytes);
  uint64_t read(uint32_t slot, uint64_t storage);
  uint64_t call(uint32_t method, std::vector<int64_t> args, bool wants_answer = true,
                std::vector<uint8_t> payload = {});
  void send(uint32_t slot, uint64_t storage, std::vector<uint8_t> target, uint64_t n_bytes);
  void send_of(std::vector<uint32_t> slots, std::vector<uint64_t> storages, std::vector<uint8_t> target,
               uint64_t n_bytes);
  // A record as it is.
  void raw(const SkyRecord& record);
  // What follows is another message.
  void cut() { cuts_.push_back(records_.size()); }
  // Runs on the executor thread just before the next message is handed out.
  void before_next_message(std::function<void()> action) {
    cut();
    actions_[cuts_.size()] = std::move(action);
  }

  // Hands the last message out so many times: for benchmarks, whose records then stay in the cache as real ones do.
  void repeat(size_t times) { repeats_ = times; }

  // Conveniences: a storage with these contents; the contents of a storage, as the answer of the request.
  void put(uint64_t storage, const at::Tensor& contiguous);
  uint64_t get(uint64_t storage, const Shape& shape);

 private:
  friend class FakeServer;
  SkyRecord& add(uint8_t kind);
  SkyBytes keep(std::vector<uint8_t> bytes);
  void name_storages(SkyRecord& record, std::vector<uint64_t> ids);
  void name_parts(SkyRecord& record, std::vector<uint32_t> slots, std::vector<uint64_t> storages);
  void carry(SkyRecord& record, std::vector<SkyScalar> scalars);
  SkyGeometry wire(const Shape& shape);

  std::vector<SkyRecord> records_;
  std::vector<size_t> cuts_;
  std::map<size_t, std::function<void()>> actions_;  // by message
  size_t repeats_ = 1;
  uint32_t next_slot_ = 0;
  uint64_t next_request_ = 1;
  std::deque<SkyTemplate> templates_;
  std::deque<std::vector<SkyArg>> args_;
  std::deque<std::vector<SkyGeometry>> geometries_;
  std::deque<std::vector<uint64_t>> ids_;
  std::deque<std::vector<uint32_t>> slots_;
  std::deque<std::vector<SkyScalar>> scalars_;
  std::deque<std::vector<int64_t>> ints_;
  std::deque<std::vector<uint8_t>> bytes_;
};

class FakeServer {
 public:
  explicit FakeServer(DeviceList devices = {});
  // Serves the script as one session; returns the code it was closed with.
  uint32_t run(Script& script);
  const Answer& answer(uint64_t request) const;
  at::Tensor tensor(uint64_t request, const Shape& shape) const;
  bool answered(uint64_t request) const { return answers_.count(request) != 0; }
  const std::string& close_message() const { return close_message_; }
  const SkyLandingApi& landing() const { return landing_; }
  // Sends a whole transfer the way a lane does. Returns false if it was refused.
  bool upload(uint64_t transfer, const std::vector<uint8_t>& bytes, uint64_t piece = 1 << 20);
  // Blocks until the executor has set the landing table.
  void wait_for_landing();
  void set_dead(bool dead) { dead_ = dead; }

  Stats stats;
  AllowedNamespaces namespaces;
  uint64_t max_storages = uint64_t{1} << 20;
  std::vector<uint8_t> sent;  // by the last SEND
  uint32_t n_pieces = 0;      // of it

 private:
  static SkyServerApi table();
  uint32_t next(SkyBatch* out);

  DeviceList devices_;
  SkyServerApi api_;
  LandingTable landings_{uint64_t{1} << 30};
  Script* script_ = nullptr;
  size_t message_ = 0;
  size_t repeats_left_ = 1;
  bool accepted_ = false;
  std::map<uint64_t, Answer> answers_;
  uint32_t close_code_ = SKY_OK;
  std::string close_message_;
  std::mutex mutex_;
  std::condition_variable landing_set_;
  SkyLandingApi landing_{};
  std::atomic<bool> dead_{false};
};

std::vector<uint8_t> bytes_of(const at::Tensor& tensor);

}  // namespace skytorch::server::test
