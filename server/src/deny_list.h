// Operators that no client may run, each with the reason that it is told. A new torch adds operators: whoever moves
// to one reads its list against this one (tests/cpp/server/hostile_test.cpp shows which new ones open files).
// Operators whose schema takes a Storage, Stream, QScheme or a TorchScript class need no entry: no argument of the
// wire can stand for one.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>
#include <string_view>
#include <vector>

namespace skytorch::server {

// Why `name` ("aten::from_file.out") is denied; empty if it is not. An entry covers every overload.
std::string_view denied_because(std::string_view name);
// The operator makes a sparse tensor of a dense one ("aten::_to_sparse_csr").
bool makes_sparse(std::string_view base);
// The operator has no kernel for dense tensors alone ("aten::_sparse_softmax").
bool is_sparse_only(std::string_view base);
// Why an operator of aten needs no server, by what torch knows of it: no client sends one that is composed of others,
// gives a view, or changes what the client keeps itself. Empty if it may run.
std::string_view unneeded_because(const c10::OperatorHandle& op);
// Every entry, as "aten::from_file: opens files of the server".
std::vector<std::string> deny_list();

}  // namespace skytorch::server
