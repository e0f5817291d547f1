// Operators that are answered on the client, by noun. Each function registers its own for PrivateUse1; what none of
// them takes goes to the server whole (registration.cpp).
#pragma once

#include <torch/library.h>

namespace skytorch {

// empty, empty_strided, _efficientzerotensor.
void register_factories(torch::Library& m);
// as_strided, view, resize_, set_ and their like: metadata only.
void register_views(torch::Library& m);
// copy_, clone, _to_copy, _local_scalar_dense.
void register_copies(torch::Library& m);
// _to_sparse and its like: dense tensors made into sparse ones.
void register_sparse_makers(torch::Library& m);
// LSTM and GRU cells, which a CPU server does not have.
void register_cells(torch::Library& m);

}  // namespace skytorch
