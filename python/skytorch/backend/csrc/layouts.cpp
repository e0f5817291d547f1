// See layouts.h.
#include "layouts.h"

#include <ATen/SparseCsrTensorImpl.h>
#include <ATen/SparseCsrTensorUtils.h>
#include <ATen/SparseTensorImpl.h>

#include "tensor.h"

namespace skytorch {

namespace {

// Components of one tensor, at most.
constexpr size_t kMostComponents = 3;
// Results in a list whose length only the server knows.
constexpr size_t kMostListed = 64;

const at::SparseTensorImpl* coo_of(const c10::TensorImpl& impl) {
  return impl.layout() == at::kSparse ? static_cast<const at::SparseTensorImpl*>(&impl) : nullptr;
}

// Reads an answer: which layout each tensor has, and its components.
class Answer {
 public:
  Answer(const Operator& op, const SkyReply& reply, const std::vector<StorageContext*>& fresh)
      : op_(op), reply_(reply), fresh_(fresh) {
    for (const Return& r : op.returns) {
      n_plain_ += !r.is_tensor();
    }
    next_value_ = n_plain_;
    require(reply.n_values >= n_plain_ && reply.n_geometries <= fresh.size());
  }

  std::vector<SkyScalar> plain_values() const { return {reply_.values, reply_.values + n_plain_}; }
  bool at_end() const { return next_geometry_ == reply_.n_geometries; }
  bool next_is_in_list() const { return (reply_.geometries[next_geometry_].flags & SKY_GEOMETRY_IN_LIST) != 0; }

  at::Tensor next() {
    const bool described = reply_.n_values > n_plain_;
    const auto layout = described ? static_cast<at::Layout>(value()) : at::kStrided;
    if (layout == at::kStrided) {
      return component();
    }
    const int64_t n_dims = value();
    require(n_dims >= 0 && n_dims <= 64);
    at::DimVector sizes;
    for (int64_t i = 0; i < n_dims; ++i) {
      sizes.push_back(value());
    }
    const bool coalesced = value() != 0;
    const at::Tensor first = component();
    const at::Tensor second = component();
    if (layout == at::kSparse) {
      return at::_sparse_coo_tensor_unsafe(first, second, sizes, second.options().layout(layout), coalesced);
    }
    const at::Tensor values = component();
    return at::_sparse_compressed_tensor_unsafe(first, second, values, sizes, values.options().layout(layout));
  }

 private:
  void require(bool holds) const {
    TORCH_CHECK(holds, "sky: the server's answer to ", op_.name, " does not describe its tensors");
  }
  int64_t value() {
    require(next_value_ < reply_.n_values);
    return reply_.values[next_value_++].integer;
  }
  at::Tensor component() {
    require(next_geometry_ < reply_.n_geometries);
    StorageContext* context = fresh_[next_geometry_];
    const SkyGeometry& geometry = reply_.geometries[next_geometry_++];
    if (geometry.dtype == SKY_DTYPE_UNDEFINED) {
      context->next = nullptr;
      ContextPool::get().give(context);
      return {};
    }
    OutputSpec spec;
    spec.dtype = static_cast<at::ScalarType>(geometry.dtype);
    spec.sizes.assign(geometry.sizes, geometry.sizes + geometry.ndim);
    spec.strides.assign(geometry.strides, geometry.strides + geometry.ndim);
    spec.n_bytes = bytes_of(spec.sizes, spec.strides, spec.dtype);
    return make_output(context, spec);
  }

  const Operator& op_;
  const SkyReply& reply_;
  const std::vector<StorageContext*>& fresh_;
  size_t n_plain_ = 0;
  size_t next_value_ = 0;
  uint32_t next_geometry_ = 0;
};

void give_back(const std::vector<StorageContext*>& contexts, size_t from) {
  for (size_t i = from; i < contexts.size(); ++i) {
    contexts[i]->next = nullptr;
    ContextPool::get().give(contexts[i]);
  }
}

// The tensors of another layout among what the operator writes to.
std::vector<at::Tensor> written_layouts(const Operator& op, const torch::jit::Stack& args) {
  std::vector<at::Tensor> written;
  for (size_t i = 0; i < args.size(); ++i) {
    if (op.written[i] && args[i].isTensor() && args[i].toTensor().defined() &&
        args[i].toTensor().layout() != at::kStrided) {
      written.push_back(args[i].toTensor());
    }
  }
  return written;
}

// `written` becomes what the server made of it.
void rewrite(const at::Tensor& written, const at::Tensor& made) {
  if (written.layout() == at::kSparse) {
    auto* impl = static_cast<at::SparseTensorImpl*>(written.unsafeGetTensorImpl());
    impl->raw_resize_(made.sparse_dim(), made.dense_dim(), made.sizes());
    impl->set_indices_and_values_unsafe(made._indices(), made._values());
    impl->set_coalesced(made.is_coalesced());
    return;
  }
  auto* impl = static_cast<at::SparseCsrTensorImpl*>(written.unsafeGetTensorImpl());
  const auto* other = static_cast<const at::SparseCsrTensorImpl*>(made.unsafeGetTensorImpl());
  impl->set_member_tensors(other->compressed_indices(), other->plain_indices(), other->values(), made.sizes());
}

// All tensors have the sizes and dtype of the first, so that nothing can be wrong with an operator that only adds one
// to the other, and nobody has to wait for the server to say so.
bool equally_large(const torch::jit::Stack& args) {
  const at::Tensor first = args[0].isTensor() ? args[0].toTensor() : at::Tensor();
  return first.defined() && std::all_of(args.begin(), args.end(), [&](const c10::IValue& value) {
           return !value.isTensor() || (value.toTensor().defined() && value.toTensor().sizes() == first.sizes() &&
                                        value.toTensor().scalar_type() == first.scalar_type());
         });
}

// A sparse matrix times a dense one, where nothing can be wrong: the result is dense, and its shape no secret.
std::optional<OutputSpec> dense_product(const Operator& op, const torch::jit::Stack& args) {
  const bool adds = op.name == "aten::addmm";
  if (!adds && op.name != "aten::mm") {
    return std::nullopt;
  }
  const at::Tensor sparse = args[adds ? 1 : 0].toTensor();
  const at::Tensor dense = args[adds ? 2 : 1].toTensor();
  const at::ScalarType dtype = dense.scalar_type();
  if ((sparse.layout() != at::kSparse && sparse.layout() != at::kSparseCsr) || dense.layout() != at::kStrided ||
      sparse.dim() != 2 || dense.dim() != 2 || sparse.size(1) != dense.size(0) || sparse.scalar_type() != dtype ||
      (dtype != at::kFloat && dtype != at::kDouble) || (sparse.layout() == at::kSparse && sparse.dense_dim() != 0)) {
    return std::nullopt;
  }
  OutputSpec spec;
  spec.sizes = {sparse.size(0), dense.size(1)};
  if (adds && (args[0].toTensor().layout() != at::kStrided || args[0].toTensor().scalar_type() != dtype ||
               args[0].toTensor().sizes() != at::IntArrayRef(spec.sizes))) {
    return std::nullopt;
  }
  spec.defined = true;
  spec.contiguous = true;
  spec.dtype = dtype;
  spec.strides = at::DimVector(c10::contiguous_strides(spec.sizes));
  spec.n_bytes = bytes_of(spec.sizes, spec.strides, dtype);
  return spec;
}

// Under which the operator was called.
c10::DispatchKey key_of(const torch::jit::Stack& args) {
  const bool compressed = std::any_of(args.begin(), args.end(), [](const c10::IValue& value) {
    return value.isTensor() && value.toTensor().defined() && at::sparse_csr::is_sparse_compressed(value.toTensor());
  });
  return compressed ? c10::DispatchKey::SparseCsrPrivateUse1 : c10::DispatchKey::SparsePrivateUse1;
}

void query(StreamLock& lock, Call& call, const Template& entry, const std::vector<at::Tensor>& written,
           Outcome& out) {
  Session& session = lock.session();
  const Operator& op = *call.op();
  session.sync_flags(op);
  const size_t n = kMostComponents * ((op.returns_list ? kMostListed : op.n_fresh) + written.size());
  std::vector<StorageContext*> fresh;
  for (size_t i = 0; i < n; ++i) {
    fresh.push_back(session.new_storage(call.device()));
    call.storages().push_back(fresh.back()->id);
  }
  Reply reply(session.api());
  SkyError error;
  const uint32_t code =
      session.api().query(session.wire(), entry.slot, call.storages().data(),
                          static_cast<uint32_t>(call.storages().size()), static_cast<uint32_t>(n),
                          call.scalars().data(), static_cast<uint32_t>(call.scalars().size()), reply.out(), &error);
  lock.consumed();
  if (code != SKY_OK) {
    give_back(fresh, 0);
    raise(code, error);
  }
  give_back(fresh, reply->n_geometries);
  Answer answer(op, *reply, fresh);
  out.values = answer.plain_values();
  for (const Return& r : op.returns) {
    if (r.alias >= 0 || !r.is_tensor()) {
      continue;
    }
    if (!r.is_list) {
      out.tensors.push_back(answer.next());
      out.in_list.push_back(false);
      continue;
    }
    while (!answer.at_end() && answer.next_is_in_list()) {
      out.tensors.push_back(answer.next());
      out.in_list.push_back(true);
    }
  }
  for (const at::Tensor& tensor : written) {
    rewrite(tensor, answer.next());
  }
}

}  // namespace

LayoutParts take_apart(const c10::TensorImpl& impl, std::string_view op) {
  if (const at::SparseTensorImpl* coo = coo_of(impl)) {
    return {at::kSparse, impl.sizes(), coo->coalesced(), {coo->indices(), coo->values()}};
  }
  switch (impl.layout()) {
    case at::kSparseCsr:
    case at::kSparseCsc:
    case at::kSparseBsr:
    case at::kSparseBsc: {
      const auto& compressed = static_cast<const at::SparseCsrTensorImpl&>(impl);
      return {impl.layout(),
              impl.sizes(),
              false,
              {compressed.compressed_indices(), compressed.plain_indices(), compressed.values()}};
    }
    default:
      raise_unsupported(op, c10::str(impl.layout()) + " tensors");
  }
}

void run_layouts(const Operator& op, torch::jit::Stack& stack) {
  const size_t n_args = op.args.size();
  const torch::jit::Stack args(stack.end() - static_cast<int64_t>(n_args), stack.end());
  // An out= tensor gets a copy of what the functional operator makes: only the server knows how large that is. A
  // functional operator without a kernel of its own would come back here.
  if (op.first_out >= 0) {
    const auto twin = functional_twin(op);
    if (twin.has_value() && twin->hasKernelForDispatchKey(key_of(args))) {
      run_twin(op, stack);
      return;
    }
  }
  Call call(op);
  for (size_t i = 0; i < n_args; ++i) {
    call.add(args[i], op.args[i]);
  }
  call.finish();
  Outcome out;
  const std::vector<at::Tensor> written = written_layouts(op, args);
  std::vector<OutputSpec> outputs;
  if (auto product = dense_product(op, args)) {
    outputs.push_back(std::move(*product));
  }
  const bool known = outputs.size() == op.n_fresh && (op.n_fresh > 0 || equally_large(args));
  const bool waits = !known || op.returns_values || !written.empty();
  {
    StreamLock lock(call.device().session());
    const Template& entry = template_of(lock, call, args, waits ? Action::Query : Action::Append, std::move(outputs));
    if (waits) {
      query(lock, call, entry, written, out);
    } else {
      send_plain(lock, call, entry, out);
    }
  }
  push_returns(op, stack, out);
}

}  // namespace skytorch
