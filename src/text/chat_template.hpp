#pragma once
// The chat template of a checkpoint, found and run as transformers' processor does it. spec/text.md 8.
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "arch/architecture.hpp"
#include "arch/model_files.hpp"
#include "jinja/template.hpp"
#include "oriel/chat_options.hpp"
#include "oriel/error.hpp"

namespace oriel::text {

/// A turn of a conversation; a picture or video in it is only its kind.
struct Turn {
  std::string role;
  std::vector<std::variant<std::string, arch::Modality>> content;
};

/// Immutable; copies share the template. Safe from many threads.
class ChatTemplate {
 public:
  /// Takes the template of processor_config.json, chat_template.json or chat_template.jinja, the first that is there,
  /// and the special tokens that tokenizer_config.json and special_tokens_map.json name. What is wrong with the
  /// template is only said by render, since a prompt can do without one.
  [[nodiscard]] static ChatTemplate load(const arch::ModelFiles& files);

  /// The prompt; foreign in it is what the turns and arguments say. Throws unavailable if there is no template, and
  /// what jinja::Template throws. Text must be UTF-8: invalid_argument.
  [[nodiscard]] jinja::Text render(std::span<const Turn> turns, const ChatOptions& options) const;

  /// Whether options.template_arguments may hold this name.
  [[nodiscard]] bool takes_argument(std::string_view name) const;

 private:
  ChatTemplate() = default;
  /// Whether render sets this variable, whatever the caller wants.
  [[nodiscard]] bool sets(std::string_view name) const;

  std::optional<jinja::Template> template_ = {};
  std::optional<Error> refusal_ = {};                                    // why there is no template
  std::map<std::string, std::string, std::less<>> special_tokens_ = {};  // text by name
  std::set<std::string, std::less<>> variables_read_ = {};
};

}  // namespace oriel::text
