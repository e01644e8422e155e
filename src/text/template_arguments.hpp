#pragma once
// What a caller sets in a chat template beside messages.
#include <string_view>

#include "jinja/value.hpp"
#include "oriel/chat_options.hpp"

namespace oriel::text {

/// Whether prompts set this variable themselves, whatever the checkpoint.
[[nodiscard]] bool is_reserved_variable(std::string_view name);

/// Throws invalid_argument for a variable that the prompt sets itself, and for one that the template does not read.
void check_argument_name(std::string_view name, bool is_set, bool is_read);

/// The value as the template sees it; its texts are foreign. Throws invalid_argument for text that is not UTF-8 or not
/// the JSON that it claims to be.
[[nodiscard]] jinja::Value argument_value(jinja::Run& run, std::string_view name, const TemplateValue& value);

}  // namespace oriel::text
