// Arguments that torch's meta functions accept and its kernels refuse: dtypes that do not go together. They are not
// judged here. Such a call goes to the server as a question, so that the kernel's own error is raised at its line.
#pragma once

#include "question.h"

namespace skytorch::oracle {

bool suspect(const Question& question);

}  // namespace skytorch::oracle
