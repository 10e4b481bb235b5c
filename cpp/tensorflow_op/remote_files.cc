// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/remote_files.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>

#include "tensorbundle/base/checked.h"
#include "tensorflow_op/status.h"

namespace tensorbundle::op {
namespace {

// How long the end of the process waits for reads of remote files.
constexpr std::chrono::seconds kMaxWait(5);

constexpr uint64_t kReadAhead = uint64_t{256} << 10;

// Files up to this size, such as most indexes, are read when they are opened: each call of Python
// may have to wait for the GIL.
constexpr uint64_t kMaxWhole = kReadAhead;

constexpr int kMaxInterrupts = 100;  // of one call

constexpr int64_t kMaxCode = 16;  // TF_UNAUTHENTICATED

struct Registry {
  std::mutex mutex;
  std::condition_variable finished;
  // Guarded by the mutex:
  RemoteFunctions functions;
  int num_running = 0;
  bool has_ended = false;
};

Registry& TheRegistry() {
  static Registry* const registry = new Registry;  // never deleted: ops may run until the end
  return *registry;
}

template <typename Function>
Function* Find(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_DEFAULT, name));
}

// Asks the Python interpreter of this process, if there is one, to register its functions with this
// copy of the library. `import tensorflow` alone may have loaded it, without any Python of ours.
void AskPython() {
  auto* const is_initialized = Find<int()>("Py_IsInitialized");
  auto* const is_finalizing = Find<int()>("Py_IsFinalizing");  // since Python 3.13
  auto* const ensure = Find<int()>("PyGILState_Ensure");
  auto* const release = Find<void(int)>("PyGILState_Release");
  auto* const run = Find<int(const char*, void*)>("PyRun_SimpleStringFlags");
  Dl_info own{};
  if (is_initialized == nullptr || ensure == nullptr || release == nullptr || run == nullptr ||
      is_initialized() == 0 || (is_finalizing != nullptr && is_finalizing() != 0) ||
      ::dladdr(reinterpret_cast<const void*>(&AskPython), &own) == 0) {
    return;
  }
  std::string path;  // in hexadecimal
  for (const char* c = own.dli_fname; *c != '\0'; ++c) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(*c);
    path += {kDigits[byte / 16], kDigits[byte % 16]};
  }
  // exec() with a dictionary adds no name to the module __main__. If Python fails, nothing is
  // registered, and the op reports that.
  const std::string program =
      "exec('try:\\n from tensorbundle.tf import remote_files\\n"
      " remote_files.register(bytes.fromhex(\"" +
      path + "\"))\\nexcept Exception:\\n pass', {})";
  const int state = ensure();
  run(program.c_str(), nullptr);
  release(state);
}

// Keeps Python's functions registered while one of them runs.
class RunningCall {
 public:
  RunningCall() {
    if (!TryStart()) {
      AskPython();
      TryStart();
    }
  }
  ~RunningCall() {
    if (!is_registered()) return;
    Registry& registry = TheRegistry();
    const std::lock_guard lock(registry.mutex);
    if (--registry.num_running == 0) registry.finished.notify_all();
  }
  RunningCall(const RunningCall&) = delete;
  RunningCall& operator=(const RunningCall&) = delete;

  bool is_registered() const { return functions_.open != nullptr; }

  // Throws: OpError if no functions are registered.
  const RemoteFunctions& Require(const std::string& path) const {
    if (is_registered()) return functions_;
    throw OpError(Code::kUnimplemented,
                  path +
                      " is not a local file: tensorbundle reads it with Python's tf.io.gfile, and "
                      "this process has no Python with tensorbundle, or is ending");
  }

 private:
  // Whether functions are registered, or never will be.
  bool TryStart() {
    Registry& registry = TheRegistry();
    const std::lock_guard lock(registry.mutex);
    functions_ = registry.functions;
    if (is_registered()) ++registry.num_running;
    return is_registered() || registry.has_ended;
  }

  RemoteFunctions functions_;
};

thread_local bool is_interrupted = false;

// What a function of Python writes.
struct Answer {
  static constexpr int64_t kNone = INT64_MIN;
  int64_t result = kNone;
  std::string reply;
};

// Calls a function of Python: call(functions, answer). Returns its answer, whose result is not
// negative. Throws: OpError.
template <typename Call>
Answer Ask(const std::string& path, const Call& call) {
  const RunningCall running;
  const RemoteFunctions& functions = running.Require(path);
  for (int attempt = 0; attempt < kMaxInterrupts; ++attempt) {
    Answer answer;
    call(functions, &answer);
    if (answer.result >= 0) return answer;
    if (answer.result != Answer::kNone) {
      const bool is_code = answer.result >= -kMaxCode;
      throw OpError(
          is_code ? Code{static_cast<int>(-answer.result)} : Code::kUnknown,
          answer.reply.empty() ? path + " cannot be read with tf.io.gfile" : answer.reply);
    }
    is_interrupted = true;
  }
  throw OpError(Code::kCancelled, path + ": signals interrupt tf.io.gfile again and again");
}

// A file that Python has opened under a number.
class RemoteReader final : public RangeReader {
 public:
  explicit RemoteReader(std::string path) : path_(std::move(path)), file_(NextNumber()) {}
  ~RemoteReader() override {
    if (!is_open_) return;
    const RunningCall call;
    if (call.is_registered()) call.Require(path_).close(file_);
  }
  RemoteReader(const RemoteReader&) = delete;
  RemoteReader& operator=(const RemoteReader&) = delete;

  // Returns the size.
  uint64_t Open() {
    is_open_ = true;  // perhaps; closing a file that is not open does nothing
    Answer answer = Ask(path_, [&](const RemoteFunctions& functions, Answer* out) {
      functions.open(file_, path_.c_str(), int64_t{kMaxWhole}, &out->result, &out->reply);
    });
    const auto size = static_cast<uint64_t>(answer.result);
    if (size <= kMaxWhole) {
      is_open_ = false;
      whole_ = std::move(answer.reply);
      read_ = AsBytes(whole_);
    }
    return size;
  }

  // Reads ahead if small reads follow one another: a call of Python costs as much as the copy of
  // some 16 KiB.
  ByteSpan Read(uint64_t offset, uint64_t size) const override {
    if (std::this_thread::get_id() != thread_) {
      throw OpError(Code::kInternal, path_ + " is read by a thread that did not open it");
    }
    const bool is_next = offset == next_;
    next_ = offset + size;
    if (offset >= read_begin_ && RangeFits(offset - read_begin_, size, read_.size())) {
      return read_.subspan(offset - read_begin_, size);
    }
    const bool reads_ahead = is_next && size <= kReadAhead / 4;
    if (!is_open_) return read_.subspan(std::min<size_t>(offset, read_.size()));
    read_ = {};
    read_ = Call(offset, reads_ahead ? kReadAhead : size);
    read_begin_ = offset;
    return read_.first(reads_ahead ? std::min<size_t>(size, read_.size()) : read_.size());
  }

 private:
  static int64_t NextNumber() {
    static std::atomic<int64_t> next{1};
    return next++;
  }

  // Returns bytes of Python, which keeps them until the next call.
  ByteSpan Call(uint64_t offset, uint64_t size) const {
    const uint8_t* data = nullptr;
    const Answer answer = Ask(path_, [&](const RemoteFunctions& functions, Answer* got) {
      functions.read(file_, static_cast<int64_t>(offset), static_cast<int64_t>(size), &data,
                     &got->result, &got->reply);
    });
    return {data, data == nullptr ? 0 : static_cast<size_t>(answer.result)};
  }

  const std::string path_;
  const int64_t file_;
  const std::thread::id thread_ = std::this_thread::get_id();
  bool is_open_ = false;
  std::string whole_;  // the contents, if the file is small
  // Used by one thread:
  mutable uint64_t next_ = UINT64_MAX;  // the end of the last read
  mutable ByteSpan read_;               // what the last call returned
  mutable uint64_t read_begin_ = 0;     // its offset in the file
};

struct Uri {
  std::string_view scheme;  // "" if the path has none
  std::string_view path;    // without scheme and host
};

// Splits "scheme://host/path" as TensorFlow's ParseURI() does: [a-zA-Z][a-zA-Z0-9.]+ is a scheme.
Uri Parse(std::string_view path) {
  const auto is_letter = [](char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; };
  size_t end = 0;
  if (!path.empty() && is_letter(path[0])) {
    while (end < path.size() &&
           (is_letter(path[end]) || path[end] == '.' || (path[end] >= '0' && path[end] <= '9'))) {
      ++end;
    }
  }
  constexpr std::string_view kSeparator = "://";
  if (end < 2 || !path.substr(end).starts_with(kSeparator)) return {"", path};
  const size_t host = end + kSeparator.size();
  const size_t slash = std::min(path.find('/', host), path.size());
  return {path.substr(0, end), path.substr(slash)};
}

// Removes "x/.." from the directory of a path. Leaves the name of the file as it is.
std::string WithoutParents(std::string_view path) {
  if (path.find("/../") == std::string_view::npos) return std::string(path);
  std::vector<std::string_view> kept;
  const bool is_absolute = path.starts_with('/');
  const size_t name = path.rfind('/') + 1;
  for (size_t begin = 0; begin < name;) {
    const size_t end = path.find('/', begin);
    const std::string_view part = path.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      kept.push_back(part);
    } else if (!kept.empty() && kept.back() != "..") {
      kept.pop_back();
    } else if (!is_absolute) {
      kept.push_back(part);
    }
  }
  std::string clean = is_absolute ? "/" : "";
  for (const std::string_view part : kept) clean.append(part).append("/");
  return clean.append(path.substr(name));
}

}  // namespace

void SetRemoteFunctions(const RemoteFunctions& functions) {
  Registry& registry = TheRegistry();
  std::unique_lock lock(registry.mutex);
  registry.functions = functions;
  registry.has_ended = functions.open == nullptr;
  registry.finished.wait_for(lock, kMaxWait, [&] { return registry.num_running == 0; });
}

DeferredInterrupt::DeferredInterrupt() : num_exceptions_(std::uncaught_exceptions()) {
  is_interrupted = false;
}

DeferredInterrupt::~DeferredInterrupt() {
  if (!is_interrupted || std::uncaught_exceptions() > num_exceptions_) return;
  const RunningCall call;
  if (call.is_registered()) call.Require("").interrupt();
}

void RequireRemoteFunctions(const std::string& path) { RunningCall().Require(path); }

void AppendTo(void* reply, std::string_view bytes) {
  static_cast<std::string*>(reply)->append(bytes);
}

bool IsRemote(std::string_view path) {
  const std::string_view scheme = Parse(path).scheme;
  return !scheme.empty() && scheme != "file";
}

std::string LocalPath(const std::string& path) {
  const Uri uri = Parse(path);
  if (uri.scheme.empty()) return WithoutParents(path);
  if (!uri.path.empty()) return std::string(uri.path);
  throw OpError(Code::kNotFound, path + " names no file");
}

std::shared_ptr<const File> OpenRemote(const std::string& path, ReadMode) {
  auto reader = std::make_unique<RemoteReader>(path);
  const uint64_t size = reader->Open();
  return File::OfRanges(path, size, std::move(reader));
}

std::vector<std::string> MatchRemote(const std::string& pattern) {
  const Answer answer = Ask(pattern, [&](const RemoteFunctions& functions, Answer* out) {
    functions.glob(pattern.c_str(), &out->result, &out->reply);
  });
  const std::string& reply = answer.reply;
  std::vector<std::string> paths;
  for (size_t begin = 0; begin < reply.size();) {
    const size_t end = std::min(reply.find('\0', begin), reply.size());
    paths.push_back(reply.substr(begin, end - begin));
    begin = end + 1;
  }
  return paths;
}

std::shared_ptr<const File> OpenAnywhere(const std::string& path) {
  return IsRemote(path) ? OpenRemote(path) : File::Open(LocalPath(path));
}

}  // namespace tensorbundle::op
