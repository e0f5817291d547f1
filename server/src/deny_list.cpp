// The list.
#include "deny_list.h"

#include <algorithm>
#include <array>

namespace skytorch::server {
namespace {

struct Entry {
  std::string_view name;  // without the overload
  std::string_view reason;
};

constexpr std::string_view kFiles = "opens files of the server";
constexpr std::string_view kOutput = "writes to the server's output";
constexpr std::string_view kMetadata =
    "changes a tensor's storage or geometry behind the client's back; views and sizes are the client's";
constexpr std::string_view kSharing = "makes storages share memory in a way that the storage table cannot see";
constexpr std::string_view kAutograd = "belongs to autograd, which runs on the client";
constexpr std::string_view kInternal = "is a part of another operator, which checks its arguments; send that one";
constexpr std::string_view kLayouts =
    "is for layouts and packed weights that SkyTorch does not carry; use dense tensors";

constexpr std::array kDenied = {
    Entry{"aten::from_file", kFiles},
    Entry{"aten::_from_file", kFiles},
    Entry{"aten::save", kFiles},
    Entry{"aten::load", kFiles},
    Entry{"aten::_print", kOutput},
    Entry{"aten::resize", kMetadata},
    Entry{"aten::resize_as", kMetadata},
    Entry{"aten::resize_as_sparse", kMetadata},
    Entry{"aten::resize_as_sparse_", kMetadata},
    Entry{"aten::_resize_output", kMetadata},
    Entry{"aten::_resize_output_", kMetadata},
    Entry{"aten::_copy_from_and_resize", kMetadata},
    Entry{"aten::set", kMetadata},
    Entry{"aten::_conj_", kMetadata},
    Entry{"aten::_neg_view_", kMetadata},
    Entry{"aten::rename_", kMetadata},
    Entry{"aten::_coalesced_", kMetadata},
    Entry{"aten::_lazy_clone", kSharing},
    Entry{"aten::_pin_memory", kSharing},
    Entry{"aten::record_stream", kSharing},
    Entry{"aten::_make_dual_copy", kAutograd},
    Entry{"aten::_fw_primal_copy", kAutograd},
    Entry{"aten::_stack", kInternal},
    Entry{"aten::_cholesky_solve_helper", kInternal},
    Entry{"aten::_compute_linear_combination", kInternal},
    Entry{"aten::_convert_indices_from_coo_to_csr", kInternal},
    Entry{"aten::_convert_indices_from_csr_to_coo", kInternal},
    Entry{"aten::_cummax_helper", kInternal},
    Entry{"aten::_cummin_helper", kInternal},
    Entry{"aten::_logcumsumexp", kInternal},
    Entry{"aten::_nnpack_spatial_convolution", kInternal},
    Entry{"aten::_slow_conv2d_forward", kInternal},
    Entry{"aten::_slow_conv2d_backward", kInternal},
    Entry{"aten::_transform_bias_rescale_qkv", kInternal},
    Entry{"aten::_reshape_alias_copy", kInternal},
    Entry{"aten::_dyn_quant_matmul_4bit", kLayouts},
    Entry{"aten::_dyn_quant_pack_4bit_weight", kLayouts},
};

// Of the families below: those that make a sparse tensor of a dense one, and those whose kernels are for sparse
// tensors alone.
constexpr std::array<std::string_view, 5> kMakeSparse = {"aten::_to_sparse", "aten::_to_sparse_csr",
                                                         "aten::_to_sparse_csc", "aten::_to_sparse_bsr",
                                                         "aten::_to_sparse_bsc"};
constexpr std::array<std::string_view, 13> kSparseOnly = {"aten::_sparse_csr_prod",
                                                          "aten::_sparse_csr_sum",
                                                          "aten::_sparse_log_softmax",
                                                          "aten::_sparse_log_softmax_backward_data",
                                                          "aten::_sparse_mask_projection",
                                                          "aten::_sparse_mm_reduce_impl",
                                                          "aten::_sparse_mm_reduce_impl_backward",
                                                          "aten::_sparse_softmax",
                                                          "aten::_sparse_softmax_backward_data",
                                                          "aten::_sparse_sparse_matmul",
                                                          "aten::_sparse_sum_backward",
                                                          "aten::sparse_mask",
                                                          "aten::sparse_sampled_addmm"};

// Families of layouts and packed weights that do not travel otherwise.
constexpr std::array<std::string_view, 10> kLayoutPrefixes = {
    "aten::_sparse_", "aten::sparse_", "aten::_to_sparse", "aten::to_sparse", "aten::_nested_",
    "aten::_test_",   "aten::q_",      "aten::quantized_", "aten::mkldnn_",   "aten::_mkldnn_"};

template <size_t N>
bool is_one_of(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

bool makes_sparse(std::string_view base) { return is_one_of(kMakeSparse, base); }

bool is_sparse_only(std::string_view base) { return is_one_of(kSparseOnly, base); }

std::string_view denied_because(std::string_view name) {
  const std::string_view base = name.substr(0, name.find('.'));
  for (const Entry& entry : kDenied) {
    if (entry.name == base) return entry.reason;
  }
  if (is_one_of(kMakeSparse, base) || is_one_of(kSparseOnly, base)) return {};
  for (std::string_view prefix : kLayoutPrefixes) {
    if (base.substr(0, prefix.size()) == prefix) return kLayouts;
  }
  return {};
}

std::string_view unneeded_because(const c10::OperatorHandle& op) {
  // The client sends those whole for which the cpu has a kernel and autograd a derivative (silu_backward).
  const bool whole =
      op.hasKernelForDispatchKey(c10::DispatchKey::CPU) && op.hasKernelForDispatchKey(c10::DispatchKey::Autograd);
  if (op.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd) && !whole) {
    return "is composed of others, which the client sends one by one";
  }
  if (op.hasTag(at::Tag::inplace_view)) return kMetadata;
  for (const c10::Argument& argument : op.schema().arguments()) {
    if (argument.alias_info() != nullptr && !argument.alias_info()->isWrite()) {
      return "gives a view, which is the client's to make";
    }
  }
  return {};
}

std::vector<std::string> deny_list() {
  std::vector<std::string> lines;
  lines.reserve(kDenied.size());
  for (const Entry& entry : kDenied) lines.push_back(std::string(entry.name) + ": " + std::string(entry.reason));
  return lines;
}

}  // namespace skytorch::server
