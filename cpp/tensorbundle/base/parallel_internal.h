// SPDX-License-Identifier: Apache-2.0
// Parts of parallel.cc, for tests.
#pragma once

#include <istream>

namespace tensorbundle {

// Returns the processors that a CPU quota of the cgroup allows, rounded up, or 0 if there is no
// quota. `cpu_max` is cpu.max of version 2: "<quota|max> <period>".
int ProcessorsOfQuota(std::istream& cpu_max);

}  // namespace tensorbundle
