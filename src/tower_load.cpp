// From a checkpoint directory to a tower, or to a report of what is in it.
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <utility>

#include "arch/registry.hpp"
#include "core/checkpoint.hpp"
#include "core/error.hpp"
#include "core/hash.hpp"
#include "device.hpp"
#include "ops/device.hpp"
#include "tensor_types.hpp"
#include "torch_errors.hpp"
#include "tower_impl.hpp"

namespace oriel {
namespace {

CheckpointFiles open_weights(const arch::ModelFiles& files, const arch::NameRules& names) {
  return CheckpointFiles::open(files.directory, [&](std::string_view name) { return names.is_wanted(name); });
}

ContentHash make_fingerprint(const arch::ModelFiles& files, ContentHash weights, DType dtype, bool deterministic) {
  Hasher hasher;
  for (const Json* json : {&files.config, &files.processor, &files.image_processor, &files.video_processor})
    hasher.update(json->dump());
  hasher.update(weights.to_string()).update(to_string(dtype));
  if (deterministic) hasher.update("deterministic");
  return hasher.digest();
}

std::vector<ReportedTensor> to_report(const std::vector<TensorInfo>& tensors) {
  std::vector<ReportedTensor> result;
  for (const TensorInfo& tensor : tensors) result.push_back({tensor.name, tensor.dtype, tensor.shape});
  return result;
}

}  // namespace

void VisionTower::Impl::load_weights(const arch::ModelFiles& files, const LoadOptions& options) {
  const arch::NameRules& names = traits().names;
  arch::WeightReader reader(open_weights(files, names), names,
                            {.dtype = to_scalar_type(dtype),
                             .device = to_torch_device(device),
                             .dry = false,
                             .progress = [&](int64_t done, int64_t total) {
                               check_cancelled(options.cancel);
                               call_back(options.progress, Progress{Progress::Stage::load, done, total});
                             }});
  nn::VitWeights weights = architecture->load(reader);
  reader.finish();
  vit.emplace(traits().vit, std::move(weights));
  // Calls may come on other streams than the loader's.
  const c10::Device where = to_torch_device(device);
  if (where.is_cuda()) ops::current_stream(where).synchronize();
  weight_bytes = reader.elements_found() * static_cast<int64_t>(size_in_bytes(dtype));
  fingerprint = make_fingerprint(files, reader.fingerprint(), dtype, deterministic);
}

VisionTower VisionTower::load(const std::filesystem::path& directory, const LoadOptions& options) {
  if (options.threads < 0 || options.threads > 1024)
    throw_error(ErrorCode::invalid_argument, "threads: expected 0 (all) or 1 to 1024, got {}", options.threads);
  check_device(options.device);
  const arch::ModelFiles files = arch::ModelFiles::read(directory);
  auto impl = std::make_unique<Impl>();
  impl->device = options.device;
  impl->dtype = choose_dtype(options.dtype, options.device);
  impl->deterministic = options.deterministic;
  impl->pool = std::make_unique<ThreadPool>(options.threads);
  with_torch_errors(directory.string(), [&] {
    const c10::InferenceMode guard;
    impl->architecture = arch::make_architecture(files);
    if (options.weights)
      impl->load_weights(files, options);
    else
      impl->fingerprint = make_fingerprint(files, {}, impl->dtype, impl->deterministic);
  });
  return VisionTower(std::move(impl));
}

ModelReport inspect_model(const std::filesystem::path& directory) {
  const arch::ModelFiles files = arch::ModelFiles::read(directory);
  const std::unique_ptr<arch::Architecture> architecture = arch::make_architecture(files);
  const arch::NameRules& names = architecture->traits().names;
  arch::WeightReader reader(open_weights(files, names), names, {.dry = true});
  (void)architecture->load(reader);
  return {.model_type = files.model_type(),
          .family = architecture->traits().family,
          .found = to_report(reader.found()),
          .missing = reader.missing(),
          .mismatched = reader.mismatched(),
          .unused = to_report(reader.unused()),
          .weight_bytes = reader.bytes_found()};
}

void set_compute_threads(int threads) {
  if (threads < 1) throw_error(ErrorCode::invalid_argument, "threads: expected a positive number, got {}", threads);
  at::set_num_threads(threads);
}

}  // namespace oriel
