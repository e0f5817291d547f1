// The hot path.
#include "op_runner.h"

#include "layouts.h"
#include "output.h"
#include "reply.h"

namespace skytorch::server {
namespace {

at::Scalar to_scalar(const SkyScalar& scalar) {
  switch (scalar.kind) {
    case SKY_SCALAR_INT:
      return scalar.integer;
    case SKY_SCALAR_FLOAT:
      return scalar.real;
    case SKY_SCALAR_COMPLEX:
      return c10::complex<double>(scalar.real, scalar.imag);
    case SKY_SCALAR_BOOL:
      return scalar.integer != 0;
    default:
      throw Failure(SKY_ERR_PROTOCOL, "scalar kind " + std::to_string(scalar.kind) + " is not known");
  }
}

void require_kind(const SkyScalar& scalar, uint8_t kind) {
  if (scalar.kind != kind) {
    throw Failure(SKY_ERR_PROTOCOL, "a scalar is of kind " + std::to_string(scalar.kind) + " and the template says " +
                                        std::to_string(kind));
  }
}

}  // namespace

void OpRunner::op(const OpTemplate& t, const SkyRecord& record) {
  const auto n_outputs = static_cast<uint32_t>(t.outputs.size());
  if (record.n_storages != t.n_storages + n_outputs || record.n_scalars != t.n_scalars) [[unlikely]] {
    throw ProtocolError("record " + std::to_string(record.sequence) + " of " + t.describe() +
                        " does not have its template's counts of storages and scalars");
  }
  try {
    if (t.rewrites_layouts) [[unlikely]]
      throw Failure(SKY_ERR_INVALID_ARGUMENT, "an operator that writes to a sparse tensor has to be a query");
    if (PoisonRef poison = gather(t, record)) [[unlikely]] {
      spread(t, record, poison, n_outputs);
      return;
    }
    call(t, record);
    store(t, record);
  } catch (const ProtocolError&) {
    throw;
  } catch (...) {
    stack_.clear();
    spread(t, record, session_.poisons.record(current_cause(), t.describe(), record.sequence), n_outputs);
  }
}

void OpRunner::query(const OpTemplate& t, const SkyRecord& record) {
  if (record.n_outputs > record.n_storages || record.n_storages - record.n_outputs != t.n_storages ||
      record.n_scalars != t.n_scalars) {
    throw ProtocolError("record " + std::to_string(record.sequence) + " of " + t.describe() +
                        " does not have its template's counts of storages and scalars");
  }
  PoisonRef poison;
  try {
    poison = gather(t, record);
    if (!poison) {
      call(t, record);
      answer(t, record);
      return;
    }
  } catch (const ProtocolError&) {
    throw;
  } catch (...) {
    stack_.clear();
    poison = session_.poisons.record(current_cause(), t.describe(), record.sequence);
  }
  // The client learns of it now, and makes no tensors of what did come back.
  for (uint32_t i = 0; i < record.n_outputs; ++i) session_.storages.erase(record.storages[t.n_storages + i]);
  poison->read = true;
  reply_error(session_, record.request, poison->cause);
}

std::string OpRunner::recent() const {
  std::string names;
  for (uint64_t i = n_calls_ > kRecent ? n_calls_ - kRecent : 0; i < n_calls_; ++i) {
    const uint32_t slot = recent_slots_[i % kRecent];
    if (!names.empty()) names += "; ";
    names += session_.templates[slot]->describe();
  }
  return names;
}

PoisonRef OpRunner::gather(const OpTemplate& t, const SkyRecord& record) {
  inputs_.resize(t.n_storages);
  if (t.broken.code != SKY_OK) [[unlikely]]
    throw Failure(t.broken.code, t.broken.message);
  PoisonRef poison;
  for (uint32_t i = 0; i < t.n_storages; ++i) {
    StorageEntry* entry = session_.storages.find(record.storages[i]);
    if (entry == nullptr) [[unlikely]] {
      throw Failure(SKY_ERR_PROTOCOL, "storage " + std::to_string(record.storages[i]) + " does not exist");
    }
    if (entry->poison != nullptr && poison == nullptr) [[unlikely]]
      poison = entry->poison;
    if (entry->device != t.device && !t.crosses_devices) [[unlikely]] {
      throw Failure(SKY_ERR_INVALID_ARGUMENT, "an input is on server device " + std::to_string(entry->device) +
                                                  " and the operator runs on " + std::to_string(t.device));
    }
    inputs_[i] = entry;
  }
  return poison;
}

// The operator may give each of them a size of its own.
void OpRunner::require_separate_outs(const OpTemplate& t) const {
  for (size_t i = 1; i < t.outs.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (inputs_[t.outs[i]] != inputs_[t.outs[j]]) continue;
      throw Failure(SKY_ERR_INVALID_ARGUMENT, "two outputs are in one storage; give each a tensor of its own");
    }
  }
}

at::Tensor OpRunner::tensor(const ArgStep& step, const OpTemplate& t) {
  StorageEntry& entry = *inputs_[step.index];
  const Geometry& geometry = *step.geometry;
  if (entry.geometry == geometry.id && (t.outs.empty() || step.out)) return entry.tensor;
  if (geometry.required_bytes > entry.n_bytes()) {
    throw Failure(SKY_ERR_INVALID_ARGUMENT, describe(geometry) + " at offset " + std::to_string(geometry.offset) +
                                                " does not fit a storage of " + std::to_string(entry.n_bytes()) +
                                                " bytes");
  }
  // An input may be the output too, and then keeps its size when the output is given another.
  if (!t.outs.empty() && !step.out) return make_view(session_.touch(entry), geometry);
  entry.tensor = make_view(session_.touch(entry), geometry);
  entry.geometry = geometry.id;
  return entry.tensor;
}

c10::IValue OpRunner::value(const ArgStep& step, const OpTemplate& t, const SkyRecord& record) {
  switch (step.fill) {
    case Fill::Constant:
      return step.constant;
    case Fill::Tensor:
      return tensor(step, t);
    case Fill::Double:
      require_kind(record.scalars[step.index], SKY_SCALAR_FLOAT);
      return record.scalars[step.index].real;
    case Fill::Scalar:
      require_kind(record.scalars[step.index], step.scalar_kind);
      return to_scalar(record.scalars[step.index]);
    case Fill::CpuScalar: {
      auto scalar = at::detail::scalar_tensor_static(to_scalar(record.scalars[step.index]), step.dtype, at::kCPU);
      if (step.wrapped) scalar.unsafeGetTensorImpl()->set_wrapped_number(true);
      return scalar;
    }
    case Fill::Generator: {
      const SkyScalar& scalar = record.scalars[step.index];
      require_kind(scalar, SKY_SCALAR_INT);
      if (scalar.integer == 0) return session_.devices[t.device]->default_generator();
      auto it = session_.generators.find(scalar.integer);
      if (it == session_.generators.end()) {
        throw Failure(SKY_ERR_PROTOCOL, "generator " + std::to_string(scalar.integer) + " does not exist");
      }
      return it->second;
    }
    case Fill::Layout:
      return layout(step, t);
    case Fill::List: {
      c10::impl::GenericList list(step.element_type);
      list.reserve(step.elements.size());
      for (const ArgStep& element : step.elements) list.push_back(value(element, t, record));
      return list;
    }
  }
  throw Failure(SKY_ERR_INTERNAL, "an argument step of unknown kind");
}

at::Tensor OpRunner::layout(const ArgStep& step, const OpTemplate& t) {
  std::vector<at::Tensor> parts;
  for (const ArgStep& element : step.elements) {
    // What is written to must not share memory with the storages: the operator may resize it.
    parts.push_back(step.mutated ? tensor(element, t).clone() : tensor(element, t));
  }
  at::Tensor whole = assemble(step, std::move(parts));
  if (step.mutated) rewritten_.push_back(whole);
  return whole;
}

void OpRunner::call(const OpTemplate& t, const SkyRecord& record) {
  session_.current_device.use(t.device);
  recent_slots_[n_calls_++ % kRecent] = record.slot;
  stack_.clear();
  if (!t.outs.empty()) require_separate_outs(t);
  if (t.rewrites_layouts) rewritten_.clear();
  for (const ArgStep& step : t.steps) {
    if (step.fill == Fill::Tensor) {
      stack_.emplace_back(tensor(step, t));
    } else if (step.fill == Fill::Constant) {
      stack_.emplace_back(step.constant);
    } else {
      stack_.emplace_back(value(step, t, record));
    }
  }
  if (t.guard != nullptr) [[unlikely]]
    t.guard(CallArguments(t.op->schema(), stack_));
  t.op->callBoxed(stack_);
  Stats::bump(session_.stats.ops_executed);
  if (!t.mutated.empty()) {
    for (const ArgStep& step : t.steps) check_mutated(step, t);
  }
}

// An out= operator whose result does not fit resizes what it was given. The client sized it, so that means that the
// two disagree; and the tensor is not what the entry says any more.
void OpRunner::check_mutated(const ArgStep& step, const OpTemplate& t) {
  for (const ArgStep& element : step.elements) check_mutated(element, t);
  if (step.fill != Fill::Tensor || !step.mutated) return;
  StorageEntry& entry = *inputs_[step.index];
  const Geometry& expected = *step.geometry;
  if (entry.geometry != expected.id) return;  // another view of the same storage came later; that one is checked
  const c10::TensorImpl* impl = entry.tensor.unsafeGetTensorImpl();
  if (impl->sizes() == at::IntArrayRef(expected.sizes) && impl->strides() == at::IntArrayRef(expected.strides) &&
      impl->storage_offset() == expected.offset) {
    return;
  }
  if (impl->numel() == 0 && impl->sizes() == at::IntArrayRef(expected.sizes)) {
    entry.geometry = 0;  // strides of nothing mean nothing; the next use makes its view anew
    return;
  }
  const std::string actual = describe(entry.tensor);
  entry.geometry = 0;
  session_.storages.account(entry);
  throw Failure(SKY_ERR_INTERNAL, "the operator resized an output to " + actual + " and the client expects " +
                                      describe(expected) + "; please report the operator and these shapes");
}

void OpRunner::store(const OpTemplate& t, const SkyRecord& record) {
  uint32_t output = 0;
  const auto n_outputs = static_cast<uint32_t>(t.outputs.size());
  for (size_t i = 0; i < t.returns.size() && output < n_outputs; ++i) {
    if (t.returns[i] == Return::Tensor) {
      store_one(t, record, output++, std::move(stack_[i]).toTensor());
    } else if (t.returns[i] == Return::TensorList) {
      std::vector<at::Tensor> results = std::move(stack_[i]).toTensorVector();
      if (results.size() > n_outputs - output) {
        throw Failure(SKY_ERR_INTERNAL, "the operator returned more tensors than the client expects");
      }
      for (at::Tensor& result : results) store_one(t, record, output++, std::move(result));
    }
  }
  stack_.clear();
  if (output != n_outputs) {
    throw Failure(SKY_ERR_INTERNAL, "the operator returned " + std::to_string(output) +
                                        " tensors and the client expects " + std::to_string(n_outputs));
  }
}

void OpRunner::store_one(const OpTemplate& t, const SkyRecord& record, uint32_t output, at::Tensor result) {
  const GeometryRef& expected = t.outputs[output];
  if (expected == nullptr) return;  // undefined, and nothing refers to its id
  const Device& device = *session_.devices[t.device];
  if (!is_exact(result, *expected, device.torch_device())) [[unlikely]] {
    result = make_exact(std::move(result), *expected, device);
  }
  StorageEntry& entry = session_.storages.create(record.storages[t.n_storages + output], t.device);
  entry.tensor = std::move(result);
  entry.geometry = expected->id;
  session_.storages.account(entry);
}

void OpRunner::spread(const OpTemplate& t, const SkyRecord& record, const PoisonRef& poison, uint32_t n_outputs) {
  for (uint32_t i = 0; i < n_outputs; ++i) {
    if (t.outputs[i] == nullptr && t.broken.code == SKY_OK) continue;  // undefined: nothing refers to its id
    const uint64_t id = record.storages[t.n_storages + i];
    StorageEntry* entry = session_.storages.find(id);
    if (entry == nullptr) entry = &session_.storages.create(id, t.device);
    if (entry->poison == nullptr) entry->poison = poison;
  }
  const auto taint = [&](uint32_t input) {
    StorageEntry* entry = session_.storages.find(record.storages[input]);
    if (entry != nullptr && entry->poison == nullptr) entry->poison = poison;
  };
  for (uint32_t input : t.mutated) taint(input);
  // A template that was never understood and returns nothing was meant to write to its inputs.
  if (t.broken.code != SKY_OK && n_outputs == 0) {
    for (uint32_t input = 0; input < t.n_storages; ++input) taint(input);
  }
}

void OpRunner::answer(const OpTemplate& t, const SkyRecord& record) {
  QueryReply reply;
  uint32_t output = 0;
  const c10::Device device = session_.devices[t.device]->torch_device();
  LayoutList layouts;
  const auto add_part = [&](at::Tensor result, uint8_t flags) {
    if (output == record.n_outputs) {
      throw Failure(SKY_ERR_LIMIT_EXCEEDED, "the operator returned more tensors than the client left ids for");
    }
    const uint64_t id = record.storages[t.n_storages + output++];
    if (!result.defined()) return reply.add_undefined(flags);
    result = make_exclusive(std::move(result), device);
    GeometryRef geometry = session_.geometries.intern(result);
    StorageEntry& entry = session_.storages.create(id, t.device);
    entry.tensor = std::move(result);
    entry.geometry = geometry->id;
    session_.storages.account(entry);
    reply.add(std::move(geometry), flags);
  };
  const auto add = [&](at::Tensor result, uint8_t flags) {
    layouts.add(result);
    if (!has_layout(result)) return add_part(std::move(result), flags);
    std::vector<at::Tensor> parts = take_apart(std::move(result));
    for (at::Tensor& part : parts) add_part(std::move(part), flags);
  };
  for (size_t i = 0; i < t.returns.size(); ++i) {
    switch (t.returns[i]) {
      case Return::Alias:
        break;
      case Return::Tensor:
        add(std::move(stack_[i]).toTensor(), 0);
        break;
      case Return::TensorList: {
        std::vector<at::Tensor> results = std::move(stack_[i]).toTensorVector();
        for (at::Tensor& result : results) add(std::move(result), SKY_GEOMETRY_IN_LIST);
        break;
      }
      case Return::Value:
        reply.add(stack_[i]);
        break;
    }
  }
  stack_.clear();
  if (t.rewrites_layouts) {
    for (at::Tensor& written : std::exchange(rewritten_, {})) add(std::move(written), 0);
  }
  if (layouts.any()) reply.add(layouts.values());
  reply.send(session_, record.request);
}

}  // namespace skytorch::server
