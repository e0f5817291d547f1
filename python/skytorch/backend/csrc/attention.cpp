// Which attention kernel F.scaled_dot_product_attention takes on `sky`: the one that the server's own device would.
// Only the stub is asked by torch; registering the operator `_fused_sdp_choice` would do nothing.
#include <ATen/Context.h>
#include <ATen/SDPBackend.h>
#include <ATen/native/transformers/attention.h>

#include "device.h"
#include "tensor.h"

namespace skytorch {

namespace {

// Memory-efficient attention, with the conditions that a CUDA device of any generation sets. Flash attention answers
// with numbers besides tensors, which would cost a round trip, and needs an operator that PrivateUse1 is never given.
bool cuda_takes_efficient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const std::optional<at::Tensor>& mask, bool enable_gqa) {
  if (!at::globalContext().userEnabledMemEfficientSDP() || enable_gqa || q.dim() != 4 || k.dim() != 4 ||
      v.dim() != 4) {
    return false;
  }
  const auto dtype = q.scalar_type();
  if ((dtype != at::kFloat && dtype != at::kHalf && dtype != at::kBFloat16) || k.scalar_type() != dtype ||
      v.scalar_type() != dtype) {
    return false;
  }
  for (const at::Tensor* t : {&q, &k, &v}) {
    if (t->numel() == 0 || t->stride(-1) != 1 || t->size(-1) % 8 != 0 || t->size(0) != q.size(0) ||
        t->size(1) != q.size(1)) {
      return false;
    }
  }
  return q.size(-1) == k.size(-1) && !(mask.has_value() && mask->defined() && mask->requires_grad());
}

int64_t choose(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::optional<at::Tensor>& mask,
               double dropout, bool is_causal, std::optional<double> scale, bool enable_gqa) {
  const StorageContext* context = context_of(q.unsafeGetTensorImpl());
  if (context == nullptr || !context->device->is_cuda()) {
    // The cpu's choice looks at shapes, strides and dtypes only.
    return at::native::_fused_sdp_choice_stub(at::kCPU, q, k, v, mask, dropout, is_causal, scale, enable_gqa);
  }
  return static_cast<int64_t>(cuda_takes_efficient(q, k, v, mask, enable_gqa) ? at::SDPBackend::efficient_attention
                                                                              : at::SDPBackend::math);
}

}  // namespace

}  // namespace skytorch

namespace at::native {

REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &skytorch::choose)

}  // namespace at::native
