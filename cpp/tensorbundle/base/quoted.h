// SPDX-License-Identifier: Apache-2.0
// Names from files, made fit to be shown.
#pragma once

#include <string>
#include <string_view>

namespace tensorbundle {

// 'name', with every byte that is not printable ASCII as \xNN: a name is arbitrary bytes.
std::string EscapeBytes(std::string_view name);

}  // namespace tensorbundle
