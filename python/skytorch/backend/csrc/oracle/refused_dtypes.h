// The dtypes that the CPU's kernel of an operator refuses, though its shape function takes them. Generated.
#pragma once

#include <ATen/core/operator_name.h>
#include <c10/core/ScalarType.h>

namespace skytorch::oracle {

bool refuses_dtype(const c10::OperatorName& name, at::ScalarType type);

}  // namespace skytorch::oracle
