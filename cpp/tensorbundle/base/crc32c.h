// SPDX-License-Identifier: Apache-2.0
// CRC-32C (Castagnoli), the checksum of every block and every tensor of a checkpoint.
//
// A CRC here is the finished value, as a file holds it once unmasked: Value("123456789") is
// 0xE3069283. All functions are thread-safe, allocate nothing and never throw. `data` may have any
// alignment, and may be null when `n` is 0.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace tensorbundle::crc32c {

// Returns the CRC of A ++ data, given the CRC of A. Extend(0, data, n) is the CRC of data alone.
uint32_t Extend(uint32_t crc, const void* data, size_t n);

inline uint32_t Value(const void* data, size_t n) { return Extend(0, data, n); }

// Returns the CRC of A ++ B, given the CRC of A, the CRC of B and the size of B in bytes. Costs one
// multiplication of 32-bit polynomials per set bit of `size_b`; reads no data.
uint32_t Combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b);

// Files store Mask(crc) rather than the CRC, because the CRC of bytes that contain their own CRC is
// the same for all contents. The constant is the format's.
inline constexpr uint32_t kMaskDelta = 0xA282EAD8;

constexpr uint32_t Mask(uint32_t crc) { return std::rotr(crc, 15) + kMaskDelta; }
constexpr uint32_t Unmask(uint32_t masked) { return std::rotl(masked - kMaskDelta, 15); }

// An implementation of Extend(). All of them give the same values and differ in speed.
struct Implementation {
  const char* name;
  uint32_t (*extend)(uint32_t crc, const uint8_t* data, size_t n);
};

// Returns the implementations that this processor can run, fastest first, "portable" last.
// Lifetime: the span is valid forever.
std::span<const Implementation> Implementations();

// Returns the name of the implementation that Extend() uses.
const char* ActiveName();

}  // namespace tensorbundle::crc32c
