// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/entries.h"

#include <algorithm>

#include "tensorbundle/table/entry_cursor.h"

namespace tensorbundle {

TableEntries TableEntries::ReadAll(const Table& table) {
  TableEntries result;
  EntryCursor cursor(table, &result.bytes_);
  while (cursor.Next()) {
    result.entries_.push_back({cursor.key(), result.bytes_.Add(AsText(cursor.value()))});
  }
  return result;
}

size_t TableEntries::Find(std::string_view wanted) const {
  const auto found = std::ranges::lower_bound(entries_, wanted, {}, &Entry::key);
  if (found == entries_.end() || found->key != wanted) return size();
  return static_cast<size_t>(found - entries_.begin());
}

}  // namespace tensorbundle
