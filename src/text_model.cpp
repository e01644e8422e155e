// The public face: every method says what it does in terms of Impl.
#include <fmt/format.h>

#include <oriel/text_model.hpp>
#include <oriel/torch.hpp>
#include <utility>

#include "core/error.hpp"
#include "tensor_types.hpp"
#include "text_model_impl.hpp"

namespace oriel {

TextModel::TextModel(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
TextModel::TextModel(TextModel&&) noexcept = default;
TextModel& TextModel::operator=(TextModel&&) noexcept = default;
TextModel::~TextModel() = default;

Tensor TextModel::embed(std::span<const int64_t> ids, std::span<const MMEmbedding> embeddings) const {
  return from_torch(impl_->rows(ids, embeddings));
}

Tensor TextModel::embed_batch(const Tensor& ids, std::span<const MMEmbedding> embeddings) const {
  if (!ids.defined() || ids.dtype() != DType::int64 || ids.shape().size() != 2 || ids.device() != Device::cpu())
    throw_error(ErrorCode::invalid_argument, "ids: expected an int64 tensor [batch, n] on the CPU, got {}",
                ids.defined() ? fmt::format("{} of {} dimensions on {}", to_string(ids.dtype()), ids.shape().size(),
                                            to_string(ids.device()))
                              : "an empty one");
  const std::span values(static_cast<const int64_t*>(ids.data()), static_cast<size_t>(ids.element_count()));
  const at::Tensor rows = impl_->rows(values, embeddings);
  return from_torch(rows.view({ids.size(0), ids.size(1), rows.size(1)}));
}

Tensor TextModel::positions(std::span<const int64_t> ids, std::span<const MMEmbedding> embeddings) const {
  return from_torch(impl_->prepare(ids, embeddings).positions);
}

ForwardResult TextModel::forward(std::span<const int64_t> ids, std::span<const MMEmbedding> embeddings) const {
  const Impl::Prompt prompt = impl_->prepare(ids, embeddings);
  return {.logits = from_torch(impl_->forward(prompt)).to(Device::cpu()), .positions = from_torch(prompt.positions)};
}

TokenRows TextModel::token_rows() const {
  return [impl = impl_](std::span<const int64_t> ids) { return from_torch(impl->rows(ids, {})); };
}

const std::string& TextModel::family() const noexcept { return impl_->traits().family; }
int64_t TextModel::hidden_size() const noexcept { return impl_->traits().decoder.width; }
int64_t TextModel::vocabulary_size() const noexcept { return impl_->traits().decoder.vocabulary; }
int64_t TextModel::layers() const noexcept { return impl_->traits().decoder.depth(); }
int64_t TextModel::max_positions() const noexcept { return impl_->traits().max_positions; }
const std::vector<int64_t>& TextModel::stop_ids() const noexcept { return impl_->stop_ids; }
double TextModel::repetition_penalty() const noexcept { return impl_->repetition_penalty; }
Device TextModel::device() const noexcept { return impl_->device; }
DType TextModel::dtype() const noexcept { return impl_->dtype; }
ContentHash TextModel::fingerprint() const noexcept { return impl_->fingerprint; }
int64_t TextModel::weight_bytes() const noexcept { return impl_->weight_bytes; }

int64_t TextModel::cache_bytes_per_token() const noexcept {
  return nn::KvCache::bytes_per_token(impl_->decoder->cache_shape(1, 1), to_scalar_type(impl_->dtype));
}

}  // namespace oriel
