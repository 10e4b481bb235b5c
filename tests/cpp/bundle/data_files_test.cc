// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/data_files.h"

#include <gtest/gtest.h>

#include <sys/resource.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::TempDir;

Catalog CatalogOf(std::vector<std::string> paths, std::vector<uint64_t> ends = {}) {
  Catalog catalog;
  catalog.files = std::move(paths);
  catalog.file_ends = std::move(ends);
  return catalog;
}

TEST(DataFiles, MissingFileAffectsNoOtherFile) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir / "gone", dir.Write("here", "abc"), dir / "."});
  const DataFiles files(catalog, IoMode::kAuto);
  EXPECT_EQ(files.Get(1).size(), 3U);
  EXPECT_EQ(AsText(files.MapForViews(1)->bytes()), "abc");
  EXPECT_EQ(AsText(files.MapForReading(1)->bytes()), "abc");
  for (int round = 0; round < 2; ++round) {
    EXPECT_THROW(files.Get(0), CheckpointNotFoundError);
    EXPECT_THROW(files.MapForViews(0), CheckpointNotFoundError);
    EXPECT_THROW(files.Get(2), IOFailure);
  }
  EXPECT_THROW(files.Get(3), std::out_of_range);
  dir.Write("gone", "back");
  EXPECT_EQ(AsText(files.MapForReading(0)->bytes()), "back");
}

TEST(DataFiles, OpensOnlyWantedFiles) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir.Write("a", "1"), dir.Write("b", "2")});
  const std::vector<bool> wanted{false, true};
  const DataFiles files(catalog, IoMode::kAuto, std::nullopt, &wanted);
  EXPECT_THROW(files.Get(0), std::out_of_range);
  EXPECT_EQ(files.Get(1).size(), 1U);
}

TEST(DataFiles, ModesThatNeverMap) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir.Write("f", "abc")});
  EXPECT_EQ(DataFiles(catalog, IoMode::kPread).MapForViews(0), nullptr);
  EXPECT_EQ(DataFiles(catalog, IoMode::kPread).MapForReading(0), nullptr);
  EXPECT_NE(DataFiles(catalog, IoMode::kMmap).MapForViews(0), nullptr);
}

TEST(DataFiles, DoesNotMapAShrunkFile) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir.Write("f", "abc")});
  const DataFiles files(catalog, IoMode::kAuto);
  EXPECT_NO_THROW(files.MapForViews(0));
  std::filesystem::resize_file(dir / "f", 2);
  EXPECT_THROW(files.MapForViews(0), CorruptionError);
  EXPECT_THROW(files.MapForReading(0), CorruptionError);
}

// Writes to a view are visible in views only.
TEST(DataFiles, ViewsArePrivate) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir.Write("f", "abc")});
  const DataFiles files(catalog, IoMode::kAuto);
  files.MapForViews(0)->writable_data()[0] = 'X';
  EXPECT_EQ(AsText(files.MapForViews(0)->bytes()), "Xbc");
  EXPECT_EQ(AsText(files.MapForReading(0)->bytes()), "abc");
  uint8_t byte = 0;
  files.Get(0).ReadAt(0, {&byte, 1});
  EXPECT_EQ(byte, 'a');
}

TEST(DataFiles, DiagnosesFilesOfOtherKinds) {
  const TempDir dir;
  const Catalog catalog = CatalogOf(
      {dir.Write("exact", "abc"), dir.Write("longer", "abcd"), dir.Write("short", "ab"),
       dir.Write("empty", ""), dir.Write("lfs", "version https://git-lfs.github.com/spec/v1\n"),
       dir.Write("html", " <!DOCTYPE HTML>"), dir.Write("no bytes wanted", "")},
      {3, 3, 3, 3, 3, 3, 0});
  const DataFiles files(catalog, IoMode::kAuto);
  const auto reason = [&](uint32_t file) { return files.DescribeError(file); };
  EXPECT_EQ(reason(0), "");
  EXPECT_EQ(reason(1), "");
  EXPECT_NE(reason(2).find("2 bytes, its stored slices end at 3"), std::string::npos);
  EXPECT_NE(reason(3).find("is empty"), std::string::npos);
  EXPECT_NE(reason(4).find("Git-LFS"), std::string::npos);
  EXPECT_NE(reason(5).find("HTML"), std::string::npos);
  EXPECT_EQ(reason(6), "");
}

// Every kind of file that is found in place of data, and some that are nearly one.
TEST(DataFiles, RecognizesOtherFilesByTheirFirstBytes) {
  using namespace std::string_literals;
  const auto error_of = [](const std::string& contents, uint64_t end) {
    const TempDir dir;
    return Diagnose(*File::Open(dir.Write("f", contents)), end).error;
  };
  const std::string tar = std::string(257, 'x') + "ustar";
  const std::pair<std::string, FileError> files[] = {
      {"\xef\xbb\xbf<html>", FileError::kHtmlPage},
      {"\r\n\t <head>", FileError::kHtmlPage},
      {"<!-- comment", FileError::kHtmlPage},
      {"<SCRIPT>", FileError::kHtmlPage},
      {"<?xml version", FileError::kXmlDocument},
      {"<Error><Code>", FileError::kXmlDocument},
      {"version https://git-lfs", FileError::kGitLfsPointer},
      {"\x1f\x8b\x08...", FileError::kGzip},
      {"BZh91AY", FileError::kBzip2},
      {"\xfd\x37zXZ\0..."s, FileError::kXz},
      {"\x28\xb5\x2f\xfd...", FileError::kZstandard},
      {"7z\xbc\xaf\x27\x1c...", FileError::kSevenZip},
      {"PK\x03\x04...", FileError::kZip},
      {tar, FileError::kTar},
      {"\2\0\0\0\0\0\0\0{}"s, FileError::kSafetensors},
      {"\x40\0\0\0\0\0\0\0{\"a\":"s, FileError::kSafetensors},
      {"\x40\0\0\0\0\0\0\0{a\":"s, FileError::kTooShort},
      {"{\"error\": 404}", FileError::kJson},
      {"404: Not Found\r\n", FileError::kShortText},
      {std::string(200, 't'), FileError::kShortText},
      {std::string(201, 't'), FileError::kTooShort},
      {"seven b", FileError::kTooShort},
      {"   \r\n      ", FileError::kTooShort},
      {"text \x7f text", FileError::kTooShort},
      {"text \t text", FileError::kTooShort},
      {"<other>\1", FileError::kTooShort},
      {"", FileError::kEmpty},
  };
  for (const auto& [contents, error] : files) {
    EXPECT_EQ(error_of(contents, 1000), error) << EscapeBytes(contents);
    EXPECT_EQ(error_of(contents, contents.size()), FileError::kNone) << EscapeBytes(contents);
  }
  // A longer file may be data that begins so: only texts and archives are recognized, and no error
  // of it is certain.
  EXPECT_EQ(error_of("{\"error\": 404}", 3), FileError::kNone);
  EXPECT_EQ(error_of(tar, 3), FileError::kTar);
  const TempDir dir;
  const auto html = File::Open(dir.Write("f", "<html>"));
  EXPECT_TRUE(Diagnose(*html, 1000).is_certain);
  EXPECT_FALSE(Diagnose(*html, 3).is_certain);
}

TEST(DataFiles, DescribesEveryKindOfFile) {
  const TempDir dir;
  const auto file = File::Open(dir.Write("f", "404: Not Found\r\n"));
  const std::pair<FileError, const char*> messages[] = {
      {FileError::kNone, ""},
      {FileError::kEmpty, " is empty, its stored slices end at byte 99"},
      {FileError::kTooShort,
       " has 16 bytes, its stored slices end at 99: it was cut off, or "
       "belongs to another checkpoint"},
      {FileError::kGitLfsPointer,
       " is a Git-LFS pointer, not the data: run 'git lfs pull' in its "
       "repository"},
      {FileError::kHtmlPage, " is an HTML page, not the data: the download went wrong"},
      {FileError::kXmlDocument,
       " is an XML document, not the data: the download went wrong, and "
       "it may say why"},
      {FileError::kGzip, " is compressed with gzip: unpack it first, with gunzip or tar"},
      {FileError::kBzip2, " is compressed with bzip2: unpack it first, with bunzip2 or tar"},
      {FileError::kXz, " is compressed with xz: unpack it first, with unxz or tar"},
      {FileError::kZstandard, " is compressed with Zstandard: unpack it first, with unzstd or tar"},
      {FileError::kSevenZip, " is a 7z archive: unpack it first"},
      {FileError::kZip, " is a zip archive, as PyTorch and NumPy write them too, not the data"},
      {FileError::kTar, " is a tar archive: unpack it first"},
      {FileError::kSafetensors, " is a safetensors file, not the data"},
      {FileError::kJson, " is JSON text, not the data: the download went wrong"},
      {FileError::kShortText, " has nothing but the text '404: Not Found'"},
  };
  for (const auto& [error, message] : messages) {
    const std::string path = error == FileError::kNone ? "" : file->path();
    EXPECT_EQ(DescribeFileError(*file, error, 99), path + message);
  }
}

// A file of one kind that cannot be read has no first bytes.
TEST(DataFiles, IgnoresErrorsOfTheReadForADiagnosis) {
  const TempDir dir;
  const auto file = File::Open(dir.Write("f", std::string(100, 'x')));
  std::filesystem::resize_file(dir / "f", 0);
  EXPECT_EQ(Diagnose(*file, 1000).error, FileError::kTooShort);
}

TEST(DataFiles, ProposesFilesThatMayBeTheMissingOne) {
  const std::string missing = "p.data-00000-of-00002";
  const auto message = [&](const std::vector<std::string>& names) {
    const TempDir dir;
    for (const std::string& name : names) dir.Write(name, "");
    const std::string text = DescribeMissingFile(dir / missing);
    const std::string start = "the data file " + (dir / missing) + " is missing";
    EXPECT_TRUE(text.starts_with(start)) << text;
    return text.substr(start.size());
  };
  const std::string end = " in the same directory may be it under another name";
  EXPECT_EQ(message({}), "; was the checkpoint copied in part?");
  EXPECT_EQ(message({"p.index", "p.data-00001-of-00002", "q.data-00000-of-00001", "q.index"}),
            "; was the checkpoint copied in part?");
  EXPECT_EQ(message({missing + ".download"}), "; '" + missing + ".download'" + end);
  EXPECT_EQ(message({"p.data"}), "; 'p.data'" + end);
  EXPECT_EQ(message({"p.index", "p.data-00000-of-00003"}), "; 'p.data-00000-of-00003'" + end);
  EXPECT_EQ(message({"lost.data-00000-of-00001"}), "; 'lost.data-00000-of-00001'" + end);
  EXPECT_EQ(message({"lost.data-0000x-of-00001", "lost.data-0000!-of-00001", ".data-00000-of-00001",
                     "lost"}),
            "; was the checkpoint copied in part?");
  EXPECT_EQ(
      message({missing + ".1", missing + ".2", missing + ".3", missing + ".4", missing + ".5"}),
      "; '" + missing + ".1', '" + missing + ".2', '" + missing + ".3' and 2 more" + end);
}

TEST(DataFiles, DescribesAMissingFileOfAMissingDirectory) {
  const TempDir dir;
  EXPECT_EQ(DescribeMissingFile(dir / "gone/f"), "the data file " + (dir / "gone/f") +
                                                     " is missing; was the checkpoint copied in "
                                                     "part?");
}

// Only so many names of a directory are compared.
TEST(DataFiles, ReadsAPartOfALargeDirectory) {
  const TempDir dir;
  for (int i = 0; i < 5'100; ++i) dir.Write("f" + std::to_string(i), "");
  const std::string message = DescribeMissingFile(dir / "f");
  const size_t at = message.find(" and ");
  ASSERT_NE(at, std::string::npos) << message;
  EXPECT_TRUE(message.substr(at).starts_with(" and 4997 more ")) << message;
}

TEST(DataFiles, NamesTheTargetOfADanglingLink) {
  const TempDir dir;
  std::filesystem::create_symlink("nowhere", dir / "f");
  EXPECT_EQ(DescribeMissingFile(dir / "f"), "the data file " + (dir / "f") +
                                                " is a symbolic link to 'nowhere', which does not "
                                                "exist");
}

TEST(DataFiles, DescribesAMissingFileOfTheWorkingDirectory) {
  EXPECT_TRUE(DescribeMissingFile("no-such-file").starts_with("the data file no-such-file is "));
}

// Without descriptors, half of the files are closed, so that reads can open the one that they need.
TEST(DataFiles, LeavesDescriptorsToOthers) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "UBSan opens a pipe to check the object that is thrown here";
#endif
  const TempDir dir;
  std::vector<std::string> paths;
  for (int i = 0; i < 40; ++i) paths.push_back(dir.Write("f" + std::to_string(i), "abc"));
  const Catalog catalog = CatalogOf(paths);
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlimit few{30, limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  {
    const DataFiles files(catalog, IoMode::kAuto);
    uint32_t num_open = 0;
    for (uint32_t file = 0; file < files.size(); ++file) num_open += files.IsOpen(file) ? 1 : 0;
    EXPECT_GT(num_open, 5u);
    EXPECT_LT(num_open, 16u);
    EXPECT_EQ(files.Get(39).size(), 3u);
  }
  ::setrlimit(RLIMIT_NOFILE, &limit);
  EXPECT_FALSE(DataFiles(catalog, IoMode::kAuto).IsOpen(40)) << "no such file";
}

// An opener is called for each file when it is used first, with the mode of the reads.
TEST(DataFiles, OpensFilesWithAnOpener) {
  class NoBytes final : public RangeReader {
    ByteSpan Read(uint64_t, uint64_t) const override { return {}; }
  };
  const Catalog catalog = CatalogOf({"a", "b"});
  std::vector<std::string> opened;
  const FileOpener opener = [&](const std::string& path, ReadMode mode) {
    EXPECT_EQ(mode, ReadMode::kDirect);
    opened.push_back(path);
    return File::OfRanges(path, 0, std::make_unique<NoBytes>());
  };
  const DataFiles files(catalog, IoMode::kDirect, std::nullopt, nullptr, opener);
  EXPECT_TRUE(opened.empty());
  EXPECT_FALSE(files.IsOpen(1));
  EXPECT_EQ(files.AgeOf(1), DataFiles::Age::kOlder) << "not known";
  files.Get(1);
  files.Get(1);
  EXPECT_EQ(opened, std::vector<std::string>{"b"});
  EXPECT_EQ(files.AgeOf(1), DataFiles::Age::kOlder) << "no index to compare it with";
  const DataFiles automatic(catalog, IoMode::kAuto, std::nullopt, nullptr,
                            [](const std::string& path, ReadMode) {
                              return File::OfRanges(path, 0, std::make_unique<NoBytes>());
                            });
  EXPECT_EQ(automatic.MapForViews(0), nullptr);
}

TEST(DataFiles, ComparesAgesWithTheIndex) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir.Write("f", "abc")});
  const auto file = File::Open(dir / "f");
  IndexFile index{dir / "p.index", file->identity()};
  const auto age = [&] { return DataFiles(catalog, IoMode::kAuto, index).AgeOf(0); };
  index.identity.changed_ns = file->BornOrChanged();
  EXPECT_EQ(age(), DataFiles::Age::kSameTick);
  index.identity.changed_ns -= 1;
  EXPECT_EQ(age(), DataFiles::Age::kNewer);
  index.identity.changed_ns = file->identity().changed_ns + 1;
  EXPECT_EQ(age(), DataFiles::Age::kOlder) << "unchanged since";
  if (file->BornOrChanged() < file->identity().changed_ns) {
    index.identity.changed_ns = file->identity().changed_ns;
    EXPECT_EQ(age(), DataFiles::Age::kOlder) << "born before, then renamed";
  }
}

TEST(DataFiles, ReplacedIndex) {
  const TempDir dir;
  const std::string path = dir.Write("p.index", "old");
  const IndexFile index{path, File::Open(path)->identity()};
  EXPECT_FALSE(index.WasReplaced());
  const Catalog catalog = CatalogOf({dir / "gone"});
  const DataFiles files(catalog, IoMode::kAuto, index);
  std::filesystem::remove(path);
  EXPECT_FALSE(index.WasReplaced());  // deleted
  dir.Write("p.index", "newer");
  EXPECT_TRUE(index.WasReplaced());
  dir.Write("gone", "of the newer one");
  EXPECT_THROW(files.Get(0), CorruptionError);
}

TEST(DataFiles, ReplacedIndexOfTheSameSize) {
  const TempDir dir;
  const std::string path = dir.Write("p.index", "old");
  const IndexFile index{path, File::Open(path)->identity()};
  std::filesystem::rename(dir.Write("aside", "new"), path);
  EXPECT_TRUE(index.WasReplaced());
}

TEST(DataFiles, RecognizesArchives) {
  const TempDir dir;
  const std::string tar = std::string(257, 'x') + "ustar" + std::string(300, 'x');
  const Catalog catalog =
      CatalogOf({dir.Write("gzip", "\x1f\x8b\x08 more"), dir.Write("zip", "PK\x03\x04"),
                 dir.Write("xz", std::string("\xfd\x37zXZ\0", 6)), dir.Write("tar", tar)},
                {3, 400, 400, 400});  // archives are longer or shorter than the data
  const DataFiles files(catalog, IoMode::kAuto);
  const char* const kinds[] = {"gzip", "zip", "xz", "tar"};
  for (uint32_t file = 0; file < 4; ++file) {
    EXPECT_NE(files.DescribeError(file).find(kinds[file]), std::string::npos);
    EXPECT_FALSE(files.Diagnosis(file).is_certain);
  }
}

TEST(DataFiles, FailsInSeveralThreads) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir / "gone"});
  const DataFiles files(catalog, IoMode::kAuto);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        try {
          files.Get(0);
          ADD_FAILURE();
        } catch (const CheckpointNotFoundError& error) {
          EXPECT_EQ(error.path(), dir / "gone");
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Some threads ask before the file exists.
TEST(DataFiles, OpensAFileOnceInSeveralThreads) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir / "f"});
  const DataFiles files(catalog, IoMode::kAuto);
  dir.Write("f", "abc");
  std::vector<std::thread> threads;
  std::vector<const File*> found(4);
  for (size_t i = 0; i < found.size(); ++i) {
    threads.emplace_back([&, i] {
      found[i] = &files.Get(0);
      EXPECT_EQ(AsText(files.MapForViews(0)->bytes()), "abc");
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const File* file : found) EXPECT_EQ(file, found[0]);
}

}  // namespace
}  // namespace tensorbundle
