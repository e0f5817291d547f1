// Operators that no client may run, each with the reason that it is told. A new torch adds operators: whoever moves
// to one reads its list against this one (tests/cpp/server/deny_list_test.cpp prints what a rule by name misses).
// Operators whose schema takes a Storage, Stream, QScheme or a TorchScript class need no entry: no argument of the
// wire can stand for one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace skytorch::server {

// Why `name` ("aten::from_file.out") is denied; empty if it is not. An entry covers every overload.
std::string_view denied_because(std::string_view name);
// Every entry, as "aten::from_file: opens files of the server".
std::vector<std::string> deny_list();

}  // namespace skytorch::server
