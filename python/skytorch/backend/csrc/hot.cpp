// See hot.h. A name here costs a class instantiation, saves about 0.1 us per call, and changes nothing else.
#include "hot.h"

#include <ATen/Operators.h>

#include "unboxed.h"

namespace skytorch {

namespace {

template <class... Ops>
void register_all() {
  // Registrations last as long as the process.
  static const std::array<c10::RegistrationHandleRAII, sizeof...(Ops)> handles = {register_unboxed<Ops>()...};
}

}  // namespace

void register_hot() {
  register_all<at::_ops::add_Tensor, at::_ops::add__Tensor, at::_ops::sub_Tensor, at::_ops::sub__Tensor,
               at::_ops::mul_Tensor, at::_ops::mul__Tensor, at::_ops::div_Tensor, at::_ops::div__Tensor,
               at::_ops::neg, at::_ops::pow_Tensor_Scalar, at::_ops::rsqrt, at::_ops::sqrt, at::_ops::exp,
               at::_ops::tanh, at::_ops::sigmoid, at::_ops::silu, at::_ops::gelu, at::_ops::relu, at::_ops::relu_,
               at::_ops::threshold_backward, at::_ops::eq_Tensor, at::_ops::eq_Scalar, at::_ops::ne_Scalar,
               at::_ops::lt_Tensor, at::_ops::gt_Scalar, at::_ops::where_self, at::_ops::fill__Scalar,
               at::_ops::zero_, at::_ops::mm, at::_ops::addmm, at::_ops::bmm, at::_ops::baddbmm, at::_ops::sum,
               at::_ops::sum_dim_IntList, at::_ops::mean, at::_ops::mean_dim, at::_ops::_softmax,
               at::_ops::_log_softmax, at::_ops::_log_softmax_backward_data, at::_ops::_softmax_backward_data,
               at::_ops::nll_loss_forward, at::_ops::nll_loss_backward, at::_ops::native_layer_norm,
               at::_ops::native_layer_norm_backward, at::_ops::embedding, at::_ops::embedding_dense_backward,
               at::_ops::convolution, at::_ops::convolution_backward, at::_ops::max_pool2d_with_indices,
               at::_ops::max_pool2d_with_indices_backward, at::_ops::native_batch_norm,
               at::_ops::native_batch_norm_backward, at::_ops::native_dropout, at::_ops::native_dropout_backward,
               at::_ops::argmax, at::_ops::addcmul_, at::_ops::addcdiv_, at::_ops::lerp__Scalar,
               at::_ops::masked_fill_Scalar, at::_ops::_scaled_dot_product_flash_attention_for_cpu>();
}

}  // namespace skytorch
