// ExLlamaV2's own call: a text model and a tokenizer beside the picture (spec/reference_api.md 3).
#include <oriel/text_model.hpp>
#include <oriel/tokenizer.hpp>
#include <utility>

#include "core/error.hpp"
#include "tower_impl.hpp"

namespace oriel {
namespace {

void expect_known(const arch::Prompt& prompt, const Tokenizer& tokenizer) {
  for (const int64_t id : prompt.tokens) {
    if (id == prompt.placeholder || id < 0) continue;  // a row, or what `prompt.unavailable` is about
    if (!tokenizer.token(id))
      throw_error(ErrorCode::invalid_argument,
                  "tokenizer: expected one that has token {}, which stands beside a picture's rows, got one of {} ids",
                  id, tokenizer.vocabulary_size());
  }
}

}  // namespace

MMEmbedding VisionTower::get_image_embeddings(const TextModel& model, const Tokenizer& tokenizer, const Image& image,
                                              std::string text_alias, bool embeddings_cpu) const {
  if (model.hidden_size() != hidden_size())
    throw_error(ErrorCode::invalid_argument, "model: expected one of hidden size {} as the tower's rows, got {} of {}",
                hidden_size(), model.family(), model.hidden_size());
  const Grid grid = impl_->plan(image.size(), {}, image.name()).grid;
  expect_known(impl_->architecture->reference_prompt(grid, arch::Modality::image), tokenizer);
  return get_image_embeddings(image, {.text_alias = std::move(text_alias),
                                      .embeddings_cpu = embeddings_cpu,
                                      .layout = TokenLayout::exllamav2,
                                      .token_rows = model.token_rows()});
}

}  // namespace oriel
