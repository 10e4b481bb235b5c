// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/file_diagnosis.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <string_view>
#include <system_error>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

constexpr size_t kHeadSize = 64;
constexpr size_t kMaxNames = 5'000;  // of a directory; more are not looked through
constexpr size_t kMaxShown = 3;

// What a text is that stands where data should be, or null. `head` is in lower case.
const char* KindOfText(std::string_view head) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (head.starts_with(kByteOrderMark)) head.remove_prefix(kByteOrderMark.size());
  const size_t begin = head.find_first_not_of(" \t\r\n");
  head.remove_prefix(std::min(begin, head.size()));
  if (head.starts_with("version https://git-lfs")) {
    return "is a Git-LFS pointer, not the data: run 'git lfs pull' in its repository";
  }
  if (head.starts_with("<!doctype html") || head.starts_with("<html")) {
    return "is an HTML page, not the data: the download went wrong";
  }
  if (head.starts_with("<?xml") || head.starts_with("<error>")) {
    return "is an XML document, not the data: the download went wrong, and it may say why";
  }
  return nullptr;
}

std::string Head(const File& file) {
  std::string head(std::min<uint64_t>(kHeadSize, file.size()), '\0');
  try {
    file.ReadAt(0, {reinterpret_cast<uint8_t*>(head.data()), head.size()});
  } catch (const Error&) {
    return "";
  }
  for (char& c : head) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return head;
}

// "P" of "P.data-00000-of-00001", else "".
std::string_view PrefixOf(std::string_view name) {
  constexpr std::string_view kPattern = ".data-00000-of-00001";
  if (name.size() <= kPattern.size()) return {};
  const std::string_view end = name.substr(name.size() - kPattern.size());
  const bool matches =
      std::equal(end.begin(), end.end(), kPattern.begin(), [](char found, char wanted) {
        return wanted == '0' || wanted == '1' ? found >= '0' && found <= '9' : found == wanted;
      });
  return matches ? name.substr(0, name.size() - kPattern.size()) : std::string_view();
}

// Names in the directory that may be the file under another name: with something behind its own
// name, as downloads and copies get it; its checkpoint's name and ".data"; and data files that
// belong to no index.
std::vector<std::string> NamesLike(const std::filesystem::path& path) {
  std::set<std::string> names;
  std::error_code error;
  const std::filesystem::path directory = path.has_parent_path() ? path.parent_path() : ".";
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    names.insert(entry->path().filename().string());
    if (names.size() == kMaxNames) break;
  }
  const std::string wanted = path.filename().string();
  const std::string prefix(PrefixOf(wanted));
  std::vector<std::string> found;
  for (const std::string& name : names) {
    const std::string_view other = PrefixOf(name);
    const bool is_spare = !other.empty() && names.count(std::string(other) + ".index") == 0;
    const bool is_longer = name.size() > wanted.size() && name.starts_with(wanted);
    const bool is_other_count = !other.empty() && other == prefix &&
                                name.substr(name.rfind('-')) != wanted.substr(wanted.rfind('-'));
    if (is_spare || is_longer || is_other_count || name == prefix + ".data") found.push_back(name);
  }
  return found;
}

}  // namespace

ForeignFile Diagnose(const File& file, uint64_t end) {
  if (file.size() == end) return {};
  const bool is_short = file.size() < end;
  if (file.size() == 0) {
    return {file.path() + " is empty, its stored slices end at byte " + std::to_string(end), true};
  }
  // A longer file may be data that begin so, with something behind them.
  if (const char* kind = KindOfText(Head(file))) return {file.path() + " " + kind, is_short};
  if (!is_short) return {};
  return {file.path() + " has " + std::to_string(file.size()) +
              " bytes, its stored slices end at " + std::to_string(end) +
              ": it was cut off, or belongs to another checkpoint",
          false};
}

std::string WhyMissing(const std::string& path) {
  std::error_code error;
  const std::filesystem::path target = std::filesystem::read_symlink(path, error);
  if (!error) {
    return "the data file " + path + " is a symbolic link to " + EscapeBytes(target.string()) +
           ", which does not exist";
  }
  const std::vector<std::string> names = NamesLike(path);
  std::string text = "the data file " + path + " is missing";
  if (names.empty()) return text + "; was the checkpoint copied in part?";
  text += "; ";
  for (size_t i = 0; i < std::min(names.size(), kMaxShown); ++i) {
    text += (i == 0 ? "" : ", ") + EscapeBytes(names[i]);
  }
  if (names.size() > kMaxShown)
    text += " and " + std::to_string(names.size() - kMaxShown) + " more";
  return text + " in the same directory may be it under another name";
}

}  // namespace tensorbundle
