// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/fetched_rows.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <tuple>
#include <utility>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/file.h"

namespace tensorbundle {
namespace {

constexpr uint64_t kMaxFetchSize = uint64_t{64} << 20;
constexpr uint64_t kMaxFetchRows = 16384;

// A segment of one row.
struct Piece {
  const File* file;
  uint64_t offset;
  uint64_t size;
  uint8_t* destination;

  uint64_t end() const { return offset + size; }
};

// Consecutive pieces that are read by one request.
struct Request {
  size_t first;
  size_t count;
  uint64_t end;  // offset in the file
};

// Returns the segments that have to be read, and copies those that are in memory. Row i goes to
// `buffer + i * layout.row_size`.
std::vector<Piece> PiecesOf(const RowLayout& layout, const std::vector<int64_t>& rows,
                            uint8_t* buffer) {
  std::vector<Piece> pieces;
  pieces.reserve(rows.size());
  for (const int64_t row : rows) {
    const RowGroup& group = layout.At(row);
    for (const RowSegment& segment : group.segments) {
      const uint64_t skip = static_cast<uint64_t>(row - group.begin) * segment.stride;
      uint8_t* destination = buffer + segment.destination;
      if (segment.memory != nullptr) {
        std::memcpy(destination, segment.memory + skip, segment.size);
      } else {
        pieces.push_back({segment.file, segment.offset + skip, segment.size, destination});
      }
    }
    buffer += layout.row_size;
  }
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return std::tie(a.file, a.offset) < std::tie(b.file, b.offset);
  });
  return pieces;
}

std::vector<Request> Join(const std::vector<Piece>& pieces) {
  std::vector<Request> requests;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    if (!requests.empty()) {
      Request& last = requests.back();
      const Piece& first = pieces[last.first];
      if (piece.file == first.file && piece.offset <= last.end + kMaxRequestGap &&
          std::max(piece.end(), last.end) - first.offset <= kMaxRequestSize) {
        ++last.count;
        last.end = std::max(last.end, piece.end());
        continue;
      }
    }
    requests.push_back({i, 1, piece.end()});
  }
  return requests;
}

void Run(const Request& request, const std::vector<Piece>& pieces) {
  const Piece& first = pieces[request.first];
  if (request.count == 1) return first.file->ReadAt(first.offset, {first.destination, first.size});
  const uint64_t size = request.end - first.offset;
  const auto bytes = std::make_unique_for_overwrite<uint8_t[]>(size);
  first.file->ReadAt(first.offset, {bytes.get(), size});
  for (size_t i = request.first; i < request.first + request.count; ++i) {
    std::memcpy(pieces[i].destination, bytes.get() + (pieces[i].offset - first.offset),
                pieces[i].size);
  }
}

}  // namespace

size_t RowsPerFetch(const RowLayout& layout) {
  return static_cast<size_t>(std::clamp<uint64_t>(
      kMaxFetchSize / std::max<uint64_t>(1, layout.row_size), 1, kMaxFetchRows));
}

RowLayout FetchRows(const RowLayout& layout, std::vector<int64_t> rows, int threads) {
  std::erase_if(rows, [](int64_t row) { return row < 0; });
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  RowLayout fetched;
  fetched.row_size = layout.row_size;
  fetched.decoded.push_back(std::make_unique<std::vector<uint8_t>>(rows.size() * layout.row_size));
  uint8_t* buffer = fetched.decoded.back()->data();
  const std::vector<Piece> pieces = PiecesOf(layout, rows, buffer);
  const std::vector<Request> requests = Join(pieces);
  ParallelFor(requests.size(), threads, [&](size_t i) { Run(requests[i], pieces); });

  for (size_t i = 0; i < rows.size(); ++i) {
    if (i > 0 && rows[i] == rows[i - 1] + 1) {
      ++fetched.groups.back().end;
      continue;
    }
    RowGroup group{rows[i], rows[i] + 1, {}, nullptr};
    group.segments.push_back(
        {buffer + i * layout.row_size, nullptr, 0, layout.row_size, 0, layout.row_size});
    fetched.begins.push_back(rows[i]);
    fetched.groups.push_back(std::move(group));
  }
  return fetched;
}

}  // namespace tensorbundle
