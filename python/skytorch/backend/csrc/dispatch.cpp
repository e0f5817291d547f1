// See dispatch.h.
#include "dispatch.h"

#include <ATen/Functions.h>
#include <ATen/native/Resize.h>

#include "encode.h"
#include "oracle/oracle.h"
#include "tensor.h"

namespace skytorch {

namespace {

// Most tensors that a query may return in a list whose length only the server knows.
constexpr size_t kMaxQueryOutputs = 64;

OutputSpec to_spec(const oracle::Output& output, const Call& call) {
  OutputSpec spec;
  spec.defined = output.defined;
  spec.in_list = output.in_list;
  if (!output.defined) {
    return spec;
  }
  if (c10::isQIntType(output.dtype)) {
    raise_unsupported(call.op()->name, "quantized tensors");
  }
  spec.dtype = output.dtype;
  spec.sizes.assign(output.sizes.begin(), output.sizes.end());
  spec.strides.assign(output.strides.begin(), output.strides.end());
  spec.n_bytes = bytes_of(spec.sizes, spec.strides, spec.dtype);
  spec.contiguous = spec.strides == at::DimVector(c10::contiguous_strides(spec.sizes));
  return spec;
}

void append(StreamLock& lock, Call& call, const Template& entry, Outcome& out) {
  Session& session = lock.session();
  auto& storages = call.storages();
  c10::SmallVector<StorageContext*, 8> fresh;
  for (size_t i = 0; i < entry.outputs.size(); ++i) {
    StorageContext* context = session.new_storage(call.device());
    fresh.push_back(context);
    storages.push_back(context->id);
  }
  SkyError error;
  const uint32_t code =
      session.api().op(session.wire(), entry.slot, storages.data(), static_cast<uint32_t>(storages.size()),
                       call.scalars().data(), static_cast<uint32_t>(call.scalars().size()), &error);
  if (C10_UNLIKELY(code != SKY_OK)) {
    for (StorageContext* context : fresh) {
      session.forget_storage(context);
    }
    raise(code, error);
  }
  for (size_t i = 0; i < fresh.size(); ++i) {
    const OutputSpec& spec = entry.outputs[i];
    if (C10_LIKELY(spec.defined)) {
      out.tensors.push_back(make_output(fresh[i], spec));
    } else {
      session.forget_storage(fresh[i]);
      out.tensors.emplace_back();
    }
    out.in_list.push_back(spec.in_list);
  }
}

// One round trip: the answer's geometry makes the tensors.
void query(StreamLock& lock, Call& call, const Template& entry, Outcome& out) {
  Session& session = lock.session();
  const Operator& op = *call.op();
  const size_t n = op.returns_list ? kMaxQueryOutputs : op.n_fresh;
  auto& storages = call.storages();
  std::vector<StorageContext*> fresh;
  for (size_t i = 0; i < n; ++i) {
    fresh.push_back(session.new_storage(call.device()));
    storages.push_back(fresh.back()->id);
  }
  Reply reply(session.api());
  SkyError error;
  const uint32_t code = session.api().query(
      session.wire(), entry.slot, storages.data(), static_cast<uint32_t>(storages.size()), static_cast<uint32_t>(n),
      call.scalars().data(), static_cast<uint32_t>(call.scalars().size()), reply.out(), &error);
  lock.consumed();
  const size_t n_made = code == SKY_OK ? reply->n_geometries : 0;
  for (size_t i = 0; i < n; ++i) {
    const SkyGeometry* geometry = i < n_made ? &reply->geometries[i] : nullptr;
    if (geometry == nullptr || geometry->dtype == SKY_DTYPE_UNDEFINED) {
      fresh[i]->next = nullptr;
      ContextPool::get().give(fresh[i]);
      if (geometry != nullptr) {
        out.tensors.emplace_back();
        out.in_list.push_back(false);
      }
      continue;
    }
    OutputSpec spec;
    spec.dtype = static_cast<at::ScalarType>(geometry->dtype);
    spec.sizes.assign(geometry->sizes, geometry->sizes + geometry->ndim);
    spec.strides.assign(geometry->strides, geometry->strides + geometry->ndim);
    spec.n_bytes = bytes_of(spec.sizes, spec.strides, spec.dtype);
    out.tensors.push_back(make_output(fresh[i], spec));
    out.in_list.push_back((geometry->flags & SKY_GEOMETRY_IN_LIST) != 0);
  }
  check(code, error);
  TORCH_CHECK(n_made <= n && (op.returns_list || n_made == n), "sky: operator ", op.name, " returned ", n_made,
              " tensors where ", n, " were expected");
  out.values.assign(reply->values, reply->values + reply->n_values);
}

void send(StreamLock& lock, Call& call, const Template& entry, Outcome& out) {
  lock.session().sync_flags(*call.op());
  if (C10_LIKELY(entry.action == Action::Append)) {
    append(lock, call, entry, out);
  } else {
    query(lock, call, entry, out);
  }
}

void define(Session& session, const Call& call, const torch::jit::Stack& args, const Template& entry) {
  try {
    const TemplateEncoder encoder(call, args, entry.outputs);
    SkyError error;
    check(session.api().define(session.wire(), entry.slot, &encoder.result(), &error), error);
  } catch (...) {
    // The next call with this key must not take it for one that the server knows.
    session.templates().erase(entry);
    throw;
  }
}

// The written tensors in the order of the returns.
std::vector<at::Tensor> returned_arguments(const Operator& op, const torch::jit::Stack& args) {
  std::vector<at::Tensor> tensors;
  for (const Return& r : op.returns) {
    if (r.alias >= 0 && !r.is_list) {
      tensors.push_back(args[static_cast<size_t>(r.alias)].toTensor());
    }
  }
  return tensors;
}

void resize_outs(const Operator& op, const torch::jit::Stack& args, const std::vector<OutputSpec>& specs) {
  const auto outs = returned_arguments(op, args);
  for (size_t i = 0; i < outs.size() && i < specs.size(); ++i) {
    if (at::native::resize_output(outs[i], specs[i].sizes) && !specs[i].contiguous) {
      outs[i].as_strided_(specs[i].sizes, specs[i].strides);
    }
  }
}

struct Plan {
  Action action = Action::Append;
  std::vector<OutputSpec> outputs;
};

// Asks the oracle. No lock held: it may need the GIL.
Plan make_plan(const Call& call, const torch::jit::Stack& args) {
  const Operator& op = *call.op();
  for (size_t i = 0; i < args.size(); ++i) {
    if (op.args[i] == ArgKind::Dtype && !args[i].isNone() && c10::isQIntType(args[i].toScalarType())) {
      raise_unsupported(op.name, "quantized tensors");
    }
  }
  Plan plan;
  if (op.first_out >= 0 && op.args[static_cast<size_t>(op.first_out)] == ArgKind::TensorList) {
    plan.action = Action::Twin;
    return plan;
  }
  std::vector<oracle::Output> outputs;
  const auto source = oracle::infer(op.handle, args, {call.device().is_cuda()}, outputs);
  if (source == oracle::Source::Server || op.returns_values) {
    plan.action = op.first_out >= 0 && !op.returns_values ? Action::Twin : Action::Query;
    return plan;
  }
  for (const oracle::Output& output : outputs) {
    plan.outputs.push_back(to_spec(output, call));
  }
  if (!op.returns_aliases) {
    return plan;
  }
  // What came back describes the arguments that are given back: they must have that shape before the server writes.
  const auto written = returned_arguments(op, args);
  bool resize = false;
  for (size_t i = 0; i < written.size() && i < plan.outputs.size(); ++i) {
    resize |= plan.outputs[i].defined && written[i].sizes() != at::IntArrayRef(plan.outputs[i].sizes);
  }
  if (resize) {
    plan.action = Action::Resize;
  } else {
    plan.outputs.clear();
  }
  return plan;
}

Template& remember(StreamLock& lock, const Call& call, const torch::jit::Stack& args, Plan& plan) {
  TemplateCache& cache = lock.session().templates();
  // Another thread may have been here while the oracle was asked.
  if (Template* known = cache.find(call.hash(), call.key(), call.key_words())) {
    return *known;
  }
  Template& entry = cache.insert(call.hash(), call.key(), call.key_words());
  entry.action = plan.action;
  entry.outputs = std::move(plan.outputs);
  if (entry.action == Action::Append || entry.action == Action::Query) {
    define(lock.session(), call, args, entry);
  }
  return entry;
}

// Index tensors on the CPU go to the device of the tensor that they index.
void upload_indices(torch::jit::Stack& stack, const Operator& op) {
  const size_t first = stack.size() - op.args.size();
  const at::Device device = stack[first].toTensor().device();
  for (size_t i = 0; i < op.args.size(); ++i) {
    c10::IValue& value = stack[first + i];
    if (op.args[i] != ArgKind::OptionalTensorList && op.args[i] != ArgKind::TensorList) {
      continue;
    }
    c10::List<std::optional<at::Tensor>> list;
    bool changed = false;
    for (const c10::IValue& element : value.toListRef()) {
      std::optional<at::Tensor> tensor = element.isNone() ? std::nullopt : std::optional(element.toTensor());
      if (tensor.has_value() && tensor->defined() && tensor->is_cpu()) {
        tensor = tensor->to(device);
        changed = true;
      }
      list.push_back(std::move(tensor));
    }
    if (changed) {
      value = std::move(list);
    }
  }
}

// `zeros_like(x, device=elsewhere)`: only the geometry of x matters, so that an empty stand-in there does the work.
bool redirect(const Operator& op, torch::jit::Stack& stack) {
  const size_t first = stack.size() - op.args.size();
  const c10::IValue& wanted = stack[first + static_cast<size_t>(op.device_arg)];
  c10::IValue& self = stack[first + static_cast<size_t>(op.first_tensor_arg)];
  if (self.isTensor() && self.toTensor()._is_zerotensor()) {
    self = at::empty(self.toTensor().sizes(), self.toTensor().options());
  }
  if (wanted.isNone()) {
    return false;
  }
  c10::Device target = wanted.toDevice();
  if (target.type() == c10::DeviceType::PrivateUse1 && !target.has_index()) {
    target = Registry::get().at(-1).device();
  }
  const at::Tensor tensor = self.toTensor();
  if (tensor.device() == target) {
    return false;
  }
  if (op.name.rfind("aten::linspace", 0) == 0 || op.name.rfind("aten::logspace", 0) == 0) {
    // Of these the values matter.
    for (size_t i = first; i < stack.size(); ++i) {
      if (stack[i].isTensor()) {
        stack[i] = stack[i].toTensor().to(target);
      }
    }
  } else {
    self = at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(target));
  }
  op.handle.callBoxed(stack);
  return true;
}

void collect(const c10::IValue& value, std::vector<at::Tensor>& tensors) {
  if (value.isTensor()) {
    tensors.push_back(value.toTensor());
    return;
  }
  for (const c10::IValue& element : value.toListRef()) {
    tensors.push_back(element.toTensor());
  }
}

c10::IValue to_value(const SkyScalar& scalar, c10::TypeKind type) {
  switch (type) {
    case c10::TypeKind::BoolType:
      return scalar.integer != 0;
    case c10::TypeKind::FloatType:
      return scalar.real;
    case c10::TypeKind::NumberType:
      return scalar.kind == SKY_SCALAR_FLOAT ? c10::IValue(scalar.real) : c10::IValue(scalar.integer);
    default:
      return scalar.integer;
  }
}

}  // namespace

// `nonzero(x, out=o)`: only the server knows the shape, so that the result is made there and then copied into `o`.
// Also for out= lists, which nobody gives the right sizes beforehand.
void run_twin(const Operator& op, torch::jit::Stack& stack) {
  const auto twin = functional_twin(op);
  if (!twin.has_value()) {
    raise_unsupported(op.name, "out= arguments whose shapes the client cannot know");
  }
  const size_t first = stack.size() - op.args.size();
  const std::vector<c10::IValue> given(stack.begin() + static_cast<int64_t>(first) + op.first_out, stack.end());
  torch::jit::drop(stack, given.size());
  twin->callBoxed(stack);
  std::vector<at::Tensor> outs;
  std::vector<at::Tensor> results;
  for (const c10::IValue& value : given) {
    collect(value, outs);
  }
  for (size_t i = first; i < stack.size(); ++i) {
    collect(stack[i], results);
  }
  torch::jit::drop(stack, stack.size() - first);
  TORCH_CHECK(outs.size() == results.size(), op.name, " makes ", results.size(), " tensors, but out= holds ",
              outs.size());
  for (size_t i = 0; i < outs.size(); ++i) {
    TORCH_CHECK(outs[i].scalar_type() == results[i].scalar_type(), "Expected out tensor to have dtype ",
                results[i].dtype(), ", but got ", outs[i].dtype(), " instead");
    const bool resized = outs[i].layout() == at::kStrided && at::native::resize_output(outs[i], results[i].sizes());
    if (resized && results[i].numel() > 0) {
      // Its strides may leave gaps, for which the memory must be there.
      const at::IntArrayRef sizes = results[i].sizes(), strides = results[i].strides();
      const uint64_t span = bytes_of(sizes, strides, results[i].scalar_type()) / results[i].itemsize();
      outs[i].resize_({static_cast<int64_t>(span)}).as_strided_(sizes, strides);
    }
    outs[i].copy_(results[i]);
  }
  for (const Return& r : op.returns) {
    stack.push_back(given[static_cast<size_t>(r.alias - op.first_out)]);
  }
}

void push_returns(const Operator& op, torch::jit::Stack& stack, Outcome& out) {
  const size_t first = stack.size() - op.args.size();
  c10::SmallVector<c10::IValue, 4> returns;
  size_t tensor = 0;
  size_t value = 0;
  size_t n_lists = 0;
  for (const Return& r : op.returns) {
    n_lists += r.alias < 0 && r.is_list;
  }
  const auto n_listed = static_cast<size_t>(std::count(out.in_list.begin(), out.in_list.end(), true));
  for (const Return& r : op.returns) {
    if (r.alias >= 0) {
      returns.push_back(stack[first + static_cast<size_t>(r.alias)]);
    } else if (!r.is_tensor()) {
      TORCH_CHECK(value < out.values.size(), "sky: the server did not return every value of ", op.name);
      returns.push_back(to_value(out.values[value++], r.type));
    } else if (r.is_list) {
      // Several lists of one operator are equally long (fused optimizers).
      c10::List<at::Tensor> list;
      for (size_t i = 0; i < n_listed / n_lists; ++i) {
        list.push_back(std::move(out.tensors[tensor++]));
      }
      returns.emplace_back(std::move(list));
    } else {
      TORCH_CHECK(tensor < out.tensors.size(), "sky: the server did not return every tensor of ", op.name);
      returns.emplace_back(std::move(out.tensors[tensor++]));
    }
  }
  torch::jit::drop(stack, op.args.size());
  for (c10::IValue& result : returns) {
    stack.push_back(std::move(result));
  }
}

const Template& template_of(StreamLock& lock, const Call& call, const torch::jit::Stack& args, Action action,
                            std::vector<OutputSpec> outputs) {
  Plan plan;
  plan.action = action;
  plan.outputs = std::move(outputs);
  return remember(lock, call, args, plan);
}

void send_plain(StreamLock& lock, Call& call, const Template& entry, Outcome& out) {
  lock.session().sync_flags(*call.op());
  append(lock, call, entry, out);
}

bool submit_known(Call& call, Outcome& out) {
  StreamLock lock(call.device().session());
  const Template* entry = lock.session().templates().find(call.hash(), call.key(), call.key_words());
  if (C10_UNLIKELY(entry == nullptr || entry->action == Action::Resize || entry->action == Action::Twin)) {
    return false;
  }
  send(lock, call, *entry, out);
  return true;
}

Sent submit(Call& call, const torch::jit::Stack& args, Outcome& out) {
  Plan plan = make_plan(call, args);
  std::vector<OutputSpec> resize;
  {
    StreamLock lock(call.device().session());
    const Template& entry = remember(lock, call, args, plan);
    if (entry.action == Action::Twin) {
      return Sent::Twin;
    }
    if (entry.action != Action::Resize) {
      send(lock, call, entry, out);
      return Sent::Yes;
    }
    resize = entry.outputs;
  }
  resize_outs(*call.op(), args, resize);
  return Sent::Resized;
}

uint32_t transfer_slot(StreamLock& lock, const Call& call, const at::Tensor& tensor) {
  TemplateCache& cache = lock.session().templates();
  if (const Template* known = cache.find(call.hash(), call.key(), call.key_words())) {
    return known->slot;
  }
  Template& entry = cache.insert(call.hash(), call.key(), call.key_words());
  define(lock.session(), call, {tensor}, entry);
  return entry.slot;
}

void run_boxed(const Operator& op, torch::jit::Stack& stack) {
  const size_t n_args = op.args.size();
  if (C10_UNLIKELY(op.cpu_indices)) {
    upload_indices(stack, op);
  }
  if (C10_UNLIKELY(op.device_arg >= 0 && op.first_tensor_arg >= 0) && redirect(op, stack)) {
    return;
  }
  Outcome out;
  for (Sent sent = Sent::Resized; sent != Sent::Yes;) {
    Call call(op);
    const c10::IValue* args = stack.data() + (stack.size() - n_args);
    for (size_t i = 0; i < n_args; ++i) {
      call.add(args[i], op.args[i]);
    }
    call.finish();
    if (C10_LIKELY(submit_known(call, out))) {
      break;
    }
    sent = submit(call, torch::jit::Stack(args, args + n_args), out);
    if (sent == Sent::Twin) {
      run_twin(op, stack);
      return;
    }
  }
  push_returns(op, stack, out);
}

}  // namespace skytorch
