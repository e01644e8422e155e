#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <variant>

namespace oriel {

/// A value written as JSON, for what the other kinds of a TemplateValue can't say: null, lists and objects.
struct JsonText {
  std::string text = {};
};

/// What a variable of a chat template is set to.
using TemplateValue = std::variant<bool, int64_t, double, std::string, JsonText>;

struct ChatOptions {
  /// End with what opens the assistant's answer.
  bool add_generation_prompt = true;
  /// Further variables of the template, as transformers' apply_chat_template(**kwargs) sets them. Texts in them are
  /// plain, as in messages: no special token is recognised there. Names that the template does not read, and those that
  /// are set already (messages, tools, documents, add_generation_prompt, special tokens), are an invalid_argument.
  std::map<std::string, TemplateValue> template_arguments = {};
};

}  // namespace oriel
