// SPDX-License-Identifier: Apache-2.0
// Baselines: copies, reads, gathers and a join without checks, on n threads, compiled for this
// processor.
// Also a sampler of the anonymous memory of this process, because the kernel does not record the
// peak.
//
// Exported functions take int64_t and pointers. They return an int64_t, -1 if a file is too short.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif
#ifdef __ARM_FEATURE_CRC32
#include <arm_acle.h>
#endif

enum { kMaxThreads = 256, kLine = 64, kBlock = 1 << 18 };

typedef struct {
  void (*body)(void* job, int64_t begin, int64_t end);
  void* job;
  int64_t begin, end;
} Range;

static void* RunRange(void* argument) {
  const Range* range = argument;
  range->body(range->job, range->begin, range->end);
  return NULL;
}

// Splits [0, count) into one range per thread. The calling thread runs the first range.
static void InParallel(void (*body)(void*, int64_t, int64_t), void* job, int64_t count,
                       int64_t threads) {
  pthread_t handles[kMaxThreads];
  Range ranges[kMaxThreads];
  if (threads > kMaxThreads) threads = kMaxThreads;
  for (int i = 0; i < threads; ++i) {
    ranges[i] = (Range){body, job, count * i / threads, count * (i + 1) / threads};
    if (i && pthread_create(&handles[i], NULL, RunRange, &ranges[i])) abort();
  }
  RunRange(&ranges[0]);
  for (int i = 1; i < threads; ++i) pthread_join(handles[i], NULL);
}

typedef struct {
  char* to;
  const char* from;
  int file;
  int64_t offset;
  atomic_int failed;
} Copy;

static void CopyRange(void* job, int64_t begin, int64_t end) {
  const Copy* copy = job;
  memcpy(copy->to + begin, copy->from + begin, (size_t)(end - begin));
}

static void ReadRange(void* job, int64_t begin, int64_t end) {
  Copy* copy = job;
  while (begin < end) {
    const int64_t size = end - begin < (1 << 23) ? end - begin : (1 << 23);
    const ssize_t n = pread(copy->file, copy->to + begin, (size_t)size, copy->offset + begin);
    if (n <= 0) {
      copy->failed = 1;
      return;
    }
    begin += n;
  }
}

int64_t baseline_memcpy(char* to, const char* from, int64_t n, int64_t threads) {
  Copy copy = {to, from, -1, 0, 0};
  InParallel(CopyRange, &copy, n, threads);
  return 0;
}

int64_t baseline_pread(int64_t file, int64_t offset, char* to, int64_t n, int64_t threads) {
  Copy copy = {to, NULL, (int)file, offset, 0};
  InParallel(ReadRange, &copy, n, threads);
  return -copy.failed;
}

// Reads n bytes in order, in chunks, into one buffer.
int64_t baseline_pread_sequential(int64_t file, int64_t offset, int64_t n, char* buffer,
                                  int64_t chunk) {
  for (int64_t done = 0; done < n; done += chunk) {
    Copy copy = {buffer, NULL, (int)file, offset + done, 0};
    ReadRange(&copy, 0, n - done < chunk ? n - done : chunk);
    if (copy.failed) return -1;
  }
  return 0;
}

// Reads with an empty page cache. A file opened with O_DIRECT is read in whole blocks into an
// aligned buffer, and copied from there.
enum { kDirectBlock = 4096, kRequest = 1 << 20 };

typedef struct {
  int file;
  int64_t direct;
  int64_t offset;  // of the table in the file
  char* to;        // may be null
  int64_t n;
  const int64_t* ids;
  int64_t row_bytes;
  int64_t step;  // if not 0, only one row in `step` is copied to the destination
  atomic_llong next;
  atomic_int failed;
} Cold;

static char* NewBuffer(void) { return aligned_alloc(kDirectBlock, kRequest + 2 * kDirectBlock); }

// Reads n bytes, at most kRequest. Without a destination, leaves them in the buffer, at the result.
static const char* ReadOnce(Cold* cold, int64_t offset, int64_t n, char* to, char* buffer) {
  const int64_t skip = cold->direct ? offset % kDirectBlock : 0;
  const int64_t whole = (skip + n + kDirectBlock - 1) / kDirectBlock * kDirectBlock;
  char* const into = cold->direct || !to ? buffer : to;
  const size_t wanted = (size_t)(cold->direct ? whole : n);
  if (pread(cold->file, into, wanted, offset - skip) < skip + n) {
    cold->failed = 1;
  } else if (to && into != to) {
    memcpy(to, into + skip, (size_t)n);
  }
  return into + skip;
}

// The threads take the next request in turn, so that the file is read about front to back.
static void ReadRequests(void* job, int64_t begin, int64_t end) {
  Cold* cold = job;
  char* const buffer = NewBuffer();
  (void)begin, (void)end;
  for (int64_t at; (at = atomic_fetch_add(&cold->next, kRequest)) < cold->n;) {
    const int64_t size = cold->n - at < kRequest ? cold->n - at : kRequest;
    char* const to = cold->to && !cold->step ? cold->to + at : NULL;
    const char* const bytes = ReadOnce(cold, cold->offset + at, size, to, buffer);
    if (!cold->step) continue;
    const int64_t stride = cold->step * cold->row_bytes;
    for (int64_t row = (at + stride - 1) / stride; row * stride < at + size; ++row) {
      memcpy(cold->to + row * cold->row_bytes, bytes + row * stride - at, (size_t)cold->row_bytes);
    }
  }
  free(buffer);
}

static void ReadColdRows(void* job, int64_t begin, int64_t end) {
  Cold* cold = job;
  char* const buffer = NewBuffer();
  for (int64_t i = begin; i < end; ++i) {
    ReadOnce(cold, cold->offset + cold->ids[i] * cold->row_bytes, cold->row_bytes,
             cold->to + i * cold->row_bytes, buffer);
  }
  free(buffer);
}

// Reads n bytes; `to` may be null.
int64_t baseline_read_cold(int64_t file, int64_t direct, int64_t offset, char* to, int64_t n,
                           int64_t threads) {
  Cold cold = {.file = (int)file, .direct = direct, .offset = offset, .to = to, .n = n};
  InParallel(ReadRequests, &cold, threads, threads);
  return -cold.failed;
}

// Reads n bytes and copies one row in `step`. Requires: `row_bytes` divides kRequest.
int64_t baseline_read_cold_steps(int64_t file, int64_t direct, int64_t offset, char* to, int64_t n,
                                 int64_t row_bytes, int64_t step, int64_t threads) {
  Cold cold = {.file = (int)file,
               .direct = direct,
               .offset = offset,
               .to = to,
               .n = n,
               .row_bytes = row_bytes,
               .step = step};
  InParallel(ReadRequests, &cold, threads, threads);
  return -cold.failed;
}

// Reads rows one by one.
int64_t baseline_read_cold_rows(int64_t file, int64_t direct, int64_t offset, const int64_t* ids,
                                int64_t count, char* to, int64_t row_bytes, int64_t threads) {
  Cold cold = {.file = (int)file,
               .direct = direct,
               .offset = offset,
               .to = to,
               .ids = ids,
               .row_bytes = row_bytes};
  InParallel(ReadColdRows, &cold, count, threads);
  return -cold.failed;
}

static inline uint64_t Crc(uint64_t crc, uint64_t word) {
#if defined(__SSE4_2__)
  return _mm_crc32_u64(crc, word);
#elif defined(__ARM_FEATURE_CRC32)
  return __crc32cd((uint32_t)crc, word);
#else
  return crc ^ word;  // Without a CRC instruction, the baseline is faster than any CRC.
#endif
}

// Computes the CRC-32C of each third of a block at the same time, because the instruction has a
// latency of three cycles. The results are not combined, which would take a negligible time.
static uint64_t CrcOfThirds(const char* block, int64_t n) {
  const int64_t words = n / 24;
  uint64_t crc[3] = {0, 0, 0};
  for (int64_t i = 0; i < words; ++i) {
    for (int third = 0; third < 3; ++third) {
      uint64_t word;
      memcpy(&word, block + (third * words + i) * 8, sizeof(word));
      crc[third] = Crc(crc[third], word);
    }
  }
  return crc[0] ^ crc[1] ^ crc[2];
}

// Reads blocks that fit into the second-level cache, and computes the checksums of each block after
// the read. Without a destination, all blocks are read into the same buffer.
static void ReadCheckedRange(void* job, int64_t begin, int64_t end) {
  Copy* copy = job;
  char* const scratch = copy->to ? NULL : malloc(kBlock);
  uint64_t crc = 0;
  for (int64_t n; begin < end; begin += n) {
    char* const to = scratch ? scratch : copy->to + begin;
    n = pread(copy->file, to, (size_t)(end - begin < kBlock ? end - begin : kBlock),
              copy->offset + begin);
    if (n <= 0) {
      copy->failed = 1;
      break;
    }
    crc ^= CrcOfThirds(to, n);
  }
  volatile uint64_t sink = crc;
  (void)sink;
  free(scratch);
}

// `to` may be null.
int64_t baseline_pread_checked(int64_t file, int64_t offset, char* to, int64_t n, int64_t threads) {
  Copy copy = {to, NULL, (int)file, offset, 0};
  InParallel(ReadCheckedRange, &copy, n, threads);
  return -copy.failed;
}

typedef struct {
  char* to;
  const char* const* slices;  // the table's stored slices, of rows_per_slice rows each
  int64_t rows_per_slice;
  const int64_t* ids;
  int64_t count;
  int64_t row_bytes;
  const char* fill;   // the row for the id -1
  int64_t streaming;  // use stores that bypass the caches
} Gather;

static inline const char* RowOf(const Gather* gather, int64_t id) {
  if (id < 0) return gather->fill;
  if (id < gather->rows_per_slice) return gather->slices[0] + id * gather->row_bytes;
  return gather->slices[id / gather->rows_per_slice] +
         id % gather->rows_per_slice * gather->row_bytes;
}

#ifdef __SSE2__
static inline void StreamSmall(char* to, const char* from) {
  _mm_stream_si128((__m128i*)to, _mm_loadu_si128((const __m128i*)from));
}

// Requires: `to` and `n` are multiples of 16.
static inline void StreamRow(char* to, const char* from, int64_t n) {
  int64_t i = 0;
#ifdef __AVX512F__
  for (; i < n && (uintptr_t)(to + i) % kLine; i += 16) StreamSmall(to + i, from + i);
  for (; i + kLine <= n; i += kLine) {
    _mm512_stream_si512((__m512i*)(to + i), _mm512_loadu_si512(from + i));
  }
#endif
  for (; i < n; i += 16) StreamSmall(to + i, from + i);
}
#endif

static inline void CopyRow(char* to, const char* from, int64_t n, int64_t streaming) {
#ifdef __SSE2__
  if (streaming) {
    StreamRow(to, from, n);
    return;
  }
#endif
  (void)streaming;
  memcpy(to, from, (size_t)n);
}

// The prefetch distance in rows: about 8 KiB, which was the fastest of 2 to 32 KiB.
static inline int64_t AheadFor(int64_t n) { return n < 256 ? 32 : n > 4096 ? 2 : 8192 / n; }

// Only the beginning of a long row is prefetched; then the processor continues by itself. A row
// that is not aligned ends in one more cache line.
static inline void PrefetchRow(const char* row, int64_t n) {
  const int64_t size = n < 1024 ? n : 1024;
  for (int64_t line = 0; line < size; line += kLine) __builtin_prefetch(row + line, 0, 1);
  __builtin_prefetch(row + size - 1, 0, 1);
}

// Inlined for each common row size, so that the copy is a fixed sequence of vector moves.
static inline __attribute__((always_inline)) void GatherRows(const Gather* gather, int64_t begin,
                                                             int64_t end, int64_t n) {
  const int64_t ahead = AheadFor(n);
  for (int64_t i = begin; i < end; ++i) {
    if (i + ahead < gather->count) PrefetchRow(RowOf(gather, gather->ids[i + ahead]), n);
    CopyRow(gather->to + i * n, RowOf(gather, gather->ids[i]), n, gather->streaming);
  }
}

static void GatherRange(void* job, int64_t begin, int64_t end) {
  const Gather* gather = job;
  switch (gather->row_bytes) {
    case 64:
      GatherRows(gather, begin, end, 64);
      break;
    case 256:
      GatherRows(gather, begin, end, 256);
      break;
    case 512:
      GatherRows(gather, begin, end, 512);
      break;
    case 1024:
      GatherRows(gather, begin, end, 1024);
      break;
    case 4096:
      GatherRows(gather, begin, end, 4096);
      break;
    default:
      GatherRows(gather, begin, end, gather->row_bytes);
      break;
  }
#ifdef __SSE2__
  _mm_sfence();
#endif
}

int64_t baseline_gather(char* to, const char* const* slices, int64_t rows_per_slice,
                        const int64_t* ids, int64_t count, int64_t row_bytes, const char* fill,
                        int64_t streaming, int64_t threads) {
  Gather gather = {to, slices, rows_per_slice, ids, count, row_bytes, fill, streaming};
  InParallel(GatherRange, &gather, count, threads);
  return 0;
}

// A hash join of two texts of lines, whose old tokens are distinct. A slot has 32 bits of the hash
// of a token and the number of its line; the position of the slot stands for more bits of the hash.
// The tokens are not compared, which makes the join faster than a correct one can be.
typedef struct {
  const char* text;
  int64_t n;
  uint64_t* slots;
  uint64_t mask;
  int64_t* ids;  // null: the tokens are inserted
  int64_t threads;
  int64_t first_line[kMaxThreads + 1];  // of the lines that begin in each thread's part
} Lines;

enum { kTokenBatch = 64 };

static const char* PartBegin(const Lines* lines, int64_t part) {
  return lines->text + lines->n * part / lines->threads;
}

static void CountLines(void* job, int64_t begin, int64_t end) {
  Lines* lines = job;
  int64_t count = 0;
  const char* const stop = PartBegin(lines, end);
  for (const char* at = PartBegin(lines, begin); at < stop; ++at) count += *at == '\n';
  lines->first_line[end] = count;
}

static inline uint64_t Mix(uint64_t a, uint64_t b) {
  const unsigned __int128 product = (unsigned __int128)a * b;
  return (uint64_t)(product >> 64) ^ (uint64_t)product;
}

// Returns the hash of the token at `at` and sets `at` to the next line.
static inline uint64_t HashLine(const char** at, const char* stop) {
  const char* token = *at;
  char tail[16] = {0};
  const char* bytes = token;
  if (stop - token < 16) bytes = memcpy(tail, token, (size_t)(stop - token));
  int64_t size = 16;
#ifdef __SSE2__
  const __m128i newlines =
      _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i*)bytes), _mm_set1_epi8('\n'));
  const int found = _mm_movemask_epi8(newlines);
  if (found) size = __builtin_ctz((unsigned)found);
#else
  for (int i = 15; i >= 0; --i) size = bytes[i] == '\n' ? i : size;
#endif
  uint64_t hash = 0x9e3779b97f4a7c15u;
  if (size == 16) {  // a long token
    const char* end = memchr(token, '\n', (size_t)(stop - token));
    if (!end) end = stop;
    for (size = end - token; size > 16; size -= 16, bytes += 16) {
      uint64_t word[2];
      memcpy(word, bytes, sizeof(word));
      hash = Mix(word[0] ^ hash, word[1] ^ 0x243f6a8885a308d3u);
    }
    if (size < 16) bytes = memcpy(tail, bytes, (size_t)size);
    token = end - size;
  }
  uint64_t low, high;
  memcpy(&low, bytes, sizeof(low));
  memcpy(&high, bytes + 8, sizeof(high));
  if (size < 8) low &= (UINT64_C(1) << 8 * size) - 1;
  high = size <= 8 ? 0 : size == 16 ? high : high & ((UINT64_C(1) << 8 * (size - 8)) - 1);
  *at = token + size + 1;
  return Mix(Mix(low ^ hash, high ^ 0x13198a2e03707345u) ^ (uint64_t)size, 0xa4093822299f31d1u);
}

static inline void InsertToken(Lines* lines, uint64_t hash, int64_t line) {
  const uint64_t slot = (hash >> 32 << 32) | (uint64_t)(line + 1);
  for (uint64_t i = hash & lines->mask;; i = (i + 1) & lines->mask) {
    uint64_t empty = 0;
    if (__atomic_compare_exchange_n(&lines->slots[i], &empty, slot, 0, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED)) {
      return;
    }
  }
}

static inline int64_t FindToken(const Lines* lines, uint64_t hash) {
  for (uint64_t i = hash & lines->mask;; i = (i + 1) & lines->mask) {
    const uint64_t slot = lines->slots[i];
    if (!slot) return -1;
    if (slot >> 32 == hash >> 32) return (int64_t)(slot & UINT32_MAX) - 1;
  }
}

// Hashes a batch of tokens and prefetches their slots before it uses the first of them.
static void JoinLines(void* job, int64_t begin, int64_t end) {
  Lines* lines = job;
  const char* at = PartBegin(lines, begin);
  const char* const part_end = PartBegin(lines, end);
  const char* const stop = lines->text + lines->n;
  int64_t line = lines->first_line[begin];
  if (begin && at[-1] != '\n') {
    at = memchr(at, '\n', (size_t)(stop - at));
    at = at ? at + 1 : stop;
    ++line;
  }
  while (at < part_end) {
    uint64_t hashes[kTokenBatch];
    int count = 0;
    for (; count < kTokenBatch && at < part_end; ++count) {
      hashes[count] = HashLine(&at, stop);
      __builtin_prefetch(&lines->slots[hashes[count] & lines->mask], 1);
    }
    for (int i = 0; i < count; ++i, ++line) {
      if (lines->ids) {
        lines->ids[line] = FindToken(lines, hashes[i]);
      } else {
        InsertToken(lines, hashes[i], line);
      }
    }
  }
}

// Returns the number of newlines.
static int64_t Survey(Lines* lines) {
  InParallel(CountLines, lines, lines->threads, lines->threads);
  for (int64_t i = 1; i <= lines->threads; ++i) lines->first_line[i] += lines->first_line[i - 1];
  return lines->first_line[lines->threads];
}

// For each line of the new text, stores the number of the line of the old text with the same token,
// or -1. Returns -1 if the new text does not have `count` lines. Requires: both texts end with a
// newline; the number of slots is a power of two and larger than that of old lines; slots are zero.
int64_t baseline_join(const char* new_text, int64_t new_n, const char* old_text, int64_t old_n,
                      uint64_t* slots, int64_t num_slots, int64_t* ids, int64_t count,
                      int64_t threads) {
  const uint64_t mask = (uint64_t)num_slots - 1;
  if (threads > kMaxThreads) threads = kMaxThreads;
  Lines old_lines = {old_text, old_n, slots, mask, NULL, threads, {0}};
  Lines new_lines = {new_text, new_n, slots, mask, ids, threads, {0}};
  if (Survey(&old_lines) >= num_slots || Survey(&new_lines) != count) return -1;
  InParallel(JoinLines, &old_lines, threads, threads);
  InParallel(JoinLines, &new_lines, threads, threads);
  return count;
}

static atomic_int sampling;
static atomic_llong peak_anonymous;
static pthread_t sampler;

static int64_t AnonymousBytes(int file) {
  char text[256];
  const ssize_t n = pread(file, text, sizeof(text) - 1, 0);
  if (n <= 0) return 0;
  text[n] = 0;
  long long size, resident, shared;
  if (sscanf(text, "%lld %lld %lld", &size, &resident, &shared) != 3) return 0;
  return (resident - shared) * sysconf(_SC_PAGESIZE);
}

static void* Sample(void* unused) {
  (void)unused;
  const int file = open("/proc/self/statm", O_RDONLY);
  const struct timespec pause = {0, 200 * 1000};
  while (file >= 0 && sampling) {
    const int64_t now = AnonymousBytes(file);
    if (now > peak_anonymous) peak_anonymous = now;
    nanosleep(&pause, NULL);
  }
  if (file >= 0) close(file);
  return NULL;
}

int64_t memory_sampler_start(void) {
  peak_anonymous = 0;
  sampling = 1;
  return pthread_create(&sampler, NULL, Sample, NULL);
}

// Returns the peak of the samples, in bytes.
int64_t memory_sampler_stop(void) {
  sampling = 0;
  pthread_join(sampler, NULL);
  return peak_anonymous;
}
