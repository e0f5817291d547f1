// A SkyClientApi table without a wire: it counts what it is given and keeps the bytes that are written, so that the
// device can be tested and timed alone. No operator runs: a storage that only an operator filled reads as zeros.
// Python reaches it through torch.ops.skytorch_fake.
#include <skytorch/wire.h>
#include <torch/library.h>

#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

struct Recorder {
  std::mutex stream;
  std::mutex log_mutex;
  // What came since `reset`, one line per record; empty lines are not kept while `quiet`.
  std::vector<std::string> log;
  bool quiet = false;
  int64_t n_ops = 0;
  int64_t n_defines = 0;
  int64_t n_frees = 0;
  int64_t n_allocs = 0;
  std::unordered_map<uint32_t, std::string> names;
  std::unordered_map<uint64_t, std::vector<uint8_t>> bytes;

  void note(std::string line) {
    if (!quiet) {
      std::lock_guard<std::mutex> hold(log_mutex);
      log.push_back(std::move(line));
    }
  }
};

Recorder& recorder() {
  static Recorder instance;
  return instance;
}

std::string text(SkyBytes bytes) { return {reinterpret_cast<const char*>(bytes.data), bytes.size}; }

void keep(const SkySession* /*s*/) {}
uint32_t lock(const SkySession* /*s*/, SkyError* /*err*/) {
  recorder().stream.lock();
  return SKY_OK;
}
void unlock(const SkySession* /*s*/) { recorder().stream.unlock(); }
uint32_t define(const SkySession* /*s*/, uint32_t slot, const SkyTemplate* t, SkyError* /*err*/) {
  Recorder& r = recorder();
  ++r.n_defines;
  r.names[slot] = t->kind == SKY_TEMPLATE_OP ? text(t->name) : (t->kind == SKY_TEMPLATE_READ ? "read" : "write");
  r.note("define " + r.names[slot] + " args=" + std::to_string(t->n_args) +
         " outputs=" + std::to_string(t->n_outputs) + " storages=" + std::to_string(t->n_storages) +
         " scalars=" + std::to_string(t->n_scalars));
  return SKY_OK;
}
uint32_t op(const SkySession* /*s*/, uint32_t slot, const uint64_t* storages, uint32_t n_storages,
            const SkyScalar* /*scalars*/, uint32_t n_scalars, SkyError* /*err*/) {
  Recorder& r = recorder();
  ++r.n_ops;
  if (!r.quiet) {
    std::string line = "op " + r.names[slot] + " scalars=" + std::to_string(n_scalars);
    for (uint32_t i = 0; i < n_storages; ++i) {
      line += " " + std::to_string(storages[i]);
    }
    r.note(std::move(line));
  }
  return SKY_OK;
}
uint32_t alloc(const SkySession* /*s*/, uint64_t storage, uint64_t n_bytes, uint32_t device, SkyError* /*err*/) {
  ++recorder().n_allocs;
  recorder().note("alloc " + std::to_string(storage) + " bytes=" + std::to_string(n_bytes) +
                  " device=" + std::to_string(device));
  return SKY_OK;
}
uint32_t resize(const SkySession* /*s*/, uint64_t storage, uint64_t n_bytes, SkyError* /*err*/) {
  recorder().note("resize " + std::to_string(storage) + " bytes=" + std::to_string(n_bytes));
  return SKY_OK;
}
uint32_t free_storages(const SkySession* /*s*/, const uint64_t* storages, uint32_t n, SkyError* /*err*/) {
  Recorder& r = recorder();
  r.n_frees += n;
  for (uint32_t i = 0; i < n; ++i) {
    r.bytes.erase(storages[i]);
    r.note("free " + std::to_string(storages[i]));
  }
  return SKY_OK;
}
uint32_t call(const SkySession* /*s*/, uint32_t method, const int64_t* args, uint32_t n_args, SkyBytes /*payload*/,
              SkyError* /*err*/) {
  std::string line = "call " + std::to_string(method);
  for (uint32_t i = 0; i < n_args; ++i) {
    line += " " + std::to_string(args[i]);
  }
  recorder().note(std::move(line));
  return SKY_OK;
}
uint32_t ask(const SkySession* s, uint32_t method, const int64_t* args, uint32_t n_args, SkyBytes payload,
             SkyReply** reply, SkyError* err) {
  call(s, method, args, n_args, payload, err);
  *reply = new SkyReply{};
  recorder().stream.unlock();
  return SKY_OK;
}
uint32_t query(const SkySession* /*s*/, uint32_t slot, const uint64_t* /*storages*/, uint32_t /*n_storages*/,
               uint32_t /*n_outputs*/, const SkyScalar* /*scalars*/, uint32_t /*n_scalars*/, SkyReply** reply,
               SkyError* err) {
  recorder().note("query " + recorder().names[slot]);
  *reply = nullptr;
  recorder().stream.unlock();
  err->code = SKY_ERR_NOT_SUPPORTED;
  std::strcpy(reinterpret_cast<char*>(err->message), "the fake wire answers no query");
  return SKY_ERR_NOT_SUPPORTED;
}
void reply_free(SkyReply* reply) { delete reply; }
uint32_t read(const SkySession* /*s*/, uint32_t /*slot*/, uint64_t storage, uint8_t* dst, uint64_t n_bytes,
              SkyError* /*err*/) {
  Recorder& r = recorder();
  r.note("read " + std::to_string(storage) + " bytes=" + std::to_string(n_bytes));
  const auto found = r.bytes.find(storage);
  std::memset(dst, 0, n_bytes);
  if (found != r.bytes.end()) {
    std::memcpy(dst, found->second.data(), std::min<uint64_t>(n_bytes, found->second.size()));
  }
  r.stream.unlock();
  return SKY_OK;
}
uint32_t write(const SkySession* /*s*/, uint32_t /*slot*/, uint64_t storage, const uint8_t* src, uint64_t n_bytes,
               SkyRelease release, void* ctx, SkyError* /*err*/) {
  Recorder& r = recorder();
  r.note("write " + std::to_string(storage) + " bytes=" + std::to_string(n_bytes));
  r.bytes[storage].assign(src, src + n_bytes);
  r.stream.unlock();
  if (release != nullptr) {
    release(ctx);
  }
  return SKY_OK;
}
uint32_t send_between(const SkySession* /*src*/, uint32_t /*src_slot*/, uint64_t src_storage,
                      const SkySession* /*dst*/, uint32_t /*dst_slot*/, uint64_t dst_storage, uint64_t /*n_bytes*/,
                      SkyError* /*err*/) {
  recorder().bytes[dst_storage] = recorder().bytes[src_storage];
  return SKY_OK;
}
uint32_t can_send(const SkySession* /*src*/, const SkySession* /*dst*/, uint32_t* can, SkyError* /*err*/) {
  *can = 0;
  return SKY_OK;
}
void flush(const SkySession* /*s*/) {}
uint32_t slots(const SkySession* /*s*/) { return 65536; }
void stats(const SkySession* /*s*/, SkyStats* out) { *out = {}; }

int64_t api() {
  static const SkyClientApi table = {SKY_ABI_VERSION,
                                     sizeof(SkyClientApi),
                                     keep,
                                     keep,
                                     lock,
                                     unlock,
                                     define,
                                     op,
                                     alloc,
                                     resize,
                                     free_storages,
                                     call,
                                     ask,
                                     query,
                                     reply_free,
                                     read,
                                     write,
                                     send_between,
                                     can_send,
                                     flush,
                                     stats,
                                     slots};
  return reinterpret_cast<int64_t>(&table);
}

std::vector<std::string> take_log() {
  Recorder& r = recorder();
  std::lock_guard<std::mutex> hold(r.log_mutex);
  return std::exchange(r.log, {});
}
void set_quiet(bool quiet) { recorder().quiet = quiet; }
std::vector<int64_t> counts() {
  const Recorder& r = recorder();
  return {r.n_ops, r.n_defines, r.n_frees, r.n_allocs};
}

TORCH_LIBRARY(skytorch_fake, m) {
  m.def("api() -> int", TORCH_FN(api));
  m.def("take_log() -> str[]", TORCH_FN(take_log));
  m.def("set_quiet(bool quiet) -> ()", TORCH_FN(set_quiet));
  m.def("counts() -> int[]", TORCH_FN(counts));
}

}  // namespace
