// SPDX-License-Identifier: Apache-2.0
// The function edit_object_graph.
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/pybind.h"
#include "tensorbundle/write/object_graph.h"

namespace tensorbundle {
namespace {

using NewNames = std::map<std::string, std::string, std::less<>>;

// All names are bytes, because they need not be UTF-8.
py::bytes EditGraph(const py::bytes& graph, const std::vector<std::string>& dropped_keys,
                    NewNames renamed_keys, NewNames renamed_full_names) {
  const ObjectGraphEdit edit{{dropped_keys.begin(), dropped_keys.end()},
                             std::move(renamed_keys),
                             std::move(renamed_full_names)};
  const auto message = static_cast<std::string_view>(graph);
  const std::string result = [&] {
    const GilReleased released;
    return EditObjectGraph(AsBytes(message), edit);
  }();
  return py::bytes(result);
}

}  // namespace

void RegisterObjectGraph(py::module_& module) { module.def("edit_object_graph", &EditGraph); }

}  // namespace tensorbundle
