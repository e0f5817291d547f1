// The list.
#include "deny_list.h"

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
constexpr std::string_view kProcess = "changes state of the whole server process";
constexpr std::string_view kAutograd = "belongs to autograd, which runs on the client";
constexpr std::string_view kUnchecked = "skips the checks that keep its reads inside a storage";

constexpr std::array kEntries = {
    Entry{"aten::from_file", kFiles},
    Entry{"aten::_from_file", kFiles},
    Entry{"aten::save", kFiles},
    Entry{"aten::load", kFiles},
    Entry{"aten::_print", kOutput},
    Entry{"aten::_test_warn_in_autograd", kOutput},
    Entry{"aten::_cufft_set_plan_cache_max_size", kProcess},
    Entry{"aten::_cufft_clear_plan_cache", kProcess},
    Entry{"aten::_cufft_get_plan_cache_size", kProcess},
    Entry{"aten::_cufft_get_plan_cache_max_size", kProcess},
    Entry{"aten::resize", kMetadata},
    Entry{"aten::resize_", kMetadata},
    Entry{"aten::resize_as", kMetadata},
    Entry{"aten::resize_as_", kMetadata},
    Entry{"aten::resize_as_sparse", kMetadata},
    Entry{"aten::resize_as_sparse_", kMetadata},
    Entry{"aten::_resize_output", kMetadata},
    Entry{"aten::_resize_output_", kMetadata},
    Entry{"aten::sparse_resize", kMetadata},
    Entry{"aten::sparse_resize_", kMetadata},
    Entry{"aten::sparse_resize_and_clear", kMetadata},
    Entry{"aten::sparse_resize_and_clear_", kMetadata},
    Entry{"aten::_copy_from_and_resize", kMetadata},
    Entry{"aten::set", kMetadata},
    Entry{"aten::set_", kMetadata},
    Entry{"aten::set_data", kMetadata},
    Entry{"aten::as_strided_", kMetadata},
    Entry{"aten::squeeze_", kMetadata},
    Entry{"aten::unsqueeze_", kMetadata},
    Entry{"aten::t_", kMetadata},
    Entry{"aten::transpose_", kMetadata},
    Entry{"aten::swapaxes_", kMetadata},
    Entry{"aten::swapdims_", kMetadata},
    Entry{"aten::_conj_", kMetadata},
    Entry{"aten::_neg_view_", kMetadata},
    Entry{"aten::rename_", kMetadata},
    Entry{"aten::_coalesced_", kMetadata},
    Entry{"aten::_lazy_clone", kSharing},
    Entry{"aten::_test_parallel_materialize", kSharing},
    Entry{"aten::pin_memory", kSharing},
    Entry{"aten::_pin_memory", kSharing},
    Entry{"aten::record_stream", kSharing},
    Entry{"aten::_backward", kAutograd},
    Entry{"aten::requires_grad_", kAutograd},
    Entry{"aten::retain_grad", kAutograd},
    Entry{"aten::detach_", kAutograd},
    Entry{"aten::_make_dual", kAutograd},
    Entry{"aten::_make_dual_copy", kAutograd},
    Entry{"aten::_unpack_dual", kAutograd},
    Entry{"aten::_fw_primal", kAutograd},
    Entry{"aten::_fw_primal_copy", kAutograd},
    Entry{"aten::get_gradients", kAutograd},
    Entry{"aten::segment_reduce", kUnchecked},
    Entry{"aten::_segment_reduce_backward", kUnchecked},
    Entry{"aten::_nested_view_from_buffer", kUnchecked},
    Entry{"aten::_nested_view_from_buffer_copy", kUnchecked},
    Entry{"aten::_nested_view_from_jagged", kUnchecked},
    Entry{"aten::_nested_view_from_jagged_copy", kUnchecked},
    Entry{"aten::_sparse_coo_tensor_unsafe", kUnchecked},
    Entry{"aten::_sparse_compressed_tensor_unsafe", kUnchecked},
    Entry{"aten::_sparse_csr_tensor_unsafe", kUnchecked},
    Entry{"aten::_sparse_csc_tensor_unsafe", kUnchecked},
    Entry{"aten::_sparse_bsr_tensor_unsafe", kUnchecked},
    Entry{"aten::_sparse_bsc_tensor_unsafe", kUnchecked},
};

}  // namespace

std::string_view denied_because(std::string_view name) {
  const std::string_view base = name.substr(0, name.find('.'));
  for (const Entry& entry : kEntries) {
    if (entry.name == base) return entry.reason;
  }
  return {};
}

std::vector<std::string> deny_list() {
  std::vector<std::string> lines;
  lines.reserve(kEntries.size());
  for (const Entry& entry : kEntries) lines.push_back(std::string(entry.name) + ": " + std::string(entry.reason));
  return lines;
}

}  // namespace skytorch::server
