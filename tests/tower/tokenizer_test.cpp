// The public tokenizer: aliases, segments, batches, special tokens of the config files, streams, and every error's
// text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <oriel/oriel.hpp>
#include <string>

#include "core/expect_error.hpp"
#include "core/temporary_directory.hpp"

namespace oriel {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::IsEmpty;
using Ids = std::vector<int64_t>;

std::filesystem::path golden(const std::string& kind) {
  return std::filesystem::path(ORIEL_TEST_DATA) / "tokenizers" / kind;
}

/// A golden tokenizer with config files of a test's own.
class Scratch {
 public:
  explicit Scratch(const std::string& kind) {
    std::filesystem::copy_file(golden(kind) / "tokenizer.json", directory_.path() / "tokenizer.json");
  }
  Scratch& write(std::string_view name, std::string_view content) {
    (void)directory_.write(name, content);
    return *this;
  }
  [[nodiscard]] Tokenizer load() const { return Tokenizer::load(directory_.path()); }
  [[nodiscard]] std::string path(const std::string& name) const { return (directory_.path() / name).string(); }

 private:
  TemporaryDirectory directory_;
};

/// Rows of a picture whose prompt is `before`, two rows, `after`.
MMEmbedding picture(std::string alias, Ids before = {}, Ids after = {}) {
  MMEmbeddingInfo info;
  info.text_alias = std::move(alias);
  info.placeholder_id = 3;
  info.placeholder_tokens = before;
  info.placeholder_tokens.insert(info.placeholder_tokens.end(), {3, 3});
  info.placeholder_tokens.insert(info.placeholder_tokens.end(), after.begin(), after.end());
  return MMEmbedding::from_rows(Tensor::copy_of(std::vector<float>(8), {2, 4}), info);
}

Ids joined(std::initializer_list<Ids> parts) {
  Ids result;
  for (const Ids& part : parts) result.insert(result.end(), part.begin(), part.end());
  return result;
}

TEST(Tokenizer, AliasesBecomeTheEmbeddingsTokens) {
  const Tokenizer tokenizer = Tokenizer::load(golden("tekken"));
  const MMEmbedding cat = picture("<cat>", {8}, {9});
  const Ids ids = tokenizer.encode("a<cat>b <cat>", {.embeddings = {cat}, .add_bos = false});
  EXPECT_EQ(ids, joined({tokenizer.encode("a", {.add_bos = false}), cat.tokens(),
                         tokenizer.encode("b ", {.add_bos = false}), cat.tokens()}));
  EXPECT_EQ(cat.tokens(), (Ids{8, cat.first_id(), cat.first_id() + 1, 9}));
}

TEST(Tokenizer, TheLongestAliasWins) {
  const Tokenizer tokenizer = Tokenizer::load(golden("tekken"));
  const MMEmbedding first = picture("IMAGE1");
  const MMEmbedding eleventh = picture("IMAGE11");
  EXPECT_EQ(tokenizer.encode("IMAGE11IMAGE1", {.embeddings = {first, eleventh}, .add_bos = false}),
            joined({eleventh.tokens(), first.tokens()}));
}

TEST(Tokenizer, AliasesAreUniqueAndUsed) {
  const Tokenizer tokenizer = Tokenizer::load(golden("tekken"));
  expect_error(ErrorCode::invalid_argument, "embeddings: expected aliases that differ, got \"<a>\" twice", [&] {
    (void)tokenizer.encode("<a>", {.embeddings = {picture("<a>"), picture("<a>")}});
  });
  expect_error(ErrorCode::invalid_argument, "embeddings: expected the alias \"<b>\" in the text, found it nowhere",
               [&] {
                 (void)tokenizer.encode("<a>", {.embeddings = {picture("<a>"), picture("<b>")}});
               });
  expect_error(ErrorCode::invalid_argument, "embeddings: expected the alias \"<b>\" in the texts, found it nowhere",
               [&] {
                 const std::vector<std::string> texts = {"<a>", "c"};
                 (void)tokenizer.encode_batch(texts, {.embeddings = {picture("<a>"), picture("<b>")}});
               });
}

TEST(Tokenizer, BosIsNotDoubled) {
  const Tokenizer tokenizer = Scratch("tekken").write("tokenizer_config.json", R"({"bos_token": "<s>"})").load();
  const Ids once = tokenizer.encode("hello");
  EXPECT_EQ(once.front(), tokenizer.bos_id());
  EXPECT_EQ(tokenizer.encode("<s>hello"), once);
  EXPECT_EQ(tokenizer.encode("<s>hello", {.add_bos = false}), once);
  // As text it is no bos, so that one is added.
  EXPECT_EQ(tokenizer.encode("<s>", {.special_tokens = false}).front(), tokenizer.bos_id());
  EXPECT_GT(tokenizer.encode("<s>", {.special_tokens = false}).size(), 2U);
}

/// A tokenizer whose post-processor has the template `single`; its token X has the ids 4 and 1.
Tokenizer with_template(const std::string& single) {
  std::ifstream stream(golden("tekken") / "tokenizer.json");
  nlohmann::json json = nlohmann::json::parse(stream);
  json["post_processor"] = nlohmann::json::parse(R"({"type": "TemplateProcessing", "special_tokens": {
      "<s>": {"id": "<s>", "ids": [1]}, "</s>": {"id": "</s>", "ids": [2]}, "X": {"id": "X", "ids": [4, 1]}}})");
  json["post_processor"]["single"] = nlohmann::json::parse(single);
  const TemporaryDirectory directory;
  (void)directory.write("tokenizer.json", json.dump());
  (void)directory.write("tokenizer_config.json",
                        R"({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"})");
  return Tokenizer::load(directory.path());
}

/// Doubled ids are those of transformers 5.17's tokenizer(text); the others are apply_chat_template's, which calls it
/// without special tokens where the prompt begins with bos.
TEST(Tokenizer, NothingIsAddedToATextThatBeginsWithBos) {
  const std::string bos = R"({"SpecialToken": {"id": "<s>", "type_id": 0}})";
  const std::string eos = R"({"SpecialToken": {"id": "</s>", "type_id": 0}})";
  const std::string two = R"({"SpecialToken": {"id": "X", "type_id": 0}})";
  const std::string text = R"({"Sequence": {"id": "A", "type_id": 0}})";
  const auto expect = [](const std::string& single, const Ids& around, const Ids& doubled) {
    const Tokenizer tokenizer = with_template("[" + single + "]");
    EXPECT_EQ(tokenizer.encode("Q"), around) << single;
    EXPECT_EQ(tokenizer.encode("Q", {.double_bos = true}), around) << single;
    EXPECT_EQ(tokenizer.encode("<s>Q"), (Ids{1, 57})) << single;
    EXPECT_EQ(tokenizer.encode_with_offsets("<s>Q").ids, (Ids{1, 57})) << single;
    EXPECT_EQ(tokenizer.encode("<s>Q", {.double_bos = true}), doubled) << single;
    EXPECT_EQ(tokenizer.encode("<s>Q", {.add_bos = false, .double_bos = true}), (Ids{1, 57})) << single;
    const Encoding whole = tokenizer.encode_with_offsets("<s>Q", {.double_bos = true});
    EXPECT_EQ(whole.ids, doubled);
    EXPECT_EQ(whole.offsets.size(), doubled.size());
  };
  expect(bos + "," + text, {1, 57}, {1, 1, 57});
  expect(bos + "," + text + "," + eos, {1, 57, 2}, {1, 1, 57, 2});
  expect(two + "," + text + "," + eos, {4, 1, 57, 2}, {4, 1, 1, 57, 2});
  expect(bos + "," + eos + "," + text, {1, 2, 57}, {1, 2, 1, 57});
  expect(text + "," + eos, {57, 2}, {1, 57, 2});
  const Tokenizer tokenizer = with_template("[" + bos + "," + text + "," + eos + "]");
  EXPECT_EQ(tokenizer.encode("<s>Q", {.special_tokens = false}), (Ids{1, 36, 91, 38, 57, 2}));
}

TEST(Tokenizer, PlainTextInjectsNoSpecialToken) {
  for (const char* kind : {"qwen", "tekken", "llama3", "gemma", "llama2_prepend", "llama2_metaspace"}) {
    const Tokenizer tokenizer = Tokenizer::load(golden(kind));
    std::string every_token;
    for (int64_t id = 0; id < tokenizer.vocabulary_size(); ++id)
      if (tokenizer.is_special(id)) every_token += *tokenizer.token(id) + " x";
    const Ids ids = tokenizer.encode(every_token, {.add_bos = false, .special_tokens = false});
    for (const int64_t id : ids) EXPECT_FALSE(tokenizer.is_special(id)) << kind << ": " << *tokenizer.token(id);
    EXPECT_EQ(tokenizer.decode(ids), every_token);
  }
}

TEST(Tokenizer, SegmentsThatAreNeighboursAreOneText) {
  for (const char* kind : {"qwen", "tekken", "gemma", "llama2_prepend", "llama2_metaspace"}) {
    const Tokenizer tokenizer = Tokenizer::load(golden(kind));
    const std::string text = "What is  this picture\n\n\n\u4f60\u597d e\u0301<s><|im_start|>?";
    for (const bool special : {false, true}) {
      const Ids whole = tokenizer.encode(text, {.special_tokens = special});
      for (size_t cut = 0; cut <= text.size(); ++cut) {
        if ((text[cut] & 0xc0) == 0x80) continue;
        const std::vector<PromptSegment> segments = {TextSegment{text.substr(0, cut), special},
                                                     TextSegment{text.substr(cut), special}};
        EXPECT_EQ(tokenizer.encode(segments), whole) << kind << " cut at " << cut;
      }
    }
  }
}

TEST(Tokenizer, SegmentsSayWhereSpecialTokensAre) {
  const Tokenizer tokenizer = Tokenizer::load(golden("qwen"));
  const int64_t start = *tokenizer.token_id("<|im_start|>");
  const Ids plain = tokenizer.encode("<|im_start|>", {.special_tokens = false});
  const std::vector<PromptSegment> segments = {TextSegment{"<|im_start|>", true}, TextSegment{"<|im_start|>", false},
                                               TextSegment{"<|im_start|>", true}};
  EXPECT_EQ(tokenizer.encode(segments), joined({{start}, plain, {start}}));
  // A token that is written across a border does not exist.
  const std::vector<PromptSegment> across = {TextSegment{"<|im_", true}, TextSegment{"start|>", false}};
  EXPECT_EQ(tokenizer.encode(across), plain);
  const std::vector<PromptSegment> inside = {TextSegment{"<|im_", false}, TextSegment{"<|im_start|>", true}};
  EXPECT_EQ(tokenizer.encode(inside).back(), start);
}

TEST(Tokenizer, SegmentsPlaceEmbeddingsThatNoTextCanName) {
  const Tokenizer tokenizer = Tokenizer::load(golden("qwen"));
  const MMEmbedding cat = picture("<cat>");
  const std::vector<PromptSegment> segments = {TextSegment{"a<cat>"}, cat, TextSegment{"b"}, cat};
  EXPECT_EQ(tokenizer.encode(segments),
            joined({tokenizer.encode("a<cat>"), cat.tokens(), tokenizer.encode("b"), cat.tokens()}));
  EXPECT_THAT(tokenizer.encode(std::span<const PromptSegment>()), IsEmpty());
  expect_error(ErrorCode::invalid_argument, "embeddings: expected none beside segments, got 1",
               [&] { (void)tokenizer.encode(segments, {.embeddings = {cat}}); });
  expect_error(ErrorCode::invalid_argument, "special_tokens: expected true beside segments, which say it, got false",
               [&] { (void)tokenizer.encode(segments, {.special_tokens = false}); });
}

TEST(Tokenizer, OnlyTheBeginningOfThePromptIsTheBeginningOfAText) {
  const Tokenizer tokenizer = Tokenizer::load(golden("llama2_metaspace"));
  const MMEmbedding cat = picture("<cat>");
  const Ids behind = tokenizer.encode("<cat>the", {.embeddings = {cat}, .add_bos = false});
  EXPECT_NE(joined({cat.tokens(), tokenizer.encode("the", {.add_bos = false})}), behind);
  EXPECT_EQ(tokenizer.decode(behind), "the");
}

TEST(Tokenizer, OffsetsAreBytesOfTheText) {
  const Tokenizer tokenizer = Tokenizer::load(golden("tekken"));
  const MMEmbedding cat = picture("<cat>");
  const Encoding encoding = tokenizer.encode_with_offsets("\u4f60<cat> the", {.embeddings = {cat}});
  EXPECT_EQ(encoding.ids, tokenizer.encode("\u4f60<cat> the", {.embeddings = {cat}}));
  ASSERT_EQ(encoding.offsets.size(), encoding.ids.size());
  using Offset = std::pair<int64_t, int64_t>;
  EXPECT_EQ(encoding.offsets.front(), Offset(0, 0));  // bos
  EXPECT_EQ(encoding.offsets[1], Offset(0, 3));       // a character, whole
  EXPECT_EQ(encoding.offsets.back(), Offset(8, 12));
  EXPECT_THAT(encoding.offsets, testing::Contains(Offset(3, 8)).Times(2));
}

TEST(Tokenizer, BatchesArePaddedOnTheLeft) {
  Scratch scratch("tekken");
  const std::vector<std::string> texts = {"the picture", "", "<cat> x"};
  const MMEmbedding cat = picture("<cat>");
  expect_error(ErrorCode::unavailable,
               "texts: expected one length, since the tokenizer has neither a pad nor an eos token, got 1 and " +
                   std::to_string(scratch.load().encode("the picture").size()),
               [&] {
                 (void)scratch.load().encode_batch({texts.data(), 2});
               });
  for (const char* config : {R"({"pad_token": "<pad>", "eos_token": "</s>"})", R"({"eos_token": "</s>"})"}) {
    const Tokenizer tokenizer = scratch.write("tokenizer_config.json", config).load();
    const BatchEncoding batch = tokenizer.encode_batch(texts, {.embeddings = {cat}});
    const std::span ids(static_cast<const int64_t*>(batch.ids.data()), static_cast<size_t>(batch.ids.element_count()));
    const size_t width = static_cast<size_t>(batch.ids.shape()[1]);
    EXPECT_EQ(batch.ids.shape()[0], 3);
    for (size_t row = 0; row < texts.size(); ++row) {
      const std::vector<MMEmbedding> used = row == 2 ? std::vector{cat} : std::vector<MMEmbedding>{};
      const Encoding alone = tokenizer.encode_with_offsets(texts[row], {.embeddings = used});
      const auto padding = static_cast<size_t>(batch.padding[row]);
      EXPECT_EQ(padding + alone.ids.size(), width);
      EXPECT_EQ(batch.offsets[row], alone.offsets);
      Ids expected(padding, tokenizer.pad_id().value_or(*tokenizer.eos_id()));
      expected.insert(expected.end(), alone.ids.begin(), alone.ids.end());
      EXPECT_THAT(ids.subspan(row * width, width), ElementsAreArray(expected));
    }
  }
}

TEST(Tokenizer, NamesComeFromTheConfigFiles) {
  const auto name = [](const Tokenizer& tokenizer, std::optional<int64_t> id) {
    return id ? *tokenizer.token(*id) : std::string("none");
  };
  const Tokenizer none = Scratch("tekken").load();
  EXPECT_EQ(none.bos_id(), std::nullopt);

  Scratch scratch("tekken");
  scratch.write("tokenizer_config.json",
                R"({"bos_token": "<s>", "pad_token": {"content": "<pad>"}, "eos_token": null})");
  scratch.write("special_tokens_map.json", R"({"bos_token": "</s>", "unk_token": {"content": "<unk>"}})");
  Tokenizer tokenizer = scratch.load();
  EXPECT_EQ(name(tokenizer, tokenizer.bos_id()), "</s>");  // the map counts where nothing says what is added
  EXPECT_EQ(name(tokenizer, tokenizer.pad_id()), "<pad>");
  EXPECT_EQ(name(tokenizer, tokenizer.unknown_id()), "<unk>");
  EXPECT_EQ(name(tokenizer, tokenizer.eos_id()), "none");

  scratch.write("tokenizer_config.json", R"({"bos_token": "<s>", "added_tokens_decoder": {}})");
  tokenizer = scratch.load();
  EXPECT_EQ(name(tokenizer, tokenizer.bos_id()), "<s>");
  EXPECT_EQ(name(tokenizer, tokenizer.unknown_id()), "none");
}

TEST(Tokenizer, ClassesNameTokensThatFilesLeaveOut) {
  const Tokenizer qwen =
      Scratch("qwen").write("tokenizer_config.json", R"({"tokenizer_class": "Qwen2TokenizerFast"})").load();
  EXPECT_EQ(qwen.pad_id(), qwen.token_id("<|endoftext|>"));
  EXPECT_EQ(qwen.bos_id(), std::nullopt);
  const Tokenizer gemma = Scratch("gemma").write("config.json", R"({"model_type": "gemma3"})").load();
  EXPECT_EQ(gemma.bos_id(), gemma.token_id("<bos>"));
  EXPECT_EQ(gemma.unknown_id(), gemma.token_id("<unk>"));
}

/// Ids and texts are transformers 5.17's.
TEST(Tokenizer, LlamaTokenizerPrependsItsOwnWay) {
  const auto load = [](const std::string& model_type, const std::string& options) {
    return Scratch("llama2_prepend")
        .write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizerFast")" + options + "}")
        .write("config.json", R"({"model_type": ")" + model_type + "\"}")
        .load();
  };
  const auto expect = [&](const std::string& model_type, const std::string& options, const Ids& ids,
                          const std::string& decoded) {
    const Tokenizer tokenizer = load(model_type, options);
    EXPECT_EQ(tokenizer.encode("a b</s>c"), ids) << model_type << options;
    EXPECT_EQ(tokenizer.decode(ids, {.skip_special_tokens = false}), decoded) << model_type << options;
  };
  const Ids first = {1, 416, 393, 293, 2, 294};
  const Ids always = {1, 416, 393, 293, 2, 431};
  expect("llama", "", first, "<s> a b</s>c");
  expect("llama", R"(, "legacy": false, "add_prefix_space": true)", first, "<s> a b</s>c");
  expect("llama", R"(, "legacy": null, "add_prefix_space": null)", first, "<s> a b</s>c");
  expect("llama", R"(, "legacy": true)", always, "<s> a b</s> c");
  expect("llama", R"(, "add_prefix_space": false)", {1, 292, 393, 293, 2, 294}, "<s>a b</s>c");
  // Models whose files are obeyed, which prepend everywhere here, and name all special tokens.
  for (const char* model_type : {"llava", "mistral3"}) {
    expect(model_type, R"(, "legacy": false, "add_prefix_space": false)", always, "<s> a b</s> c");
    EXPECT_EQ(load(model_type, "").eos_id(), std::nullopt);
  }
  EXPECT_EQ(load("llama", "").eos_id(), 2);
  // Behind a tokenizer.json these say nothing.
  expect("llama", R"(, "add_bos_token": false, "add_eos_token": true)", first, "<s> a b</s>c");
}

TEST(Tokenizer, NamedTokensThatNothingAddsAreAdded) {
  const Tokenizer plain = Tokenizer::load(golden("qwen"));
  const Tokenizer tokenizer =
      Scratch("qwen")
          .write("tokenizer_config.json", R"({"boi_token": "<|new|>", "extra_special_tokens": ["<|newer|>"],
                                              "added_tokens_decoder": {"9": {"content": "<plain>", "special": false}}})")
          .load();
  const int64_t size = plain.vocabulary_size();
  EXPECT_EQ(tokenizer.vocabulary_size(), size + 3);
  EXPECT_THAT(tokenizer.encode("<plain><|new|><|newer|>"), ElementsAre(size, size + 1, size + 2));
  EXPECT_FALSE(tokenizer.is_special(size));
  EXPECT_TRUE(tokenizer.is_special(size + 1));
}

TEST(Tokenizer, DecodingLeavesOutWhatIsNoText) {
  const Tokenizer tokenizer = Tokenizer::load(golden("qwen"));
  const MMEmbedding cat = picture("<cat>");
  const Ids ids = tokenizer.encode("<|im_start|>the <cat>cat", {.embeddings = {cat}});
  EXPECT_EQ(tokenizer.decode(ids), "the cat");
  EXPECT_EQ(tokenizer.decode(ids, {.skip_special_tokens = false}), "<|im_start|>the cat");
  EXPECT_EQ(tokenizer.decode(Ids{-1, tokenizer.vocabulary_size(), INT64_MAX, INT64_MIN}), "");
  EXPECT_EQ(tokenizer.token(-1), std::nullopt);
  EXPECT_EQ(tokenizer.token_id("no such token"), std::nullopt);
  EXPECT_FALSE(tokenizer.is_special(INT64_MAX));
}

TEST(TextStream, GivesWholeCharacters) {
  const Tokenizer tokenizer = Tokenizer::load(golden("qwen"));
  const std::string text = "\U0001F468\u200d\U0001F469 \U00012345 the";
  TextStream stream(tokenizer);
  std::string given;
  bool held = false;
  for (const int64_t id : tokenizer.encode(text)) {
    const std::string piece = stream.push(id);
    held = held || piece.empty();
    given += piece;
    EXPECT_TRUE(text.starts_with(given));
  }
  EXPECT_TRUE(held);
  EXPECT_EQ(given + stream.finish(), text);
  // As new, and movable.
  TextStream moved = std::move(stream);
  EXPECT_EQ(moved.push(tokenizer.encode("a")[0]) + moved.finish(), "a");
}

TEST(Tokenizer, TextHasToBeUtf8) {
  const Tokenizer tokenizer = Tokenizer::load(golden("qwen"));
  expect_error(ErrorCode::invalid_argument, "text: expected UTF-8, got the byte 0xff at 2",
               [&] { (void)tokenizer.encode("ab\xff"); });
  for (const char* broken : {"\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe4\xbd", "\x80"})
    EXPECT_THROW((void)tokenizer.encode_with_offsets(broken), Error) << broken;
  expect_error(ErrorCode::invalid_argument, "segments: expected UTF-8, got the byte 0xe4 at 0", [&] {
    const std::vector<PromptSegment> segments = {TextSegment{"\xe4\xbd"}, TextSegment{"\xa0"}};
    (void)tokenizer.encode(segments);
  });
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(std::string("a\0b", 3))), std::string("a\0b", 3));
}

TEST(Tokenizer, FilesThatItDoesNotRunAreRefusedByName) {
  const auto refused = [](ErrorCode code, const std::string& json, const std::string& message) {
    Scratch scratch("qwen");
    scratch.write("tokenizer.json", json);
    expect_error(code, scratch.path("tokenizer.json") + message, [&] { (void)scratch.load(); });
  };
  constexpr auto unsupported = ErrorCode::unsupported_model;
  const std::string model = R"("model": {"type": "BPE", "vocab": {"a": 0}, "merges": []})";
  refused(unsupported, R"({"normalizer": {"type": "Lowercase"}, )" + model + "}",
          ": normalizer: expected NFC, Replace, Prepend or Sequence, got \"Lowercase\"");
  refused(unsupported, R"({"pre_tokenizer": {"type": "BertPreTokenizer"}, )" + model + "}",
          ": pre_tokenizer: expected Split, ByteLevel, Metaspace, Digits or Sequence, got \"BertPreTokenizer\"");
  refused(unsupported, R"({"post_processor": {"type": "BertProcessing"}, )" + model + "}",
          ": post_processor: expected TemplateProcessing, ByteLevel or Sequence, got \"BertProcessing\"");
  refused(
      unsupported, R"({"decoder": {"type": "WordPiece"}, )" + model + "}",
      ": decoder: expected ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace or Sequence, got \"WordPiece\"");
  refused(unsupported, R"({"model": {"type": "Unigram"}})", ": model.type: expected BPE, got \"Unigram\"");
  refused(ErrorCode::malformed_model, R"({})", ": model.type: expected a string, the key is missing");
  refused(ErrorCode::malformed_model, R"({"added_tokens": [{"id": 0}], )" + model + "}",
          ": added_tokens[0].content: expected a string, the key is missing");
  refused(ErrorCode::limit_exceeded,
          R"({"added_tokens": [{"content": ")" + std::string(5000, 'a') + R"("}], )" + model + "}",
          ": added_tokens[0].content: expected at most 4096 bytes, got 5000");
  Scratch long_name("qwen");
  long_name.write("tokenizer_config.json", R"({"bos_token": ")" + std::string(5000, 'a') + "\"}");
  expect_error(ErrorCode::limit_exceeded,
               long_name.path("tokenizer_config.json") + ": bos_token: expected at most 4096 bytes, got 5000",
               [&] { (void)long_name.load(); });
  const TemporaryDirectory empty;
  expect_error(ErrorCode::file_error, (empty.path() / "tokenizer.json").string() + ": expected a file, found nothing",
               [&] { (void)Tokenizer::load(empty.path()); });
}

}  // namespace
}  // namespace oriel
