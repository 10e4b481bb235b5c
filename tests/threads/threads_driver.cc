// SPDX-License-Identifier: Apache-2.0
// Threads that run every operation of the core and every kernel on the same files, handles and
// caches, and compare every result. Meant for ThreadSanitizer: `nox -s threads -- SECONDS`.
//
// Usage: threads_driver [SECONDS [THREADS [SEED]]]. Prints how often each operation ran. Every
// operation runs at least once in each thread, also if that takes longer.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "operations.h"
#include "tensorbundle/v1/v1_checkpoint.h"

namespace tensorbundle::threads {
namespace {

std::shared_ptr<const Checkpoint> OpenV1File(const std::string& path, IoMode mode) {
  return OpenV1({path}, mode);
}

void OpenAll(Shared* shared) {
  for (const IoMode mode : {IoMode::kAuto, IoMode::kPread}) {
    shared->handles.push_back(std::make_unique<SharedHandle>(
        shared->files.v2(), mode, &Checkpoint::OpenBundle, &SampleFiles::V2Tables()));
    shared->handles.push_back(std::make_unique<SharedHandle>(shared->files.v1(), mode, &OpenV1File,
                                                             &SampleFiles::V1Tables()));
  }
  const auto add = [shared](SharedHandle::Opener v2, SharedHandle::Opener v1, auto* handles) {
    handles->push_back(std::make_unique<SharedHandle>(shared->files.v2(), IoMode::kPread, v2,
                                                      &SampleFiles::V2Tables()));
    handles->push_back(std::make_unique<SharedHandle>(shared->files.v1(), IoMode::kPread, v1,
                                                      &SampleFiles::V1Tables()));
  };
  add(&OpenByRequests, &OpenV1ByRequests, &shared->handles);
  add(&OpenFailing, &OpenV1Failing, &shared->failing);
  const auto new_file = File::Open(shared->files.new_vocab_path());
  shared->old_vocab = Vocabulary::OfFile(*File::Open(shared->files.old_vocab_path()), 2);
  shared->new_vocab = Vocabulary::OfFile(*new_file, 2);
  shared->new_lines = std::make_unique<const LineStream>(new_file, 2);
}

int Run(int seconds, int num_threads, unsigned seed) {
  Shared shared;
  OpenAll(&shared);
  RegisterKernels(&shared);
  std::vector<Operation> operations;
  for (const auto* each :
       {&ReadOperations(), &WriteOperations(), &KernelOperations(), &RequestOperations()}) {
    operations.insert(operations.end(), each->begin(), each->end());
  }
  std::vector<std::atomic<uint64_t>> counts(operations.size());
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  const auto work = [&](int number) {
    Worker worker{&shared, number, Random(seed + static_cast<unsigned>(number))};
    const auto count = static_cast<int64_t>(operations.size());
    for (int64_t turn = 0; turn < count || std::chrono::steady_clock::now() < end; ++turn) {
      const int64_t next = turn < count ? (turn + number * 5) % count : worker.Below(count);
      const auto index = static_cast<size_t>(next);
      try {
        operations[index].run(&worker);
      } catch (const std::exception& error) {
        Require(false, std::string(operations[index].name) + ": " + error.what());
      }
      ++counts[index];
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < num_threads; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  uint64_t total = 0;
  for (size_t i = 0; i < operations.size(); ++i) {
    std::printf("%8lu  %s\n", static_cast<unsigned long>(counts[i].load()), operations[i].name);
    total += counts[i];
  }
  std::printf("%8lu  operations in %d threads, all correct\n", static_cast<unsigned long>(total),
              num_threads);
  return 0;
}

}  // namespace
}  // namespace tensorbundle::threads

// ThreadSanitizer does not see how libstdc++ counts the references to an exception: it reports that
// the thread which frees an exception races with those that have read its message.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:std::__exception_ptr::exception_ptr::_M_release\n"
         "race:std::runtime_error::~runtime_error\n"
         "race:::Translate()\n";  // in tensorflow_op/status.cc: reads the message
}

int main(int argc, char** argv) {
  const auto argument = [&](int index, int otherwise) {
    return argc > index ? std::atoi(argv[index]) : otherwise;
  };
  return tensorbundle::threads::Run(argument(1, 2), argument(2, 8),
                                    static_cast<unsigned>(argument(3, 1)));
}
