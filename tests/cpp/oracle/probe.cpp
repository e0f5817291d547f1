// Python module for the oracle's tests: infer() on stand-ins of real tensors.
// The stand-ins are PrivateUse1 tensors without any kernel, whose memory is mapped without access. So an oracle that
// calls another operator on an argument, or reads one, fails here at once.
#include <ATen/core/LegacyTypeDispatch.h>
#include <sys/mman.h>
#include <torch/csrc/jit/python/pybind_utils.h>
#include <torch/csrc/utils/pybind.h>

#include <chrono>
#include <unordered_map>

#include "../../../python/skytorch/backend/csrc/oracle/oracle.h"

namespace {

using namespace skytorch::oracle;

// Makes stand-ins; tensors that shared a storage share one again, at the same distances.
class StandIns {
 public:
  at::Tensor tensor(const at::Tensor& t) {
    // 0-dim numbers from Python are CPU tensors beside a real device too.
    if (!t.defined() || t.unsafeGetTensorImpl()->is_wrapped_number() || t.layout() != at::kStrided) return t;
    auto impl = c10::make_intrusive<c10::TensorImpl>(storage(t.storage()),
                                                     c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), t.dtype());
    impl->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
    at::Tensor made(std::move(impl));
    made._set_conj(t.is_conj());
    made._set_neg(t.is_neg());
    return made;
  }

  at::IValue value(const at::IValue& v) {
    if (v.isTensor()) return tensor(v.toTensor());
    if (v.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& t : v.toTensorVector()) list.push_back(tensor(t));
      return list;
    }
    if (v.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const auto& t : v.toOptionalTensorVector()) list.push_back(t ? std::optional(tensor(*t)) : std::nullopt);
      return list;
    }
    if (v.isDevice()) return c10::Device(c10::kPrivateUse1, 0);
    return v;
  }

 private:
  c10::Storage storage(const c10::Storage& of) {
    const auto found = storages_.find(of.unsafeGetStorageImpl());
    if (found != storages_.end()) return found->second;
    static char* next = static_cast<char*>(
        mmap(nullptr, size_t(1) << 44, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    c10::DataPtr data(next, c10::Device(c10::kPrivateUse1, 0));
    next += (of.nbytes() + 127) / 64 * 64;
    c10::Storage made(c10::Storage::use_byte_size_t(), of.nbytes(), std::move(data), nullptr, false);
    storages_.emplace(of.unsafeGetStorageImpl(), made);
    return made;
  }
  std::unordered_map<const void*, c10::Storage> storages_;
};

struct Prepared {
  Prepared(const std::string& name, const std::string& overload, const py::args& args, const py::kwargs& kwargs)
      : op(c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), overload.c_str())) {
    for (const auto& v : torch::jit::createStackForSchema(op.schema(), args, kwargs, std::nullopt)) {
      stack.push_back(stand_ins.value(v));
    }
  }
  c10::OperatorHandle op;
  StandIns stand_ins;
  torch::jit::Stack stack;
};

const char* name_of(Source source) {
  switch (source) {
    case Source::Structured:
      return "structured";
    case Source::Rule:
      return "rule";
    case Source::Dispatcher:
      return "dispatcher";
    case Source::Server:
      return "server";
  }
  return "?";
}

py::tuple ask(const std::string& name, const std::string& overload, bool server_is_cuda, const py::args& args,
              const py::kwargs& kwargs) {
  Prepared q(name, overload, args, kwargs);
  std::vector<Output> out;
  Source source;
  {
    // As in the boxed kernel of a backend.
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    py::gil_scoped_release no_gil;
    source = infer(q.op, q.stack, Target{server_is_cuda}, out);
  }
  py::list outputs;
  for (const Output& o : out) {
    const std::vector<int64_t> sizes(o.sizes.begin(), o.sizes.end());
    const std::vector<int64_t> strides(o.strides.begin(), o.strides.end());
    const py::object dtype = o.defined ? py::cast(o.dtype) : py::none();
    outputs.append(py::make_tuple(o.defined, o.in_list, dtype, sizes, strides));
  }
  return py::make_tuple(name_of(source), outputs);
}

// Nanoseconds for one infer(), the best of five runs of `times`.
double cost_ns(const std::string& name, const std::string& overload, int64_t times, const py::args& args,
               const py::kwargs& kwargs) {
  Prepared q(name, overload, args, kwargs);
  std::vector<Output> out;
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  double best = 1e18;
  for (int run = 0; run < 5; ++run) {
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < times; ++i) infer(q.op, q.stack, Target{}, out);
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count() / static_cast<double>(times));
  }
  return best;
}

}  // namespace

PYBIND11_MODULE(_oracle_probe, m) {
  m.def("ask", &ask);
  m.def("cost_ns", &cost_ns);
  m.def("report", &report);
  m.def("reset_report", &reset_report);
}
