// SPDX-License-Identifier: Apache-2.0
// Checkpoints whose files are read by requests, as those of remote stores, and reads from a server
// that fails some of them.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "operations.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/read/gather.h"
#include "tensorbundle/read/prefetch.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/verify.h"
#include "tensorbundle/v1/v1_checkpoint.h"

namespace tensorbundle::threads {
namespace {

// Answers requests from a local file, as a server: one in 16 takes milliseconds, and one in
// `fails_each` fails.
class ServerFile final : public RequestReader {
 public:
  ServerFile(std::string path, uint32_t fails_each)
      : path_(std::move(path)),
        fails_each_(fails_each),
        descriptor_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
    Require(descriptor_ >= 0, "cannot open " + path_);
  }
  ~ServerFile() override { ::close(descriptor_); }
  ServerFile(const ServerFile&) = delete;
  ServerFile& operator=(const ServerFile&) = delete;

  void Read(uint64_t offset, MutableByteSpan out) const override {
    const uint32_t number = next_request++ * 2654435761u >> 8;  // not in turns
    if (number % 16 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1 + number % 4));
    if (fails_each_ > 0 && number % fails_each_ == 1) {
      throw IOFailure("the server failed a request for " + path_, path_, EIO);
    }
    for (size_t done = 0; done < out.size();) {
      const ssize_t got = ::pread(descriptor_, out.data() + done, out.size() - done,
                                  static_cast<off_t>(offset + done));
      Require(got > 0, "pread failed");
      done += static_cast<size_t>(got);
    }
  }

 private:
  inline static std::atomic<uint32_t> next_request{0};

  const std::string path_;
  const uint32_t fails_each_;
  const int descriptor_;
};

template <uint32_t kFailsEach>
std::shared_ptr<const File> OpenServerFile(const std::string& path, ReadMode) {
  const auto identity = File::Identify(path);
  if (!identity) throw CheckpointNotFoundError("no such file: " + path, path);
  return File::OfRequests(path, identity->size, std::make_unique<ServerFile>(path, kFailsEach));
}

constexpr uint32_t kNever = 0;
constexpr uint32_t kSometimes = 12;

// Runs a read, which may fail because a request does. The handle can be used afterwards.
void ReadFailing(Worker* worker,
                 void (*read)(Worker*, const SharedHandle::Pointer&, const Table&, const Tensor&)) {
  Shared& shared = *worker->shared;
  SharedHandle& handle = *shared.failing[static_cast<size_t>(worker->Below(2))];
  if (worker->Below(8) == 0) handle.Close();
  try {
    const auto checkpoint = handle.Get();
    const Table& table = worker->TableOf(handle.tables());
    read(worker, checkpoint, table, TensorOf(*checkpoint, table.name));
  } catch (const IOFailure& error) {
    Require(error.error_number() == EIO, "another error than that of the request");
  }
}

void ReadBoxes(Worker* worker) {
  ReadFailing(worker, [](Worker* self, const SharedHandle::Pointer& checkpoint, const Table& table,
                         const Tensor& tensor) {
    const Box box = table.RandomBox(&self->random);
    std::vector<uint8_t> out(Volume(box) * 4);
    ReadBox(*checkpoint, tensor, box, out, {.threads = self->Threads(), .verify = self->Flip()});
    table.Check(box, out.data());
  });
}

void ReadSmallRows(Worker* worker) {
  ReadFailing(worker, [](Worker* self, const SharedHandle::Pointer& checkpoint, const Table& table,
                         const Tensor& tensor) {
    for (int64_t row = self->Below(table.rows); row < table.rows; row += 1 + self->Below(500)) {
      const Box box{{row, 1}, {0, table.columns}};  // some of them are read ahead
      std::vector<uint8_t> out(Volume(box) * 4);
      ReadBox(*checkpoint, tensor, box, out, {});
      table.Check(box, out.data());
    }
  });
}

void GatherFetchedRows(Worker* worker) {
  ReadFailing(worker, [](Worker* self, const SharedHandle::Pointer& checkpoint, const Table& table,
                         const Tensor& tensor) {
    std::vector<int64_t> ids(static_cast<size_t>(1 + self->Below(500)));
    for (int64_t& id : ids) id = self->Below(table.rows);
    const RowLayout layout = LayOutRows(*checkpoint, tensor);
    std::vector<uint8_t> out(ids.size() * layout.row_size);
    GatherRows(*checkpoint, tensor, layout, std::span<const int64_t>(ids), {}, out,
               self->Threads());
    for (size_t i = 0; i < ids.size(); ++i) {
      table.Check({{ids[i], 1}, {0, table.columns}}, out.data() + i * layout.row_size);
    }
  });
}

// An item that cannot be read ends the stream with its exception.
void StreamFailing(Worker* worker) {
  ReadFailing(worker, [](Worker* self, const SharedHandle::Pointer& checkpoint, const Table& table,
                         const Tensor&) {
    Prefetcher stream(checkpoint, {.tensors = {checkpoint->catalog().Find(table.name)},
                                   .rows = 1 + self->Below(table.rows),
                                   .max_ahead = uint64_t{1} << 20,
                                   .threads = self->Threads()});
    int64_t rows = 0;
    StreamItem item;
    while (true) {
      const auto status = stream.Next(std::chrono::milliseconds(50), &item);
      if (status == Prefetcher::Status::kEnd) break;
      if (status == Prefetcher::Status::kWaiting) continue;
      table.Check({{item.first_row, item.num_rows}, {0, table.columns}}, item.buffer->data());
      rows += item.num_rows;
    }
    Require(rows == table.rows, "rows of a stream by requests");
  });
}

// A report names what could not be read, and nothing else.
void VerifyFailing(Worker* worker) {
  ReadFailing(worker, [](Worker* self, const SharedHandle::Pointer& checkpoint, const Table& table,
                         const Tensor&) {
    const std::vector<size_t> one = {checkpoint->catalog().Find(table.name)};
    const VerifyResult result = VerifyTensors(*checkpoint, one, self->Threads(), [](uint64_t) {});
    for (const Corruption& corruption : result.corruptions) {
      Require(corruption.error_number == EIO, "corruption: " + corruption.message);
    }
  });
}

}  // namespace

SharedHandle::Pointer OpenByRequests(const std::string& path, IoMode) {
  return Checkpoint::OpenRemote(path, &OpenServerFile<kNever>);
}
SharedHandle::Pointer OpenV1ByRequests(const std::string& path, IoMode) {
  return OpenV1({path}, IoMode::kPread, &OpenServerFile<kNever>);
}
SharedHandle::Pointer OpenFailing(const std::string& path, IoMode) {
  return Checkpoint::OpenRemote(path, &OpenServerFile<kSometimes>);
}
SharedHandle::Pointer OpenV1Failing(const std::string& path, IoMode) {
  return OpenV1({path}, IoMode::kPread, &OpenServerFile<kSometimes>);
}

const std::vector<Operation>& RequestOperations() {
  static const std::vector<Operation> operations = {
      {"read boxes by failing requests", &ReadBoxes},
      {"read rows by failing requests", &ReadSmallRows},
      {"gather by failing requests", &GatherFetchedRows},
      {"stream by failing requests", &StreamFailing},
      {"verify by failing requests", &VerifyFailing},
  };
  return operations;
}

}  // namespace tensorbundle::threads
