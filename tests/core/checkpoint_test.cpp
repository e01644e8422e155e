#include "core/checkpoint.hpp"

#include <fmt/format.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/expect_error.hpp"
#include "core/temporary_directory.hpp"

namespace oriel {
namespace {

class Checkpoint : public testing::Test {
 protected:
  /// Writes a file of one-byte tensors; the byte is the length of the name.
  void write_weights(std::string_view file, const std::vector<std::string>& names) const {
    std::vector<std::string> bytes;
    for (const std::string& name : names) bytes.emplace_back(1, static_cast<char>(name.size()));
    std::vector<TensorToWrite> tensors;
    for (size_t i = 0; i < names.size(); ++i) {
      tensors.push_back({names[i], "U8", {1}, std::as_bytes(std::span(bytes[i]))});
    }
    write_safetensors(directory_.path() / file, tensors);
  }
  void write_index(std::string_view weight_map) const {
    directory_.write("model.safetensors.index.json", fmt::format(R"({{"metadata":{{}},"weight_map":{}}})", weight_map));
  }
  [[nodiscard]] CheckpointFiles open() const {
    return CheckpointFiles::open(directory_.path(), [](std::string_view name) { return name.starts_with("vision."); });
  }
  /// `message` is what follows the directory's path.
  void expect_refused(ErrorCode code, const std::string& message) const {
    expect_error(code, directory_.path().string() + message, [&] { (void)open(); });
  }

  TemporaryDirectory directory_;
};

TEST_F(Checkpoint, GivesTheWantedTensorsOfASingleFile) {
  write_weights("model.safetensors", {"vision.a", "text.b", "vision.cc"});
  const CheckpointFiles checkpoint = open();
  ASSERT_EQ(checkpoint.tensors().size(), 2U);
  const CheckpointFiles::Entry entry = checkpoint.tensors().at("vision.cc");
  EXPECT_EQ(std::to_integer<int>(entry.file->bytes(*entry.tensor)[0]), 9);
}

TEST_F(Checkpoint, OpensOnlyTheShardsThatAreWanted) {
  write_weights("one.safetensors", {"vision.a", "text.b"});
  write_weights("two.safetensors", {"vision.cc"});
  write_index(R"({"vision.a":"one.safetensors","text.b":"one.safetensors","vision.cc":"./two.safetensors",)"
              R"("text.d":"not-downloaded.safetensors"})");
  const CheckpointFiles checkpoint = open();
  EXPECT_EQ(checkpoint.files().size(), 2U);
  ASSERT_EQ(checkpoint.tensors().size(), 2U);
  EXPECT_EQ(checkpoint.tensors().at("vision.cc").file->path().filename(), "two.safetensors");
}

TEST_F(Checkpoint, EntriesStayValidInCopies) {
  write_weights("one.safetensors", {"vision.a"});
  write_weights("two.safetensors", {"vision.cc"});
  write_index(R"({"vision.a":"one.safetensors","vision.cc":"two.safetensors"})");
  auto original = std::make_unique<CheckpointFiles>(open());
  const CheckpointFiles copy = *original;
  original.reset();
  const CheckpointFiles::Entry entry = copy.tensors().at("vision.a");
  EXPECT_EQ(std::to_integer<int>(entry.file->bytes(*entry.tensor)[0]), 8);
}

TEST_F(Checkpoint, ASingleFileWinsOverAnIndex) {
  write_weights("model.safetensors", {"vision.a"});
  write_index(R"({"vision.a":"missing.safetensors"})");
  EXPECT_EQ(open().tensors().size(), 1U);
}

TEST_F(Checkpoint, TensorsThatTheIndexForgotAreReadFromTheHeaders) {
  write_weights("one.safetensors", {"vision.a", "vision.bb"});
  write_index(R"({"vision.a":"one.safetensors"})");
  EXPECT_EQ(open().tensors().count("vision.bb"), 1U);
}

TEST_F(Checkpoint, ShardsMayBeLinksOutOfTheDirectory) {  // a hub cache is made of such links
  const TemporaryDirectory blobs;
  write_weights("one.safetensors", {"vision.a"});
  std::filesystem::rename(directory_.path() / "one.safetensors", blobs.path() / "0123abcd");
  std::filesystem::create_symlink(blobs.path() / "0123abcd", directory_.path() / "one.safetensors");
  write_index(R"({"vision.a":"one.safetensors"})");
  EXPECT_EQ(open().tensors().size(), 1U);
}

TEST_F(Checkpoint, NoDirectoryIsAFileError) {
  const std::string missing = (directory_.path() / "nowhere").string();
  expect_error(ErrorCode::file_error, missing + ": expected a model directory, found nothing",
               [&] { (void)CheckpointFiles::open(missing, [](std::string_view) { return true; }); });
  const std::string file = directory_.write("file", "").string();
  expect_error(ErrorCode::file_error, file + ": expected a model directory, found a file",
               [&] { (void)CheckpointFiles::open(file, [](std::string_view) { return true; }); });
}

TEST_F(Checkpoint, NoWeightsNamesWhatWasLookedFor) {
  expect_refused(ErrorCode::file_error, ": expected model.safetensors or model.safetensors.index.json, found neither");
}

TEST_F(Checkpoint, PickledWeightsAloneAreNamed) {
  directory_.write("pytorch_model-00002-of-00002.bin", "");
  directory_.write("pytorch_model-00001-of-00002.bin", "");
  expect_refused(
      ErrorCode::file_error,
      ": expected model.safetensors or model.safetensors.index.json, found neither; found pickled weights: "
      "pytorch_model-00001-of-00002.bin, pytorch_model-00002-of-00002.bin, which oriel does not read because "
      "unpickling runs code; convert them to safetensors");
}

TEST_F(Checkpoint, GgufWeightsAloneAreNamed) {
  directory_.write("model-q4.gguf", "");
  expect_refused(ErrorCode::file_error,
                 ": expected model.safetensors or model.safetensors.index.json, found neither; found GGUF weights: "
                 "model-q4.gguf, which oriel does not read; take the original checkpoint");
}

TEST_F(Checkpoint, SafetensorsOfAnotherLayoutAloneAreNamed) {
  directory_.write("consolidated.safetensors", "");
  expect_refused(
      ErrorCode::file_error,
      ": expected model.safetensors or model.safetensors.index.json, found neither; found safetensors files "
      "of another layout: consolidated.safetensors, which oriel does not read; take the transformers layout");
}

TEST_F(Checkpoint, MissingShardsAreListedTogether) {
  write_weights("two.safetensors", {"vision.b"});
  write_index(R"({"vision.a":"one.safetensors","vision.b":"two.safetensors","vision.c":"three.safetensors"})");
  expect_refused(ErrorCode::file_error,
                 ": expected the shards that model.safetensors.index.json names, missing one.safetensors, "
                 "three.safetensors");
}

TEST_F(Checkpoint, ShardsOutsideTheDirectoryAreRefused) {
  for (const std::string shard : {"../x.safetensors", "sub/../../x.safetensors", "/etc/passwd", ""}) {
    write_index(R"({"vision.a":")" + shard + R"("})");
    expect_refused(ErrorCode::malformed_model,
                   "/model.safetensors.index.json: weight_map.vision.a: expected a file inside the directory, got \"" +
                       shard + "\"");
  }
}

TEST_F(Checkpoint, BrokenIndexesAreRefused) {
  write_index("[]");
  expect_refused(ErrorCode::malformed_model, "/model.safetensors.index.json: weight_map: expected an object, got []");
  write_index(R"({"vision.a":3})");
  expect_refused(ErrorCode::malformed_model,
                 "/model.safetensors.index.json: weight_map.vision.a: expected a string, got 3");
  directory_.write("model.safetensors.index.json", "{}");
  expect_refused(ErrorCode::malformed_model,
                 "/model.safetensors.index.json: weight_map: expected an object, the key is missing");
}

TEST_F(Checkpoint, TensorsThatTheirShardLacksAreListedTogether) {
  write_weights("one.safetensors", {"vision.a"});
  std::string weight_map = R"({"vision.a":"one.safetensors")";
  for (int i = 0; i < 10; ++i) weight_map += fmt::format(R"(,"vision.b{}":"one.safetensors")", i);
  write_index(weight_map + "}");
  expect_refused(ErrorCode::malformed_model,
                 "/one.safetensors: expected the tensors that model.safetensors.index.json places here, missing "
                 "vision.b0, vision.b1, vision.b2, vision.b3, vision.b4, vision.b5, vision.b6, vision.b7 and 2 more");
}

TEST_F(Checkpoint, ATensorInTwoShardsIsRefused) {
  write_weights("one.safetensors", {"vision.a", "vision.b"});
  write_weights("two.safetensors", {"vision.a", "vision.c"});
  write_index(R"({"vision.a":"one.safetensors","vision.b":"one.safetensors","vision.c":"two.safetensors"})");
  expect_refused(ErrorCode::malformed_model,
                 "/two.safetensors: expected a tensor in one shard only, got vision.a here and in " +
                     (directory_.path() / "one.safetensors").string());
}

TEST_F(Checkpoint, ABrokenShardIsNamed) {
  directory_.write("one.safetensors", "short");
  write_index(R"({"vision.a":"one.safetensors"})");
  expect_refused(ErrorCode::malformed_model,
                 "/one.safetensors: expected a safetensors file of at least 8 bytes, got 5");
}

}  // namespace
}  // namespace oriel
