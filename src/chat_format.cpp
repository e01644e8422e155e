#include <algorithm>
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

/// An embedding without the special tokens in front of its first row and behind its last one.
MMEmbedding rows_alone(const MMEmbedding& embedding) {
  if (embedding.info().pre_tokens + embedding.info().post_tokens > 0)
    throw_error(
        ErrorCode::invalid_argument,
        "embedding \"{}\": expected rows of a picture alone for a placeholder without special tokens around it, "
        "got {} rows of special tokens with them (TokenLayout::exllamav2)",
        embedding.text_alias(), embedding.info().pre_tokens + embedding.info().post_tokens);
  std::vector<int64_t> tokens = embedding.info().placeholder_tokens;
  const auto is_row = [&](int64_t token) { return token == embedding.info().placeholder_id; };
  tokens.erase(std::find_if(tokens.rbegin(), tokens.rend(), is_row).base(), tokens.end());
  tokens.erase(tokens.begin(), std::find_if(tokens.begin(), tokens.end(), is_row));
  return embedding.with_placeholder_tokens(std::move(tokens));
}

std::vector<PromptSegment> place_embeddings(const jinja::Text& prompt,
                                            const std::vector<arch::Placeholder>& placeholders,
                                            std::span<const PictureViews> pictures, std::string_view where) {
  std::vector<text::PromptPicture> kinds;
  for (const PictureViews& views : pictures) kinds.push_back({modality_of(views[0]), views.size()});
  std::vector<PromptSegment> segments;
  for (const text::Piece& piece : text::place_pictures(prompt, placeholders, kinds, where)) {
    if (const auto* placed = std::get_if<text::PlacedPicture>(&piece)) {
      const MMEmbedding& view = pictures[placed->picture][placed->view];
      segments.emplace_back(placed->bare ? rows_alone(view) : view);
    } else {
      segments.emplace_back(TextSegment{.text = std::get<text::PlacedText>(piece).text,
                                        .special_tokens = !std::get<text::PlacedText>(piece).foreign});
    }
  }
  return segments;
}

/// A turn for the template, which sees of a picture only that there is one; the pictures go to `pictures`.
text::Turn turn_of(const ChatMessage& message, size_t index, std::vector<PictureViews>& pictures) {
  text::Turn turn{message.role, {}};
  for (const auto& part : message.content) {
    if (const auto* text = std::get_if<std::string>(&part)) {
      turn.content.emplace_back(*text);
      continue;
    }
    const auto* one = std::get_if<MMEmbedding>(&part);
    pictures.push_back(one != nullptr ? PictureViews{*one} : std::get<PictureViews>(part));
    if (pictures.back().empty())
      throw_error(ErrorCode::invalid_argument, "messages[{}].content: expected views of a picture, got none", index);
    turn.content.emplace_back(modality_of(pictures.back()[0]));
  }
  return turn;
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
    std::vector<PictureViews> pictures;
    for (size_t i = 0; i < messages.size(); ++i) turns.push_back(turn_of(messages[i], i, pictures));
    const jinja::Text prompt = impl_->chat_template.render(turns, options);
    return place_embeddings(prompt, impl_->placeholders, pictures, "the prompt of the chat template");
  });
}

bool ChatFormat::takes_template_argument(std::string_view name) const {
  return impl_->chat_template.takes_argument(name);
}

std::vector<PromptSegment> ChatFormat::place(std::string_view text, std::span<const MMEmbedding> embeddings) const {
  return with_memory_errors("text", "pictures were placed in it", [&] {
    std::vector<PictureViews> pictures;
    for (const MMEmbedding& embedding : embeddings) pictures.push_back({embedding});
    return place_views(text, pictures);
  });
}

std::vector<PromptSegment> ChatFormat::place_views(std::string_view text,
                                                   std::span<const PictureViews> pictures) const {
  return with_memory_errors("text", "pictures were placed in it", [&] {
    if (!is_utf8(text)) throw_error(ErrorCode::invalid_argument, "text: expected UTF-8");
    for (const PictureViews& views : pictures)
      if (views.empty()) throw_error(ErrorCode::invalid_argument, "pictures: expected views of each, got none of one");
    return place_embeddings(jinja::Text(std::string(text)), impl_->placeholders, pictures, "text");
  });
}

}  // namespace oriel
