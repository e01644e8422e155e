#include <oriel/chat.hpp>
#include <utility>

#include "arch/registry.hpp"
#include "core/error.hpp"
#include "core/json.hpp"
#include "core/memory_errors.hpp"
#include "text/chat_template.hpp"
#include "text/placement.hpp"

namespace oriel {

struct ChatFormat::Impl {
  std::vector<arch::Placeholder> placeholders;
  text::ChatTemplate chat_template;
};

namespace {

arch::Modality modality_of(const MMEmbedding& embedding) {
  return embedding.info().seconds_per_slot > 0 ? arch::Modality::video : arch::Modality::image;
}

std::vector<PromptSegment> to_segments(const std::vector<text::Piece>& pieces,
                                       std::span<const MMEmbedding> embeddings) {
  std::vector<PromptSegment> segments;
  for (const text::Piece& piece : pieces) {
    if (const auto* placed = std::get_if<text::PlacedPicture>(&piece))
      segments.emplace_back(embeddings[placed->picture]);
    else
      segments.emplace_back(TextSegment{.text = std::get<text::PlacedText>(piece).text,
                                        .special_tokens = !std::get<text::PlacedText>(piece).foreign});
  }
  return segments;
}

std::vector<PromptSegment> place_embeddings(const jinja::Text& prompt,
                                            const std::vector<arch::Placeholder>& placeholders,
                                            std::span<const MMEmbedding> embeddings, std::string_view where) {
  std::vector<arch::Modality> modalities;
  for (const MMEmbedding& embedding : embeddings) modalities.push_back(modality_of(embedding));
  return to_segments(text::place_pictures(prompt, placeholders, modalities, where), embeddings);
}

}  // namespace

ChatFormat::ChatFormat(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

ChatFormat ChatFormat::load(const std::filesystem::path& directory) {
  return with_memory_errors(directory.string(), "the chat format was read", [&] {
    const arch::ModelFiles files = arch::ModelFiles::read(directory);
    const arch::Traits traits = arch::make_architecture(files)->traits();
    if (traits.placeholders.empty())
      throw_error(ErrorCode::unsupported_model, "{}: {} has no text side, so no prompts", directory.string(),
                  traits.family);
    return ChatFormat(std::make_shared<const Impl>(Impl{traits.placeholders, text::ChatTemplate::load(files)}));
  });
}

std::vector<PromptSegment> ChatFormat::render(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  return with_memory_errors("messages", "they were rendered", [&] {
    std::vector<text::Turn> turns;
    std::vector<MMEmbedding> embeddings;
    for (const ChatMessage& message : messages) {
      text::Turn& turn = turns.emplace_back(text::Turn{message.role, {}});
      for (const auto& part : message.content) {
        if (const auto* embedding = std::get_if<MMEmbedding>(&part)) {
          embeddings.push_back(*embedding);
          turn.content.emplace_back(modality_of(*embedding));
        } else {
          turn.content.emplace_back(std::get<std::string>(part));
        }
      }
    }
    const jinja::Text prompt = impl_->chat_template.render(turns, options);
    return place_embeddings(prompt, impl_->placeholders, embeddings, "the prompt of the chat template");
  });
}

bool ChatFormat::takes_template_argument(std::string_view name) const {
  return impl_->chat_template.takes_argument(name);
}

std::vector<PromptSegment> ChatFormat::place(std::string_view text, std::span<const MMEmbedding> embeddings) const {
  return with_memory_errors("text", "pictures were placed in it", [&] {
    if (!is_utf8(text)) throw_error(ErrorCode::invalid_argument, "text: expected UTF-8");
    return place_embeddings(jinja::Text(std::string(text)), impl_->placeholders, embeddings, "text");
  });
}

}  // namespace oriel
