#include "core/safetensors.hpp"

#include <fmt/format.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <string>

#include "core/expect_error.hpp"
#include "core/temporary_directory.hpp"

namespace oriel {
namespace {

using testing::ElementsAre;

/// A file with this header text and `data_bytes` bytes 0, 1, 2, ... after it.
std::string file_of(std::string_view header, size_t data_bytes) {
  std::string file;
  for (size_t i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 0xff);
  file += header;
  for (size_t i = 0; i < data_bytes; ++i) file += static_cast<char>(i);
  return file;
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class Safetensors : public testing::Test {
 protected:
  [[nodiscard]] SafetensorsFile open(std::string_view content) const {
    return SafetensorsFile::open(directory_.write("m.safetensors", content));
  }
  /// Expects malformed_model; `message` is what follows the path.
  void expect_malformed(std::string_view content, const std::string& message) const {
    expect_error(ErrorCode::malformed_model, path() + message, [&] { (void)open(content); });
  }
  void expect_malformed_header(std::string_view header, size_t data_bytes, const std::string& message) const {
    expect_malformed(file_of(header, data_bytes), message);
  }
  [[nodiscard]] std::string path() const { return (directory_.path() / "m.safetensors").string(); }

  TemporaryDirectory directory_;
};

TEST_F(Safetensors, GivesTensorsInTheOrderOfTheirBytes) {
  const SafetensorsFile file =
      open(file_of(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[1,2],"data_offsets":[2,10]},)"
                   R"("a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                   10));
  ASSERT_EQ(file.tensors().size(), 2U);
  EXPECT_EQ(file.tensors()[0].name, "a");
  EXPECT_EQ(file.tensors()[1].name, "b");
  EXPECT_EQ(file.tensors()[1].dtype, "F32");
  EXPECT_THAT(file.tensors()[1].shape, ElementsAre(1, 2));
  EXPECT_EQ(text_of(file.bytes(*file.find("b"))), "\x02\x03\x04\x05\x06\x07\x08\x09");  // starts at an odd address
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_EQ(file.path(), path());
  EXPECT_THAT(std::string(file.header()), testing::StartsWith(R"({"__metadata__":{"format":"pt"})"));
}

TEST_F(Safetensors, ZeroSizeTensorsScalarsAndNoTensorsAreFine) {
  EXPECT_TRUE(open(file_of("{}", 0)).tensors().empty());
  const SafetensorsFile file = open(file_of(
      R"({"s":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},"z":{"dtype":"F32","shape":[0,7],"data_offsets":[2,2]},)"
      R"("z0":{"dtype":"F32","shape":[3,0],"data_offsets":[0,0]}})",
      2));
  EXPECT_EQ(file.bytes(*file.find("s")).size(), 2U);
  EXPECT_TRUE(file.bytes(*file.find("z")).empty());
  EXPECT_TRUE(file.bytes(*file.find("z0")).empty());
}

TEST_F(Safetensors, EveryDtypeOfTheFormatHasItsWidth) {
  const std::pair<const char*, int> widths[] = {
      {"F64", 64}, {"F32", 32}, {"F16", 16},    {"BF16", 16},   {"I64", 64},    {"I32", 32},   {"I16", 16},
      {"I8", 8},   {"U64", 64}, {"U32", 32},    {"U16", 16},    {"U8", 8},      {"BOOL", 8},   {"F8_E4M3", 8},
      {"C64", 64}, {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E5M2", 8}, {"F8_E8M0", 8}};
  for (const auto& [dtype, bits] : widths) {
    const auto bytes = static_cast<size_t>(bits);  // of eight elements
    const std::string header =
        fmt::format(R"({{"w":{{"dtype":"{}","shape":[8],"data_offsets":[0,{}]}}}})", dtype, bytes);
    EXPECT_EQ(open(file_of(header, bytes)).tensors()[0].dtype, dtype);
  }
  expect_malformed_header(R"({"w":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2,
                          ": header: w: expected a whole number of bytes, got 3 elements of 4 bits");
}

TEST_F(Safetensors, CopiesShareTheMappingAndKeepItAlive) {
  auto file =
      std::make_unique<SafetensorsFile>(open(file_of(R"({"w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", 3)));
  const SafetensorsFile copy = *file;
  file.reset();
  EXPECT_EQ(text_of(copy.bytes(copy.tensors()[0])), std::string("\x00\x01\x02", 3));
}

TEST_F(Safetensors, ReleasedTensorsCanBeReadAgain) {
  constexpr size_t size = 64 * 1024;
  const SafetensorsFile file =
      open(file_of(fmt::format(R"({{"w":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}})", size), size));
  const std::string before = text_of(file.bytes(file.tensors()[0]));
  file.release(file.tensors()[0]);
  EXPECT_EQ(text_of(file.bytes(file.tensors()[0])), before);
}

TEST_F(Safetensors, BytesOutsideTheFileAreRefused) {
  const SafetensorsFile file = open(file_of("{}", 0));
  expect_error(ErrorCode::invalid_argument, path() + ": expected a tensor of this file, got w at bytes [0, 11)", [&] {
    (void)file.bytes(TensorInfo{"w", "U8", {11}, 0, 11});
  });
  expect_error(ErrorCode::invalid_argument, path() + ": expected a tensor of this file, got w at bytes [-1, 2)", [&] {
    file.release(TensorInfo{"w", "U8", {3}, -1, 2});
  });
}

// Files that can't be read.

TEST_F(Safetensors, MissingFilesAndDirectoriesAreFileErrors) {
  expect_error(ErrorCode::file_error, path() + ": can't be opened: No such file or directory",
               [&] { (void)SafetensorsFile::open(path()); });
  expect_error(ErrorCode::file_error, directory_.path().string() + ": expected a file, found a directory or device",
               [&] { (void)SafetensorsFile::open(directory_.path()); });
}

TEST_F(Safetensors, PipesAreRefusedWithoutWaiting) {
  ASSERT_EQ(::mkfifo(path().c_str(), 0600), 0);
  expect_error(ErrorCode::file_error, path() + ": expected a file, found a directory or device",
               [&] { (void)SafetensorsFile::open(path()); });
}

TEST_F(Safetensors, FilesTooShortForALengthAreRefused) {
  expect_malformed("", ": expected a safetensors file of at least 8 bytes, got 0");
  expect_malformed("1234567", ": expected a safetensors file of at least 8 bytes, got 7");
}

// Headers.

TEST_F(Safetensors, HeaderLengthsBeyondTheFileAreRefused) {
  expect_malformed(std::string("\x03\0\0\0\0\0\0\0{}", 10),
                   ": expected a header of 3 bytes, got 2 bytes in the file after the length");
  expect_malformed(std::string("\x00\xe1\xf5\x05\0\0\0\0{}", 10),
                   ": expected a header of 100000000 bytes, got 2 bytes in the file after the length");
}

TEST_F(Safetensors, HeaderLengthsAboveTheLimitAreRefused) {
  expect_malformed(std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10),
                   ": expected a header of at most 100000000 bytes, got 100000001; is this a safetensors file?");
  expect_malformed(std::string(8, '\xff'),
                   ": expected a header of at most 100000000 bytes, got 18446744073709551615; is this a safetensors "
                   "file?");
}

TEST_F(Safetensors, HeadersThatAreNoJsonObjectAreRefused) {
  expect_malformed_header("nope", 0,
                          ": header: line 1, column 2: expected JSON, got syntax error while parsing value - invalid "
                          "literal; last read: 'no'");
  expect_malformed_header("[1]", 0, ": header: expected an object, got [1]");
  expect_malformed_header("", 0,
                          ": header: line 1, column 1: expected JSON, got syntax error while parsing value - "
                          "unexpected end of input; expected '[', '{', or a literal");
}

TEST_F(Safetensors, DuplicateNamesAreRefused) {
  const std::string entry = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  expect_malformed_header(R"({"w":)" + entry + R"(,"w":)" + entry + "}", 1,
                          ": header: expected unique keys, got \"w\" twice");
}

TEST_F(Safetensors, EntriesOfTheWrongKindAreRefused) {
  const auto expect = [&](std::string_view entry, const std::string& message) {
    expect_malformed_header(fmt::format(R"({{"w":{}}})", entry), 4, ": header: w" + message);
  };
  expect("7", ": expected an object, got 7");
  expect("null", ".dtype: expected a string, the key is missing");
  expect(R"({"shape":[4],"data_offsets":[0,4]})", ".dtype: expected a string, the key is missing");
  expect(R"({"dtype":5,"shape":[4],"data_offsets":[0,4]})", ".dtype: expected a string, got 5");
  expect(R"({"dtype":"U8","data_offsets":[0,4]})", ".shape: expected an array, the key is missing");
  expect(R"({"dtype":"U8","shape":4,"data_offsets":[0,4]})", ".shape: expected an array, got 4");
  expect(R"({"dtype":"U8","shape":["4"],"data_offsets":[0,4]})",
         ".shape[0]: expected an integer in [0, 9223372036854775807], got \"4\"");
  expect(R"({"dtype":"U8","shape":[4]})", ".data_offsets: expected an array of integers, the key is missing");
  expect(R"({"dtype":"U8","shape":[4],"data_offsets":"0,4"})",
         ".data_offsets: expected an array of integers, got \"0,4\"");
  expect(R"({"dtype":"U8","shape":[4],"data_offsets":[0,"4"]})", ".data_offsets[1]: expected an integer, got \"4\"");
  expect(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4,8]})",
         ".data_offsets: expected [begin, end] with 0 <= begin <= end, got [0, 4, 8]");
  expect(R"({"dtype":"U8","shape":[4],"data_offsets":[4]})",
         ".data_offsets: expected [begin, end] with 0 <= begin <= end, got [4]");
}

TEST_F(Safetensors, MetadataOtherThanStringsIsRefused) {
  expect_malformed_header(R"({"__metadata__":{"a":1}})", 0, ": header: __metadata__.a: expected a string, got 1");
  expect_malformed_header(R"({"__metadata__":[]})", 0, ": header: __metadata__: expected an object, got []");
}

TEST_F(Safetensors, UnknownDtypesAreRefused) {
  expect_malformed_header(R"({"w":{"dtype":"F23","shape":[4],"data_offsets":[0,4]}})", 4,
                          ": header: w.dtype: expected a dtype of the safetensors format, got \"F23\"");
}

TEST_F(Safetensors, NegativeAndOverflowingShapesAreRefused) {
  expect_malformed_header(R"({"w":{"dtype":"U8","shape":[2,-2],"data_offsets":[0,4]}})", 4,
                          ": header: w.shape[1]: expected an integer in [0, 9223372036854775807], got -2");
  expect_malformed_header(R"({"w":{"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}})", 0,
                          ": header: w: 4294967296 * 4294967296 does not fit");
  expect_malformed_header(R"({"w":{"dtype":"F64","shape":[9223372036854775807],"data_offsets":[0,8]}})", 8,
                          ": header: w: 9223372036854775807 * 64 does not fit");
  expect_malformed_header(R"({"w":{"dtype":"U8","shape":[1e300],"data_offsets":[0,8]}})", 8,
                          ": header: w.shape[0]: expected an integer, got 1e+300");
}

TEST_F(Safetensors, ShapesThatDoNotFitTheirBytesAreRefused) {
  expect_malformed_header(R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,23]}})", 23,
                          ": header: w: expected 24 bytes for F32 [2, 3], got 23");
}

// Byte ranges.

TEST_F(Safetensors, RangesOutsideTheDataAreRefused) {
  expect_malformed_header(R"({"w":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}})", 4,
                          ": header: w.data_offsets: expected an end within the file's 4 bytes of data, got 5; is the "
                          "file truncated?");
  expect_malformed_header(R"({"w":{"dtype":"U8","shape":[3],"data_offsets":[-1,2]}})", 4,
                          ": header: w.data_offsets: expected [begin, end] with 0 <= begin <= end, got [-1, 2]");
  expect_malformed_header(R"({"w":{"dtype":"U8","shape":[3],"data_offsets":[3,0]}})", 4,
                          ": header: w.data_offsets: expected [begin, end] with 0 <= begin <= end, got [3, 0]");
  expect_malformed_header(
      R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[9223372036854775806,9223372036854775807]}})", 4,
      ": header: w.data_offsets: expected an end within the file's 4 bytes of data, got "
      "9223372036854775807; is the file truncated?");
}

TEST_F(Safetensors, OverlapsAreRefused) {
  expect_malformed_header(
      R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})", 4,
      ": expected tensors that do not overlap, got a at [0, 3) and b at [2, 4)");
  expect_malformed_header(
      R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"z":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})", 4,
      ": expected tensors that do not overlap, got a at [0, 4) and z at [2, 2)");
}

TEST_F(Safetensors, HolesAreRefused) {
  expect_malformed_header(
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})", 4,
      ": expected tensors without gaps, got 2 unused bytes before b");
  expect_malformed_header(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}})", 4,
                          ": expected tensors without gaps, got 1 unused bytes before a");
  expect_malformed_header(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", 4,
                          ": expected tensors up to the end of the file, got 1 unused bytes after them");
}

TEST_F(Safetensors, EveryTruncationOfAFileIsRefused) {
  const std::string whole = file_of(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}})",
      9);
  ASSERT_EQ(open(whole).tensors().size(), 2U);
  for (size_t size = 0; size < whole.size(); ++size) {
    SCOPED_TRACE(size);
    EXPECT_THROW((void)open(whole.substr(0, size)), Error);
  }
}

TEST_F(Safetensors, FlippedHeaderBytesGiveAFileOrAnError) {
  const std::string valid = file_of(
      R"({"__metadata__":{"format":"pt"},"vision.patch.weight":{"dtype":"BF16","shape":[2,1,3],"data_offsets":[0,12]},)"
      R"("vision.norm.weight":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})",
      20);
  const size_t header_end = valid.size() - 20;
  const unsigned seed = 7;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  int opened = 0;
  int refused = 0;
  for (int round = 0; round < 6000; ++round) {
    std::string content = valid;
    for (auto flips = 1 + random() % 3; flips > 0; --flips) {
      const size_t position = random() % header_end;
      // Digits are the interesting bytes: they move ranges and shapes without breaking the JSON.
      content[position] = static_cast<char>(content[position] >= '0' && content[position] <= '9' ? '0' + random() % 10
                                                                                                 : random() % 256);
    }
    try {
      const SafetensorsFile file = open(content);
      ++opened;
      for (const TensorInfo& tensor : file.tensors()) {
        int sum = 0;
        for (const std::byte byte : file.bytes(tensor)) sum += std::to_integer<int>(byte);
        EXPECT_GE(sum, 0);
      }
    } catch (const Error& error) {
      ++refused;
      EXPECT_EQ(error.code(), ErrorCode::malformed_model) << error.what();
    }
  }
  EXPECT_GT(opened, 100);
  EXPECT_GT(refused, 1000);
}

// Writing.

TEST_F(Safetensors, WrittenFilesReadBackEqualWithAlignedData) {
  const std::string odd = "abc";
  const std::array<float, 2> wide{1.5F, -2.0F};
  const TensorToWrite tensors[] = {
      {"odd", "U8", {3}, std::as_bytes(std::span(odd))},
      {"wide \"q\" é", "F32", {2, 1}, std::as_bytes(std::span(wide))},
      {"none", "I64", {0}, {}},
  };
  write_safetensors(path(), tensors, {{"format", "pt"}, {"note", "line\nbreak"}});
  const SafetensorsFile file = SafetensorsFile::open(path());
  ASSERT_EQ(file.tensors().size(), 3U);
  EXPECT_EQ(file.tensors()[0].begin % 64, 0);
  EXPECT_EQ(text_of(file.bytes(*file.find("odd"))), odd);
  const TensorInfo* const read = file.find("wide \"q\" é");
  ASSERT_NE(read, nullptr);
  EXPECT_EQ(read->begin % 4, 0);
  EXPECT_THAT(read->shape, ElementsAre(2, 1));
  EXPECT_EQ(std::memcmp(file.bytes(*read).data(), wide.data(), sizeof wide), 0);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"note", "line\nbreak"}}));
}

TEST_F(Safetensors, WritingReplacesAFileAndLeavesNoOther) {
  const std::string bytes = "xy";
  const TensorToWrite tensor{"w", "U8", {2}, std::as_bytes(std::span(bytes))};
  directory_.write("m.safetensors", "old");
  write_safetensors(path(), {&tensor, 1});
  EXPECT_EQ(SafetensorsFile::open(path()).tensors().size(), 1U);
  write_safetensors(path(), {});
  EXPECT_TRUE(SafetensorsFile::open(path()).tensors().empty());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_.path()), {}), 1);
}

TEST_F(Safetensors, WritingWhatNoReaderWouldTakeIsRefused) {
  const std::string bytes = "xy";
  const auto data = std::as_bytes(std::span(bytes));
  const auto expect = [&](std::vector<TensorToWrite> tensors, const std::string& message) {
    expect_error(ErrorCode::invalid_argument, path() + message, [&] { write_safetensors(path(), tensors); });
    EXPECT_FALSE(std::filesystem::exists(path()));
  };
  expect({{"w", "F23", {2}, data}}, ": w: expected a dtype of the safetensors format, got F23");
  expect({{"w", "U8", {3}, data}}, ": w: expected 3 bytes for U8 [3], got 2");
  expect({{"w", "U8", {-2}, data}}, ": w: 1 * -2 does not fit");
  expect({{"w", "U8", {2}, data}, {"w", "U8", {2}, data}}, ": w: expected a name that is free, got one that is taken");
  expect({{"__metadata__", "U8", {2}, data}}, ": __metadata__: expected a name that is free, got one that is taken");
  expect({{"\xff", "U8", {2}, data}}, ": expected UTF-8 text, got other bytes");
  expect_error(ErrorCode::invalid_argument, path() + ": expected UTF-8 text, got other bytes", [&] {
    write_safetensors(path(), {}, {{"key", "\xc3"}});
  });
}

TEST_F(Safetensors, WritingWhereNothingCanBeWrittenIsAFileError) {
  const std::string below = (directory_.path() / "no" / "m.safetensors").string();
  expect_error(ErrorCode::file_error, below + ": can't be created: No such file or directory",
               [&] { write_safetensors(below, {}); });
  std::filesystem::create_directory(path());
  directory_.write("m.safetensors/inside", "");
  expect_error(ErrorCode::file_error, path() + ": can't be renamed to its final name: Is a directory",
               [&] { write_safetensors(path(), {}); });
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_.path()), {}), 1);
}

TEST(ShapeToString, LooksLikePython) {
  EXPECT_EQ(shape_to_string({}), "[]");
  EXPECT_EQ(shape_to_string(std::vector<int64_t>{1024, 3, 16, 16}), "[1024, 3, 16, 16]");
}

}  // namespace
}  // namespace oriel
