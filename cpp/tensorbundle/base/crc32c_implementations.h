// SPDX-License-Identifier: Apache-2.0
// What crc32c.cc chooses from. Each Extend* has the contract of crc32c::Extend(), and may be called
// only where its Can* says so: it uses instructions that other processors do not have.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tensorbundle::crc32c {

uint32_t ExtendPortable(uint32_t crc, const uint8_t* data, size_t n);

#if defined(__x86_64__)
bool CanSse42();
uint32_t ExtendSse42(uint32_t crc, const uint8_t* data, size_t n);
bool CanAvx512();
uint32_t ExtendAvx512(uint32_t crc, const uint8_t* data, size_t n);
#endif

#if defined(__aarch64__)
bool CanArmv8();
uint32_t ExtendArmv8(uint32_t crc, const uint8_t* data, size_t n);
#endif

}  // namespace tensorbundle::crc32c
