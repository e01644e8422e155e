// Every text model against what transformers computed: positions exactly, logits within float32's roundings.
#include "text_model/text_goldens.hpp"

namespace oriel {
namespace {

// float32 against float32, through tower and decoder: both round differently, layer after layer.
constexpr double float32_tolerance = 1e-5;

class TextModelGolden : public testing::TestWithParam<std::string> {
 protected:
  TextGolden text{GetParam()};
  TextCases cases{text};
};

TEST_P(TextModelGolden, PositionsAreEqual) {
  const TextModel model = text.load();
  for (const std::string& name : text.cases()) {
    const TextCase prompt = cases.get(name);
    const Tensor positions = model.positions(prompt.ids, prompt.embeddings);
    EXPECT_EQ(positions.shape(), text.golden.shape(name + ".position_ids")) << name;
    const auto* values = static_cast<const int64_t*>(positions.data());
    EXPECT_EQ(std::vector(values, values + positions.element_count()),
              text.golden.values<int64_t>(name + ".position_ids"))
        << name;
  }
}

TEST_P(TextModelGolden, LogitsOfWholePromptsAgree) {
  const TextModel model = text.load();
  double worst = 0;
  for (const std::string& name : text.cases()) {
    if (!text.has_logits(name)) continue;
    const TextCase prompt = cases.get(name);
    const ForwardResult result = model.forward(prompt.ids, prompt.embeddings);
    EXPECT_EQ(result.logits.shape(), text.golden.shape(name + ".logits")) << name;
    EXPECT_EQ(result.logits.size(1), model.vocabulary_size());
    const double error = golden_error(result.logits.to_float32(), text.golden.values<float>(name + ".logits"));
    EXPECT_LE(error, float32_tolerance) << name;
    worst = std::max(worst, error);
  }
  RecordProperty("worst_error", std::to_string(worst));
}

// In half the bits, our distance from the float32 truth is at most transformers' own: the project's promise. What is
// compared is the mean, since the largest of some thousand roundings is a matter of luck.
TEST_P(TextModelGolden, HalfTheBitsAreAsNearToTheTruthAsTransformers) {
  const auto truth = text.golden.values<float>("several.logits");
  const auto mean_error = [&](const std::vector<float>& got) {
    double sum = 0;
    for (size_t i = 0; i < got.size(); ++i)
      sum += std::abs(static_cast<double>(got[i]) - static_cast<double>(truth[i]));
    return sum / static_cast<double>(got.size());
  };
  const TextCase prompt = cases.get("several");
  for (const DType dtype : {DType::bfloat16, DType::float16}) {
    const std::string name = dtype == DType::float16 ? "float16" : "bfloat16";
    const double theirs = mean_error(text.golden.values<float>("several.logits_" + name));
    const TextModel model = text.load({.dtype = dtype});
    EXPECT_EQ(model.dtype(), dtype);
    const std::vector<float> got = model.forward(prompt.ids, prompt.embeddings).logits.to_float32();
    ASSERT_EQ(got.size(), truth.size());
    ASSERT_GT(theirs, 0);
    EXPECT_LE(mean_error(got), theirs * 1.05) << name << ", theirs: " << theirs;
  }
}

INSTANTIATE_TEST_SUITE_P(EveryCheckpoint, TextModelGolden, testing::ValuesIn(text_checkpoints()),
                         [](const auto& test) { return test_name(test.param); });

}  // namespace
}  // namespace oriel
