// SPDX-License-Identifier: Apache-2.0
// Times the join of two vocabulary files, and two steps that every join needs: reading the bytes,
// and one cache miss per token.
//
//   vocab_join make NEW OLD [TOKENS]   writes both files, shuffled; a quarter of NEW is not in OLD
//   vocab_join time NEW OLD [REPEATS]  prints the best of REPEATS in ms, with 1 and 2 threads
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/io/page_buffer.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/vocab/join.h"
#include "tensorbundle/vocab/vocabulary.h"

namespace {

using tensorbundle::File;
using tensorbundle::HugePageBuffer;
using tensorbundle::JoinOptions;
using tensorbundle::JoinResult;
using tensorbundle::ParallelFor;
using tensorbundle::Vocabulary;

constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;  // multiplication by an odd number is a bijection

void WriteVocabulary(const char* path, uint64_t first_word, uint64_t num_tokens, uint64_t seed) {
  std::vector<uint64_t> words(num_tokens);
  std::iota(words.begin(), words.end(), first_word);
  std::shuffle(words.begin(), words.end(), std::mt19937_64(seed));
  std::ofstream file(path, std::ios::binary);
  char line[32];
  for (const uint64_t word : words) {
    const uint64_t mixed = word * kOdd;
    const auto width =
        static_cast<int>(6 + mixed % 8);  // 6 to 13 digits; the last seven are unique
    const int n = std::snprintf(line, sizeof(line), "%0*llx\n", width,
                                static_cast<unsigned long long>(word + (mixed >> 60 << 24)));
    file.write(line, n);
  }
}

double BestOf(int repeats, const std::function<void()>& body) {
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    best = std::min(
        best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
                  .count());
  }
  return best;
}

void ReadBytes(const std::string& path, int threads) {
  const auto file = File::Open(path);
  const HugePageBuffer memory(file->size());
  ParallelRead(*file, 0, {static_cast<uint8_t*>(memory.data()), file->size()}, threads);
}

// Reads one random eight-byte word of a table per token; the reads are independent.
void Probe(const uint64_t* table, uint64_t table_size, uint64_t num_tokens, int threads) {
  constexpr uint64_t kPerTask = 32768;
  ParallelFor(num_tokens / kPerTask, threads, [&](size_t task) {
    uint64_t sum = 0;
    for (uint64_t i = task * kPerTask; i < (task + 1) * kPerTask; ++i)
      sum += table[(i * kOdd >> 20) % table_size];
    volatile uint64_t sink = sum;
    static_cast<void>(sink);
  });
}

void Time(const std::string& new_path, const std::string& old_path, int repeats, int threads) {
  const auto load = [&](const std::string& path) {
    return Vocabulary::OfFile(*File::Open(path), threads);
  };
  const auto new_vocabulary = load(new_path);
  const auto old_vocabulary = load(old_path);
  JoinOptions options;
  options.threads = threads;
  const uint64_t num_tokens = new_vocabulary->size() + old_vocabulary->size();
  const uint64_t table_size = old_vocabulary->size() / 8 * 11;
  const HugePageBuffer table(table_size * sizeof(uint64_t));
  std::fill_n(static_cast<uint64_t*>(table.data()), table_size, 1);

  const double bytes =
      BestOf(repeats, [&] { ReadBytes(new_path, threads), ReadBytes(old_path, threads); });
  const double probes = BestOf(repeats, [&] {
    Probe(static_cast<const uint64_t*>(table.data()), table_size, num_tokens, threads);
  });
  const double index = BestOf(repeats, [&] { load(new_path), load(old_path); });
  const double join = BestOf(repeats, [&] { Join(*new_vocabulary, *old_vocabulary, options); });
  uint64_t present = 0;
  const double whole = BestOf(repeats, [&] {
    present = JoinFiles(File::Open(new_path), File::Open(old_path), options).num_present;
  });
  std::printf(
      "threads %d: %.1f from files (line index %.1f, join %.1f); baseline %.1f (bytes %.1f, probes "
      "%.1f); %llu "
      "of %llu present\n",
      threads, whole, index, join, bytes + probes, bytes, probes,
      static_cast<unsigned long long>(present),
      static_cast<unsigned long long>(new_vocabulary->size()));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc >= 4 ? argv[1] : "";
  if (command == "make") {
    const uint64_t num_tokens = argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 4'200'000;
    WriteVocabulary(argv[3], 0, num_tokens, 1);
    WriteVocabulary(argv[2], num_tokens / 4, num_tokens, 2);
  } else if (command == "time") {
    const int repeats = argc > 4 ? std::atoi(argv[4]) : 5;
    for (const int threads : {1, 2}) Time(argv[2], argv[3], repeats, threads);
  } else {
    std::fprintf(stderr, "usage: vocab_join make|time NEW OLD [TOKENS|REPEATS]\n");
    return 2;
  }
  return 0;
}
