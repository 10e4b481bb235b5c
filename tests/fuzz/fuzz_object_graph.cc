// SPDX-License-Identifier: Apache-2.0
// The bytes are an edit and an object graph. Byte i of the first eight says what happens to the
// i-th name of the graph: nothing, left out, or renamed. The names of the edited graph must be
// those of the original, with these changes.
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fuzz_input.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/messages.h"
#include "tensorbundle/write/object_graph.h"

namespace tensorbundle::fuzz {
namespace {

constexpr size_t kNumChoices = 8;

using Names = std::vector<std::pair<std::string, std::string>>;

Names NamesOf(const FullNameList& list) { return {list.names.begin(), list.names.end()}; }

ObjectGraphEdit MakeEdit(const FullNameList& list, std::string_view choices) {
  ObjectGraphEdit edit;
  for (size_t i = 0; i < std::min(choices.size(), list.names.size()); ++i) {
    const std::string full_name(list.names[i].first);
    const std::string key(list.names[i].second);
    switch (static_cast<uint8_t>(choices[i]) % 4) {
      case 1:
        edit.dropped_keys.insert(key);
        break;
      case 2:
        edit.renamed_keys[key] = "new/" + key;
        edit.renamed_full_names[full_name] = "";
        break;
      case 3:
        edit.renamed_full_names[full_name] = full_name + "/new";
        break;
      default:
        break;
    }
  }
  return edit;
}

std::string NewName(const std::string& name,
                    const std::map<std::string, std::string, std::less<>>& names) {
  const auto found = names.find(name);
  return found == names.end() ? name : found->second;
}

Names Expected(const Names& names, const ObjectGraphEdit& edit) {
  Names expected;
  for (const auto& [full_name, key] : names) {
    if (edit.dropped_keys.contains(key)) continue;
    const std::string new_full_name = NewName(full_name, edit.renamed_full_names);
    if (new_full_name.empty()) continue;  // no longer a name
    expected.emplace_back(new_full_name, NewName(key, edit.renamed_keys));
  }
  return expected;
}

}  // namespace
}  // namespace tensorbundle::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tensorbundle;
  fuzz::Input input(data, size);
  const std::string_view choices = input.Take(fuzz::kNumChoices);
  const std::string graph(input.Rest());
  const FullNameList list = FullNames(AsBytes(graph));
  const fuzz::Names names = fuzz::NamesOf(list);
  const ObjectGraphEdit edit = fuzz::MakeEdit(list, choices);
  try {
    const std::string same = EditObjectGraph(AsBytes(graph), {});
    fuzz::Require(same.size() <= graph.size());
    fuzz::Require(EditObjectGraph(AsBytes(same), {}) == same);
    fuzz::Require(fuzz::NamesOf(FullNames(AsBytes(same))) == names);
    const std::string edited = EditObjectGraph(AsBytes(graph), edit);
    const FullNameList edited_list = FullNames(AsBytes(edited));
    fuzz::Require(edited_list.complete);
    fuzz::Require(fuzz::NamesOf(edited_list) == fuzz::Expected(names, edit));
  } catch (const CorruptionError&) {
  }
  return 0;
}
