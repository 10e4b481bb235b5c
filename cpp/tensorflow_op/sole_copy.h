// SPDX-License-Identifier: Apache-2.0
// Two copies of this library in one process would register every kernel twice, after which
// TensorFlow can run none of them.
#pragma once

#include <string>

namespace tensorbundle::op {

// False, and why in `problem`, when the process has loaded another copy of this library.
bool IsSoleCopy(std::string* problem);

}  // namespace tensorbundle::op
