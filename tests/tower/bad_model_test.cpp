// Checkpoints that are damaged, incomplete or of another kind: the code, and the whole text a user acts on.
#include <gmock/gmock.h>

#include <algorithm>

#include "tower/checkpoints.hpp"

namespace oriel {
namespace {

constexpr auto malformed = ErrorCode::malformed_model;

TEST(BadModel, DirectoriesThatAreNone) {
  const Scratch scratch("pixtral");
  expect_error(ErrorCode::file_error, scratch.path("absent") + ": expected a checkpoint directory, found nothing",
               [&] { (void)VisionTower::load(scratch.path("absent")); });
  expect_error(ErrorCode::file_error, scratch.path("config.json") + ": expected a checkpoint directory, found a file",
               [&] { (void)VisionTower::load(scratch.path("config.json")); });
  EXPECT_THROW((void)VisionTower::load(""), Error);
}

TEST(BadModel, ConfigsThatCannotBeRead) {
  const Scratch scratch("pixtral");
  const std::string config = scratch.read("config.json");
  scratch.remove("config.json");
  scratch.expect_refused(ErrorCode::file_error, "/config.json: expected a file, found nothing");
  std::filesystem::create_directory(scratch.path("config.json"));
  scratch.expect_refused(ErrorCode::file_error, "/config.json: expected a file, found a directory or device");
  std::filesystem::remove(scratch.path("config.json"));
  scratch.write("config.json", "[1, 2]");
  scratch.expect_refused(malformed, "/config.json: expected an object, got [1,2]");
  scratch.write("config.json", "{}");
  scratch.expect_refused(malformed, "/config.json: model_type: expected the name of an architecture, found nothing");
  for (const std::string& text : {std::string(), std::string("not json"), config.substr(0, config.size() / 2),
                                  std::string(2000, '['), std::string("\0\xff\xfe", 3)}) {
    scratch.write("config.json", text);
    try {
      (void)scratch.load();
      ADD_FAILURE() << "loaded from: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), malformed) << error.what();
      EXPECT_THAT(error.what(), testing::StartsWith(scratch.path("config.json") + ": "));
    }
  }
}

TEST(BadModel, ValuesOfTheConfigThatMakeNoSense) {
  const auto refused = [](const std::string& from, const std::string& to, ErrorCode code, const std::string& message) {
    const Scratch scratch("pixtral");
    scratch.replace("config.json", from, to);
    scratch.expect_refused(code, "/config.json: " + message);
  };
  refused("\"hidden_size\": 36", "\"hidden_size\": null", malformed,
          "vision_config.hidden_size: expected an integer in [1, 65536], got null");
  refused("\"model_type\": \"llava\"", "\"model_type\": \"llama\"", ErrorCode::unsupported_model,
          "model_type: expected one of gemma3, llava, mistral3, qwen2_5_vl, qwen2_vl, siglip, siglip_vision_model, got "
          "\"llama\"");
  refused("\"model_type\": \"llava\"",
          "\"model_type\": \"llava\", \"quantization_config\": {\"quant_method\": \"fp8\"}",
          ErrorCode::unsupported_model,
          "quantization_config: quantised checkpoints are not supported (quant_method \"fp8\"); use the float "
          "checkpoint");
  refused("\"hidden_act\": \"silu\",\n    \"hidden_size\": 36", "\"hidden_act\": \"mish\", \"hidden_size\": 36",
          ErrorCode::unsupported_model,
          "vision_config.hidden_act: expected one of gelu, gelu_pytorch_tanh, gelu_new, quick_gelu, silu, relu, "
          "linear, got \"mish\"");
}

TEST(BadModel, NaNInAConfigIsFound) {
  const Scratch scratch("pixtral");
  scratch.write("config.json", "{\"model_type\": \"llava\",\n  \"x\": NaN}");
  scratch.expect_refused(malformed, "/config.json: line 2, column 8: expected a finite number, got NaN");
  const Scratch processor("pixtral");
  processor.write("preprocessor_config.json", "{\"rescale_factor\": -Infinity}");
  processor.expect_refused(malformed,
                           "/preprocessor_config.json: line 1, column 20: expected a finite number, got -Infinity");
}

TEST(BadModel, AMissingProcessorMeansTheClassDefaults) {
  const Scratch pixtral("pixtral");
  pixtral.remove("preprocessor_config.json");
  pixtral.remove("processor_config.json");
  EXPECT_EQ(pixtral.load().plan({2048, 1000}).resized, (Size{1024, 512}));
  // The default size does not fit this one, and is said to be the default.
  const Scratch gemma("gemma3");
  gemma.remove("preprocessor_config.json");
  gemma.expect_refused(malformed,
                       "/preprocessor_config.json: (no such file).size: expected 112 x 112 as "
                       "vision_config.image_size of config.json says, got 224 x 224");
}

TEST(BadModel, WeightFilesThatAreMissing) {
  const Scratch scratch("pixtral");
  const std::vector<StoredTensor> tensors = scratch.tensors();
  scratch.remove("model.safetensors");
  scratch.expect_refused(ErrorCode::file_error,
                         ": expected model.safetensors or model.safetensors.index.json, found neither");
  scratch.write("pytorch_model.bin", "x");
  scratch.expect_refused(ErrorCode::file_error,
                         ": expected model.safetensors or model.safetensors.index.json, found neither; found pickled "
                         "weights: pytorch_model.bin, which oriel does not read because unpickling runs code; convert "
                         "them to safetensors");
  scratch.write("model.safetensors.index.json",
                R"({"weight_map": {"vision_tower.ln_pre.weight": "model-1.safetensors",
                                   "vision_tower.patch_conv.weight": "model-2.safetensors",
                                   "language_model.model.norm.weight": "model-3.safetensors"}})");
  scratch.expect_refused(ErrorCode::file_error,
                         ": expected the shards that model.safetensors.index.json names, missing model-1.safetensors, "
                         "model-2.safetensors");
}

TEST(BadModel, EveryTensorThatIsMissingOrUnfitIsListed) {
  const Scratch scratch("pixtral");
  std::vector<StoredTensor> tensors;
  for (StoredTensor tensor : scratch.tensors()) {
    if (tensor.name == "vision_tower.ln_pre.weight" || tensor.name == "multi_modal_projector.linear_2.bias") continue;
    if (tensor.name == "vision_tower.patch_conv.weight") tensor.shape = {36, 3, 8, 32};
    if (tensor.name == "multi_modal_projector.linear_1.weight") std::swap(tensor.shape[0], tensor.shape[1]);
    if (tensor.name == "vision_tower.transformer.layers.1.ffn_norm.weight") {
      tensor.dtype = "I16";
    }
    tensors.push_back(std::move(tensor));
  }
  StoredTensor extra = tensors.front();
  extra.name = "vision_tower.transformer.layers.3.ffn_norm.weight";
  tensors.push_back(extra);
  scratch.write_tensors(tensors);
  const std::string all =
      "2 missing: vision_tower.ln_pre.weight, multi_modal_projector.linear_2.bias; 4 unfit: "
      "vision_tower.patch_conv.weight: expected [36, 3, 16, 16], got [36, 3, 8, 32], "
      "vision_tower.transformer.layers.1.ffn_norm.weight: expected dtype F32, BF16 or F16, got I16, "
      "vision_tower.transformer.layers.3.ffn_norm.weight: a block beyond vision_config.num_hidden_layers = 3, "
      "multi_modal_projector.linear_1.weight: expected [32, 36], got [36, 32]";
  scratch.expect_refused(malformed, ": tensors of the vision tower do not fit config.json: " + all);

  const ModelReport report = inspect_model(scratch.path());
  EXPECT_FALSE(report.complete());
  EXPECT_THAT(report.missing,
              testing::ElementsAre("vision_tower.ln_pre.weight", "multi_modal_projector.linear_2.bias"));
  EXPECT_EQ(report.mismatched.size(), 4U);
}

TEST(BadModel, AnotherDepthThanTheConfigs) {
  const Scratch scratch("siglip");
  scratch.replace("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
  scratch.expect_refused(malformed,
                         ": tensors of the vision tower do not fit config.json: 1 unfit: "
                         "vision_model.encoder.layers.1.layer_norm1.bias: a block beyond num_hidden_layers = 1");
}

TEST(BadModel, InspectingWholeCheckpointsFindsNothingWrong) {
  for (const std::string& name : tiny_names) {
    const ModelReport report = inspect_model(tiny(name));
    EXPECT_TRUE(report.complete()) << name;
    EXPECT_EQ(report.family, load_tiny(name, {.weights = false}).family());
    EXPECT_GT(report.found.size(), 20U);
    EXPECT_GT(report.weight_bytes, 0);
  }
}

// ---- damage at random: nothing but an Error that names a file of the checkpoint

/// Loads, or inspects, and plans if that works. Returns whether it was refused.
bool refused(const Scratch& scratch, bool weights) {
  try {
    const VisionTower tower = scratch.load({.weights = weights});
    try {
      (void)tower.plan({100, 80});
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::unsupported_image || error.code() == ErrorCode::limit_exceeded)
          << to_string(error.code()) << ": " << error.what();
    }
    return false;
  } catch (const Error& error) {
    EXPECT_TRUE(error.code() == ErrorCode::malformed_model || error.code() == ErrorCode::unsupported_model ||
                error.code() == ErrorCode::file_error)
        << to_string(error.code()) << ": " << error.what();
    EXPECT_THAT(error.what(), testing::StartsWith(scratch.path()));
    return true;
  }
}

class Damage : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Tiny, Damage, testing::ValuesIn(tiny_names), [](const auto& test) { return test.param; });

TEST_P(Damage, TruncatedWeightsAreRefused) {
  const Scratch scratch(GetParam());
  const std::string whole = scratch.read("model.safetensors");
  for (const size_t length :
       {size_t{0}, size_t{7}, size_t{8}, size_t{100}, size_t{3000}, whole.size() / 2, whole.size() - 1}) {
    scratch.write("model.safetensors", whole.substr(0, length));
    EXPECT_TRUE(refused(scratch, true)) << length;
  }
}

TEST_P(Damage, GarbageInTheWeightsHeaderIsRefusedOrHarmless) {
  const Scratch scratch(GetParam());
  const std::string whole = scratch.read("model.safetensors");
  std::mt19937_64 random(7);
  SCOPED_TRACE("seed 7");
  std::string noise(whole.size(), '\0');
  for (char& byte : noise) byte = static_cast<char>(random());
  scratch.write("model.safetensors", noise);
  EXPECT_TRUE(refused(scratch, true));
  for (int round = 0; round < 60; ++round) {
    std::string damaged = whole;
    for (int flips = 0; flips < 3; ++flips) damaged[random() % 6000] = static_cast<char>(random());
    scratch.write("model.safetensors", damaged);
    (void)refused(scratch, true);
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

TEST_P(Damage, FlippedBytesInTheConfigsAreRefusedOrHarmless) {
  const Scratch scratch(GetParam());
  std::mt19937_64 random(8);
  SCOPED_TRACE("seed 8");
  int refusals = 0;
  for (const std::string file : {"config.json", "preprocessor_config.json", "processor_config.json"}) {
    if (!std::filesystem::exists(scratch.path(file))) continue;
    const std::string whole = scratch.read(file);
    for (int round = 0; round < 200; ++round) {
      std::string damaged = whole;
      damaged[random() % damaged.size()] = static_cast<char>(random() % 128);
      scratch.write(file, damaged);
      refusals += refused(scratch, false);
      ASSERT_FALSE(HasFailure()) << file << ", round " << round;
    }
    scratch.write(file, whole);
  }
  EXPECT_GT(refusals, 0);
}

/// Where the numbers of a JSON text begin and end.
std::vector<std::pair<size_t, size_t>> numbers_of(const std::string& text) {
  std::vector<std::pair<size_t, size_t>> result;
  const std::string digits = "-+.0123456789eE";
  for (size_t i = text.find_first_of(":[,"); i != std::string::npos; i = text.find_first_of(":[,", i + 1)) {
    const size_t begin = text.find_first_not_of(" \n", i + 1);
    if (begin == std::string::npos || (text[begin] != '-' && (text[begin] < '0' || text[begin] > '9'))) continue;
    result.emplace_back(begin, text.find_first_not_of(digits, begin));
  }
  return result;
}

// Every number in turn, replaced by the ones that overflow, divide by zero or ask for all memory.
TEST_P(Damage, NoNumberOfAConfigIsTrusted) {
  const Scratch scratch(GetParam());
  size_t tried = 0;
  for (const std::string file : {"config.json", "preprocessor_config.json", "processor_config.json"}) {
    if (!std::filesystem::exists(scratch.path(file))) continue;
    const std::string whole = scratch.read(file);
    for (const auto& [begin, end] : numbers_of(whole))
      for (const char* value : {"0", "-1", "1", "7", "4096", "65536", "2147483648", "1099511627776",
                                "9223372036854775807", "1e300", "1e-300", "0.5", "null", "[]", "{}", "\"x\"", "true"}) {
        scratch.write(file, whole.substr(0, begin) + value + whole.substr(end));
        (void)refused(scratch, true);
        ++tried;
        ASSERT_FALSE(HasFailure()) << file << ": " << value << " in place of " << whole.substr(begin, end - begin)
                                   << " at byte " << begin;
      }
    scratch.write(file, whole);
  }
  EXPECT_GT(tried, 300U);
  EXPECT_FALSE(refused(scratch, true)) << "the copy itself does not load";
}

}  // namespace
}  // namespace oriel
