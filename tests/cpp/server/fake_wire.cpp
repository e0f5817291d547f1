// The fake table.
#include "fake_wire.h"

#include <cstring>

namespace skytorch::server::test {
namespace {

SkyServer* as_server(FakeServer* fake) { return reinterpret_cast<SkyServer*>(fake); }

Arg make(uint8_t kind) {
  Arg a;
  a.arg.kind = kind;
  return a;
}

template <class T>
std::string pack(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

}  // namespace

Shape shape(std::vector<int64_t> sizes, at::ScalarType dtype) {
  Shape s;
  s.dtype = dtype;
  s.sizes = std::move(sizes);
  return s;
}

Arg none() { return make(SKY_ARG_NONE); }
Arg tensor(int64_t storage, const Shape& shape) {
  Arg a = make(SKY_ARG_TENSOR);
  a.arg.integer = storage;
  a.shape = shape;
  return a;
}
Arg cpu_scalar(at::ScalarType dtype, bool wrapped) {
  Arg a = make(SKY_ARG_CPU_SCALAR);
  a.arg.integer = static_cast<int64_t>(dtype);
  a.arg.flag = wrapped ? 1 : 0;
  return a;
}
Arg integer(int64_t value) {
  Arg a = make(SKY_ARG_INT);
  a.arg.integer = value;
  return a;
}
Arg boolean(bool value) {
  Arg a = make(SKY_ARG_BOOL);
  a.arg.integer = value ? 1 : 0;
  return a;
}
Arg real(double value) {
  Arg a = make(SKY_ARG_DOUBLE);
  a.arg.real = value;
  return a;
}
Arg real_slot() { return make(SKY_ARG_DOUBLE_SLOT); }
Arg scalar(double value) {
  Arg a = make(SKY_ARG_SCALAR);
  a.arg.flag = SKY_SCALAR_FLOAT;
  a.arg.real = value;
  return a;
}
Arg scalar_slot(uint8_t kind) {
  Arg a = make(SKY_ARG_SCALAR_SLOT);
  a.arg.integer = kind;
  return a;
}
Arg text(const std::string& value) {
  Arg a = make(SKY_ARG_STRING);
  a.bytes = value;
  return a;
}
Arg ints(const std::vector<int64_t>& values) {
  Arg a = make(SKY_ARG_INT_LIST);
  a.arg.count = static_cast<uint32_t>(values.size());
  a.bytes = pack(values);
  return a;
}
Arg bools(const std::vector<bool>& values) {
  Arg a = make(SKY_ARG_BOOL_LIST);
  a.arg.count = static_cast<uint32_t>(values.size());
  for (bool value : values) a.bytes.push_back(value ? 1 : 0);
  return a;
}
Arg dtype_arg(at::ScalarType value) {
  Arg a = make(SKY_ARG_DTYPE);
  a.arg.integer = static_cast<int64_t>(value);
  return a;
}
Arg device(int64_t number) {
  Arg a = make(SKY_ARG_DEVICE);
  a.arg.integer = number;
  return a;
}
Arg generator() { return make(SKY_ARG_GENERATOR); }
Arg list(uint32_t count) {
  Arg a = make(SKY_ARG_LIST);
  a.arg.count = count;
  return a;
}

SkyScalar number(double value) {
  SkyScalar s{};
  s.kind = SKY_SCALAR_FLOAT;
  s.real = value;
  return s;
}
SkyScalar number(int64_t value) {
  SkyScalar s{};
  s.kind = SKY_SCALAR_INT;
  s.integer = value;
  return s;
}

std::vector<uint8_t> bytes_of(const at::Tensor& tensor) {
  const auto flat = tensor.contiguous();
  const auto* data = static_cast<const uint8_t*>(flat.const_data_ptr());
  return {data, data + flat.nbytes()};
}

SkyRecord& Script::add(uint8_t kind) {
  SkyRecord record{};
  record.kind = kind;
  record.sequence = records_.size() + 1;
  records_.push_back(record);
  return records_.back();
}

void Script::raw(const SkyRecord& record) {
  const uint64_t sequence = records_.size() + 1;
  records_.push_back(record);
  records_.back().sequence = sequence;
}

SkyBytes Script::keep(std::vector<uint8_t> bytes) {
  bytes_.push_back(std::move(bytes));
  return {bytes_.back().data(), bytes_.back().size()};
}

void Script::name_storages(SkyRecord& record, std::vector<uint64_t> ids) {
  ids_.push_back(std::move(ids));
  record.storages = ids_.back().data();
  record.n_storages = static_cast<uint32_t>(ids_.back().size());
}

void Script::carry(SkyRecord& record, std::vector<SkyScalar> scalars) {
  scalars_.push_back(std::move(scalars));
  record.scalars = scalars_.back().data();
  record.n_scalars = static_cast<uint32_t>(scalars_.back().size());
}

SkyGeometry Script::wire(const Shape& shape) {
  SkyGeometry g{};
  g.dtype = static_cast<uint8_t>(shape.dtype == at::ScalarType::Undefined ? SKY_DTYPE_UNDEFINED : int(shape.dtype));
  g.ndim = static_cast<uint8_t>(shape.sizes.size());
  g.flags = shape.flags;
  g.offset = shape.offset;
  ints_.push_back(shape.sizes);
  g.sizes = ints_.back().data();
  std::vector<int64_t> strides = shape.strides;
  if (strides.empty()) {
    strides.resize(shape.sizes.size());
    uint64_t step = 1;  // a shape that overflows is what some tests want, and this is not what they test
    for (size_t d = strides.size(); d-- > 0;) {
      strides[d] = static_cast<int64_t>(step);
      step *= static_cast<uint64_t>(std::max<int64_t>(shape.sizes[d], 1));
    }
  }
  ints_.push_back(std::move(strides));
  g.strides = ints_.back().data();
  return g;
}

uint32_t Script::define(uint8_t kind, const std::string& name, std::vector<Arg> args, std::vector<Shape> outputs,
                        uint8_t layout, uint32_t device) {
  const uint32_t slot = next_slot_++;
  define_into(slot, kind, name, std::move(args), std::move(outputs), layout, device);
  return slot;
}

void Script::define_into(uint32_t slot, uint8_t kind, const std::string& name, std::vector<Arg> args,
                         std::vector<Shape> outputs, uint8_t layout, uint32_t device) {
  SkyTemplate t{};
  t.kind = kind;
  t.layout = layout;
  t.device = static_cast<uint8_t>(device);
  t.name = keep({name.begin(), name.end()});
  std::vector<SkyArg> wire_args;
  for (Arg& a : args) {
    SkyArg arg = a.arg;
    if (arg.kind == SKY_ARG_TENSOR) {
      arg.geometry = wire(a.shape);
      t.n_storages = std::max(t.n_storages, static_cast<uint32_t>(arg.integer + 1));
    }
    if (arg.kind == SKY_ARG_CPU_SCALAR || arg.kind == SKY_ARG_DOUBLE_SLOT || arg.kind == SKY_ARG_SCALAR_SLOT ||
        arg.kind == SKY_ARG_GENERATOR) {
      ++t.n_scalars;
    }
    if (!a.bytes.empty()) arg.bytes = keep({a.bytes.begin(), a.bytes.end()});
    wire_args.push_back(arg);
  }
  args_.push_back(std::move(wire_args));
  t.args = args_.back().data();
  t.n_args = static_cast<uint32_t>(args_.back().size());
  std::vector<SkyGeometry> geometries;
  for (const Shape& output : outputs) geometries.push_back(wire(output));
  geometries_.push_back(std::move(geometries));
  t.outputs = geometries_.back().data();
  t.n_outputs = static_cast<uint32_t>(geometries_.back().size());
  templates_.push_back(t);
  SkyRecord& record = add(SKY_RECORD_DEFINE);
  record.slot = slot;
  record.template_def = &templates_.back();
}

void Script::op(uint32_t slot, std::vector<uint64_t> storages, std::vector<SkyScalar> scalars) {
  SkyRecord& record = add(SKY_RECORD_OP);
  record.slot = slot;
  name_storages(record, std::move(storages));
  carry(record, std::move(scalars));
}

uint64_t Script::query(uint32_t slot, std::vector<uint64_t> storages, uint32_t n_outputs,
                       std::vector<SkyScalar> scalars) {
  SkyRecord& record = add(SKY_RECORD_QUERY);
  record.slot = slot;
  record.n_outputs = n_outputs;
  record.request = next_request_++;
  name_storages(record, std::move(storages));
  carry(record, std::move(scalars));
  return record.request;
}

void Script::alloc(uint64_t storage, uint64_t n_bytes, uint32_t device) {
  SkyRecord& record = add(SKY_RECORD_ALLOC);
  record.n_bytes = n_bytes;
  record.device = device;
  name_storages(record, {storage});
}

void Script::resize(uint64_t storage, uint64_t n_bytes) {
  SkyRecord& record = add(SKY_RECORD_RESIZE);
  record.n_bytes = n_bytes;
  name_storages(record, {storage});
}

void Script::free(std::vector<uint64_t> storages) { name_storages(add(SKY_RECORD_FREE), std::move(storages)); }

void Script::write(uint32_t slot, uint64_t storage, std::vector<uint8_t> bytes) {
  SkyRecord& record = add(SKY_RECORD_WRITE);
  record.slot = slot;
  record.payload = keep(std::move(bytes));
  name_storages(record, {storage});
}

void Script::write_lane(uint32_t slot, uint64_t storage, uint64_t transfer, uint64_t n_bytes) {
  write_lane_of({slot}, {storage}, transfer, n_bytes);
}

void Script::write_lane_of(std::vector<uint32_t> slots, std::vector<uint64_t> storages, uint64_t transfer,
                           uint64_t n_bytes) {
  SkyRecord& record = add(SKY_RECORD_WRITE_LANE);
  record.transfer = transfer;
  record.n_bytes = n_bytes;
  name_parts(record, std::move(slots), std::move(storages));
}

uint64_t Script::read(uint32_t slot, uint64_t storage) {
  SkyRecord& record = add(SKY_RECORD_READ);
  record.slot = slot;
  record.request = next_request_++;
  name_storages(record, {storage});
  return record.request;
}

uint64_t Script::call(uint32_t method, std::vector<int64_t> args, bool wants_answer, std::vector<uint8_t> payload) {
  SkyRecord& record = add(SKY_RECORD_CALL);
  record.method = method;
  record.payload = keep(std::move(payload));
  if (wants_answer) record.request = next_request_++;
  ints_.push_back(std::move(args));
  record.args = ints_.back().data();
  record.n_args = static_cast<uint32_t>(ints_.back().size());
  return record.request;
}

void Script::send(uint32_t slot, uint64_t storage, std::vector<uint8_t> target, uint64_t n_bytes) {
  send_of({slot}, {storage}, std::move(target), n_bytes);
}

void Script::send_of(std::vector<uint32_t> slots, std::vector<uint64_t> storages, std::vector<uint8_t> target,
                     uint64_t n_bytes) {
  SkyRecord& record = add(SKY_RECORD_SEND);
  record.n_bytes = n_bytes;
  record.payload = keep(std::move(target));
  name_parts(record, std::move(slots), std::move(storages));
}

void Script::name_parts(SkyRecord& record, std::vector<uint32_t> slots, std::vector<uint64_t> storages) {
  slots_.push_back(std::move(slots));
  record.slots = slots_.back().data();
  name_storages(record, std::move(storages));
}

void Script::put(uint64_t storage, const at::Tensor& contiguous) {
  Shape s = shape(contiguous.sizes().vec(), contiguous.scalar_type());
  alloc(storage, contiguous.nbytes());
  const uint32_t slot = define(SKY_TEMPLATE_WRITE, "", {tensor(0, s)});
  write(slot, storage, bytes_of(contiguous));
}

uint64_t Script::get(uint64_t storage, const Shape& shape) {
  return read(define(SKY_TEMPLATE_READ, "", {tensor(0, shape)}), storage);
}

FakeServer::FakeServer(DeviceList devices) : devices_(std::move(devices)), api_(table()) {
  if (devices_.empty()) devices_ = find_devices();
}

SkyServerApi FakeServer::table() {
  SkyServerApi api{};
  api.abi_version = SKY_ABI_VERSION;
  api.size = sizeof(SkyServerApi);
  static const auto self = [](const void* pointer) {
    return reinterpret_cast<FakeServer*>(const_cast<void*>(pointer));
  };
  api.set_landing = [](const SkyServer* server, const SkyLandingApi* landing) {
    FakeServer* fake = self(server);
    {
      std::lock_guard lock(fake->mutex_);
      fake->landing_ = *landing;
    }
    fake->landing_set_.notify_all();
  };
  api.accept = [](const SkyServer* server, uint32_t, SkyServerSession** out, SkyError*) -> uint32_t {
    FakeServer* fake = self(server);
    if (fake->accepted_) return SKY_ERR_SESSION_CLOSED;
    fake->accepted_ = true;
    *out = reinterpret_cast<SkyServerSession*>(fake);
    return SKY_OK;
  };
  api.next = [](SkyServerSession* s, uint32_t, SkyBatch* out, SkyError*) -> uint32_t { return self(s)->next(out); };
  api.reply_bytes = [](SkyServerSession* s, uint64_t request, uint64_t total, const uint8_t* data, uint64_t n,
                       SkyError*) -> uint32_t {
    auto& bytes = self(s)->answers_[request].bytes;
    bytes.insert(bytes.end(), data, data + n);
    return bytes.size() <= total ? SKY_OK : SKY_ERR_PROTOCOL;
  };
  api.reply = [](SkyServerSession* s, uint64_t request, const SkyReply* reply, SkyError*) -> uint32_t {
    Answer& answer = self(s)->answers_[request];
    for (uint32_t i = 0; i < reply->n_geometries; ++i) {
      SkyGeometry g = reply->geometries[i];
      answer.dims.emplace_back(g.sizes, g.sizes + g.ndim);
      g.sizes = answer.dims.back().data();
      answer.dims.emplace_back(g.strides, g.strides + g.ndim);
      g.strides = answer.dims.back().data();
      answer.geometries.push_back(g);
    }
    answer.values.assign(reply->values, reply->values + reply->n_values);
    answer.bytes.assign(reply->bytes.data, reply->bytes.data + reply->bytes.size);
    return SKY_OK;
  };
  api.reply_error = [](SkyServerSession* s, uint64_t request, uint32_t code, SkyBytes message,
                       SkyError*) -> uint32_t {
    Answer& answer = self(s)->answers_[request];
    answer.code = code;
    answer.message.assign(reinterpret_cast<const char*>(message.data), message.size);
    return SKY_OK;
  };
  api.send = [](SkyServerSession* s, SkyBytes, const SkyBytes* pieces, uint32_t n_pieces, SkyError*) -> uint32_t {
    auto& sent = self(s)->sent;
    sent.clear();
    for (uint32_t i = 0; i < n_pieces; ++i) sent.insert(sent.end(), pieces[i].data, pieces[i].data + pieces[i].size);
    self(s)->n_pieces = n_pieces;
    return SKY_OK;
  };
  api.probe = [](SkyServerSession*, SkyBytes address) -> uint32_t { return address.size > 0 ? 1 : 0; };
  api.session_dead = [](const SkyServerSession* s) -> uint32_t { return self(s)->dead_ ? 1 : 0; };
  api.session_close = [](SkyServerSession* s, uint32_t code, SkyBytes message) {
    self(s)->close_code_ = code;
    self(s)->close_message_.assign(reinterpret_cast<const char*>(message.data), message.size);
  };
  return api;
}

uint32_t FakeServer::next(SkyBatch* out) {
  const auto& cuts = script_->cuts_;
  if (message_ > cuts.size()) {
    if (--repeats_left_ == 0) return SKY_ERR_SESSION_CLOSED;
    message_ = cuts.size();
  }
  if (auto it = script_->actions_.find(message_); it != script_->actions_.end()) it->second();
  const size_t begin = message_ == 0 ? 0 : cuts[message_ - 1];
  const size_t end = message_ == cuts.size() ? script_->records_.size() : cuts[message_];
  ++message_;
  *out = {script_->records_.data() + begin, static_cast<uint32_t>(end - begin)};
  return SKY_OK;
}

uint32_t FakeServer::run(Script& script) {
  script_ = &script;
  message_ = 0;
  repeats_left_ = script.repeats_;
  accepted_ = false;
  answers_.clear();
  close_code_ = SKY_OK;
  Executor(api_, devices_, namespaces, landings_, stats, max_storages).serve(as_server(this));
  return close_code_;
}

const Answer& FakeServer::answer(uint64_t request) const {
  static const Answer missing{SKY_ERR_INTERNAL, "no answer came", {}, {}, {}, {}};
  auto it = answers_.find(request);
  return it == answers_.end() ? missing : it->second;
}

at::Tensor FakeServer::tensor(uint64_t request, const Shape& shape) const {
  const Answer& got = answer(request);
  TORCH_CHECK(got.code == SKY_OK, "request ", request, " was answered with an error: ", got.message);
  auto result = at::empty(shape.sizes, shape.dtype);
  TORCH_CHECK(got.bytes.size() == result.nbytes(), "request ", request, " brought ", got.bytes.size(), " bytes");
  if (result.numel() > 0) std::memcpy(result.mutable_data_ptr(), got.bytes.data(), got.bytes.size());
  return result;
}

void FakeServer::wait_for_landing() {
  std::unique_lock lock(mutex_);
  landing_set_.wait(lock, [&] { return landing_.begin != nullptr; });
}

bool FakeServer::upload(uint64_t transfer, const std::vector<uint8_t>& bytes, uint64_t piece) {
  void* landing = landing_.begin(landing_.ctx, transfer, bytes.size());
  if (landing == nullptr) return false;
  for (uint64_t offset = 0; offset < bytes.size();) {
    uint64_t capacity = 0;
    uint8_t* window = landing_.window(landing, offset, &capacity);
    if (window == nullptr) {
      landing_.finish(landing, SKY_ERR_CONNECTION_LOST);
      return false;
    }
    const uint64_t n = std::min({capacity, piece, bytes.size() - offset});
    std::memcpy(window, bytes.data() + offset, n);
    landing_.commit(landing, offset, n);
    offset += n;
  }
  landing_.finish(landing, SKY_OK);
  return true;
}

}  // namespace skytorch::server::test
