// From a checkpoint directory to a text model.
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <system_error>
#include <utility>

#include "arch/registry.hpp"
#include "core/checkpoint.hpp"
#include "core/error.hpp"
#include "core/hash.hpp"
#include "device.hpp"
#include "ops/device.hpp"
#include "tensor_types.hpp"
#include "text_model_impl.hpp"
#include "torch_errors.hpp"
#include "tower_impl.hpp"

namespace oriel {
namespace {

/// eos_token_id: one id, several, or none for null and for an absent key.
std::vector<int64_t> read_stop_ids(const Json& config) {
  const Json ids = config["eos_token_id"];
  if (ids.is_array()) return ids.integers();
  return ids.has_value() ? std::vector{ids.integer()} : std::vector<int64_t>{};
}

}  // namespace

// A generation_config.json alone counts where there is one, even if it names no id: spec/text.md 8.
void TextModel::Impl::read_generation_settings(const arch::ModelFiles& files) {
  const std::filesystem::path path = files.directory / "generation_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    const Json own = files.config["eos_token_id"];
    stop_ids = read_stop_ids(own.has_value() ? files.config : files.config["text_config"]);
    return;
  }
  const Json generation = Json::read(path);
  stop_ids = read_stop_ids(generation);
  const Json penalty = generation["repetition_penalty"];
  if (!penalty.has_value()) return;
  repetition_penalty = penalty.number();
  if (!std::isfinite(repetition_penalty) || repetition_penalty <= 0)
    throw_error(ErrorCode::malformed_model, "{}: expected a positive number, got {}", penalty.where(), penalty.dump());
}

void TextModel::Impl::load_weights(const arch::ModelFiles& files, const TextLoadOptions& options) {
  const arch::NameRules& names = traits().names;
  const c10::Device where = to_torch_device(device);
  const CheckpointFiles weight_files =
      CheckpointFiles::open(files.directory, [&](std::string_view name) { return names.is_wanted(name); });
  arch::WeightReader reader(weight_files, names,
                            {.dtype = to_scalar_type(dtype),
                             .device = where,
                             .dry = false,
                             .part = "the text model",
                             .progress = [&](int64_t done, int64_t total) {
                               check_cancelled(options.cancel);
                               call_back(options.progress, Progress{Progress::Stage::load, done, total});
                             }});
  nn::DecoderWeights weights = arch::load_decoder(reader, traits());
  reader.finish();
  decoder.emplace(traits().decoder, std::move(weights));
  // Calls may come on other streams than the loader's.
  if (where.is_cuda()) ops::current_stream(where).synchronize();
  weight_bytes = reader.elements_found() * static_cast<int64_t>(size_in_bytes(dtype));
  Hasher hasher;
  hasher.update(files.config.dump()).update(reader.fingerprint().to_string()).update(to_string(dtype));
  fingerprint = hasher.digest();
}

TextModel TextModel::load(const std::filesystem::path& directory, const TextLoadOptions& options) {
  check_device(options.device);
  const arch::ModelFiles files = arch::ModelFiles::read(directory);
  auto impl = std::make_shared<Impl>();
  impl->device = options.device;
  impl->dtype = choose_dtype(options.dtype, options.device);
  with_torch_errors(directory.string(), [&] {
    const c10::InferenceMode guard;
    impl->architecture = arch::make_text_architecture(files);
    impl->read_generation_settings(files);
    impl->load_weights(files, options);
  });
  return TextModel(std::move(impl));
}

}  // namespace oriel
