#pragma once
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <oriel/chat_options.hpp>
#include <oriel/export.hpp>
#include <oriel/mm_embedding.hpp>
#include <oriel/tokenizer.hpp>

namespace oriel {

/// One turn of a conversation: pictures and text in the order in which they are said.
struct ChatMessage {
  std::string role = {};  ///< "user", "assistant" or "system"
  std::vector<std::variant<std::string, MMEmbedding, PictureViews>> content = {};
};

/// The prompt format of a checkpoint: its chat template, run as transformers' processor runs it, and how the family
/// marks the place of a picture. Tokenizer::encode turns the segments into the processor's input_ids, with the ids of
/// the embeddings in place of the rows.
///
/// An immutable value; copies share the template. Safe from many threads. One that was moved from may only be assigned
/// to or destroyed.
class ORIEL_API ChatFormat {
 public:
  /// Takes the template where transformers' processor does: processor_config.json, chat_template.json,
  /// chat_template.jinja. Throws file_error, malformed_model, and unsupported_model for a checkpoint without a text
  /// side. What is wrong with the template itself is said by render: place does without one.
  [[nodiscard]] static ChatFormat load(const std::filesystem::path& directory);

  /// The prompt as segments: the template's own text with special tokens recognised, what the messages say as plain
  /// text in which nothing is recognised, and the embeddings, in order, where the template writes the family's
  /// placeholder. Each message reaches the template as {"role", "content": [{"type": "text", "text"}, {"type": "image"}
  /// or
  /// {"type": "video"}, ...]}. Throws unavailable if the checkpoint has no template, malformed_model for one that does
  /// not parse or fails, unsupported_model for one that uses what oriel does not run, invalid_argument with the
  /// template's own message where it raises one (roles that do not alternate) or writes another number of placeholders,
  /// and limit_exceeded for templates that do not end.
  [[nodiscard]] std::vector<PromptSegment> render(std::span<const ChatMessage> messages,
                                                  const ChatOptions& options = {}) const;

  /// Whether the template reads a variable of this name, so that ChatOptions::template_arguments may set it. Throws as
  /// render does where there is no template.
  [[nodiscard]] bool takes_template_argument(std::string_view name) const;

  /// A text that is written for transformers' processor (`text=`), with the family's own placeholders ([IMG],
  /// <|vision_start|><|image_pad|><|vision_end|>, <start_of_image>) for the embeddings in order, pictures and videos
  /// each in their own. Special tokens in it are recognised. Throws invalid_argument counting both if they do not
  /// match.
  [[nodiscard]] std::vector<PromptSegment> place(std::string_view text, std::span<const MMEmbedding> embeddings) const;

  /// The same of pictures in one view or several.
  [[nodiscard]] std::vector<PromptSegment> place_views(std::string_view text,
                                                       std::span<const PictureViews> pictures) const;

 private:
  struct ORIEL_LOCAL Impl;
  explicit ChatFormat(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

}  // namespace oriel
