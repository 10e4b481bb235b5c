// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/copy_rows.h"

#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>

#include "tensorbundle/base/x86_features.h"
#endif

// Compiled for this extension regardless of the build flags; SelectCopyRows() guards the calls.
#define TENSORBUNDLE_AVX512 __attribute__((target("avx512f")))

namespace tensorbundle {
namespace {

struct CachedStores {
  static void Copy(uint8_t* out, const uint8_t* in, uint64_t size) { std::memcpy(out, in, size); }
};

// Stores of any size and alignment past the caches.
struct StreamingStores {
  static void Copy(uint8_t* out, const uint8_t* in, uint64_t size) {
    NontemporalCopy(out, in, size);
  }
};

// kSize: the size of a row, or 0 for any.
template <typename Stores, uint64_t kSize>
void CopyRows(const uint8_t* const* rows, size_t count, size_t ahead, uint64_t any_size,
              uint8_t* out, uint64_t out_stride) {
  const uint64_t row_size = kSize != 0 ? kSize : any_size;
  for (size_t i = 0; i < count; ++i, out += out_stride) {
    if (rows[i + ahead] != nullptr) Prefetch(rows[i + ahead], row_size);
    if (rows[i] != nullptr) Stores::Copy(out, rows[i], row_size);
  }
}

// Calls select(size) with the size of a row as a constant, 0 for one without a loop of its own.
template <typename Select>
CopyRowsFunction ForSize(uint64_t row_size, const Select& select) {
  switch (row_size) {
    case 64:
      return select(std::integral_constant<uint64_t, 64>());
    case 128:
      return select(std::integral_constant<uint64_t, 128>());
    case 256:
      return select(std::integral_constant<uint64_t, 256>());
    case 512:
      return select(std::integral_constant<uint64_t, 512>());
    case 1024:
      return select(std::integral_constant<uint64_t, 1024>());
    default:
      return select(std::integral_constant<uint64_t, 0>());
  }
}

template <typename Stores>
CopyRowsFunction ForSize(uint64_t row_size) {
  return ForSize(row_size, [](auto size) { return &CopyRows<Stores, size()>; });
}

#if defined(__x86_64__)

// Requires: `out` and `out_stride` are multiples of 16, the size of a row is one of kCacheLine.
struct Sse2Stores {
  static void Copy(uint8_t* out, const uint8_t* in, uint64_t size) {
    NontemporalCopySse2(out, in, size);
  }
};

// As CopyRows(), with 64-byte stores. A function that the compiler may inline cannot have another
// instruction set than its caller, so the loop is written again.
//
// Requires: `out`, `out_stride` and the size of a row are multiples of kCacheLine.
template <uint64_t kSize>
TENSORBUNDLE_AVX512 void CopyRowsAvx512(const uint8_t* const* rows, size_t count, size_t ahead,
                                        uint64_t any_size, uint8_t* out, uint64_t out_stride) {
  const uint64_t row_size = kSize != 0 ? kSize : any_size;
  for (size_t i = 0; i < count; ++i, out += out_stride) {
    if (rows[i + ahead] != nullptr) Prefetch(rows[i + ahead], row_size);
    const uint8_t* const in = rows[i];
    if (in == nullptr) continue;
    for (uint64_t at = 0; at < row_size; at += kCacheLine) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(out + at), _mm512_loadu_si512(in + at));
    }
  }
}

// The same for rows that follow each other, but do not begin at a cache line: memory of malloc and
// NumPy begins 16 bytes after one. The end of a row and the beginning of the next one share a line.
// The end is kept in a register, so that the line is stored as a whole.
//
// Requires: the size of a row is a multiple of kCacheLine, and `out_stride` is the same; `out` is a
// multiple of 4, and not of kCacheLine.
template <uint64_t kSize>
TENSORBUNDLE_AVX512 void CopyShiftedRowsAvx512(const uint8_t* const* rows, size_t count,
                                               size_t ahead, uint64_t any_size, uint8_t* out,
                                               uint64_t) {
  const uint64_t row_size = kSize != 0 ? kSize : any_size;
  const uint64_t end_size = reinterpret_cast<uintptr_t>(out) % kCacheLine;
  const uint64_t beginning_size = kCacheLine - end_size;
  const auto end = static_cast<__mmask16>((1U << end_size / sizeof(int32_t)) - 1);
  const auto beginning = static_cast<__mmask16>(~end);
  const auto not_in_middle = static_cast<__mmask16>(0xFFFFU << beginning_size / sizeof(int32_t));
  __m512i previous = _mm512_setzero_si512();
  bool has_previous = false;
  for (size_t i = 0; i < count; ++i, out += row_size) {
    if (rows[i + ahead] != nullptr) Prefetch(rows[i + ahead], row_size);
    const uint8_t* const in = rows[i];
    uint8_t* const shared = out - end_size;
    if (in == nullptr) {
      if (has_previous) _mm512_mask_storeu_epi32(shared, end, previous);
      has_previous = false;
      continue;
    }
    // Nothing before or after the row is loaded: it is in cache lines that were not fetched.
    const __m512i line = _mm512_mask_expand_epi32(previous, beginning, _mm512_loadu_si512(in));
    if (has_previous) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(shared), line);
    } else {
      _mm512_mask_storeu_epi32(shared, beginning, line);
    }
    for (uint64_t at = 0; at < row_size - kCacheLine; at += kCacheLine) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(out + beginning_size + at),
                          _mm512_loadu_si512(in + beginning_size + at));
    }
    previous =
        _mm512_maskz_compress_epi32(not_in_middle, _mm512_loadu_si512(in + row_size - kCacheLine));
    has_previous = true;
  }
  if (has_previous) _mm512_mask_storeu_epi32(out - end_size, end, previous);
}

// Up to this size, rows that do not begin at a cache line are copied faster with 16-byte stores.
constexpr uint64_t kMaxInPieces = 2 * kCacheLine;

// Requires: `row_size` is a multiple of kCacheLine.
CopyRowsFunction ForSizeAvx512(uint64_t row_size, bool is_shifted) {
  if (!is_shifted) return ForSize(row_size, [](auto size) { return &CopyRowsAvx512<size()>; });
  if (row_size <= kMaxInPieces) return ForSize<Sse2Stores>(row_size);
  return ForSize(row_size, [](auto size) { return &CopyShiftedRowsAvx512<size()>; });
}

#endif

}  // namespace

CopyRowsFunction SelectCopyRows(uint64_t row_size, StoreHint hint, const uint8_t* out,
                                uint64_t out_stride, [[maybe_unused]] bool may_use_avx512) {
  if (hint == StoreHint::kCached) return ForSize<CachedStores>(row_size);
#if defined(__x86_64__)
  const uint64_t shift = reinterpret_cast<uintptr_t>(out) % kCacheLine;
  if (row_size % kCacheLine == 0 && out_stride % sizeof(__m128i) == 0 &&
      shift % sizeof(__m128i) == 0) {
    const bool has_whole_lines = out_stride == row_size || (shift | out_stride) % kCacheLine == 0;
    if (may_use_avx512 && has_whole_lines && HasAvx512AndVpclmul()) {
      return ForSizeAvx512(row_size, shift != 0);
    }
    if (row_size < kMinWideCopy) return ForSize<Sse2Stores>(row_size);
  }
#endif
  return CopyRows<StreamingStores, 0>;
}

}  // namespace tensorbundle
