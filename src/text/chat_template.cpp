#include "text/chat_template.hpp"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <system_error>

#include "arch/tokenizer_class.hpp"
#include "core/error.hpp"
#include "text/template_arguments.hpp"

namespace oriel::text {
namespace {

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

Json read_if_there(const std::filesystem::path& path) {
  return is_there(path) ? Json::read(path) : Json::parse("{}", path.string());
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  // One byte more than a template may have, so that a longer one shows.
  std::string text(jinja::Template::most_source_bytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || !file.is_open())
    throw_error(ErrorCode::file_error, "{}: expected a file that can be read", path.string());
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

jinja::Template template_in(const Json& json) {
  if (!json.is_string())
    throw_error(ErrorCode::unsupported_model, "{}: expected one template, got {}", json.where(), json.dump());
  return jinja::Template::parse(json.string(), json.where());
}

jinja::Template find_template(const arch::ModelFiles& files, const Json& tokenizer_config) {
  if (const Json json = files.processor["chat_template"]; json.has_value()) return template_in(json);
  const std::filesystem::path& directory = files.directory;
  if (is_there(directory / "chat_template.json"))
    return template_in(Json::read(directory / "chat_template.json")["chat_template"]);
  if (const auto path = directory / "chat_template.jinja"; is_there(path))
    return jinja::Template::parse(read_text(path), path.string());
  const bool only_tokenizer = tokenizer_config["chat_template"].has_value();
  throw_error(ErrorCode::unavailable,
              "{}: no chat template in processor_config.json, chat_template.json or chat_template.jinja{}",
              directory.string(),
              only_tokenizer ? "; the one of tokenizer_config.json is not used by transformers' processor" : "");
}

using SpecialTokens = std::map<std::string, std::string, std::less<>>;

/// A named token is a text, or an object that has it as "content". null takes a name away.
void add_special_tokens(const Json& file, SpecialTokens& tokens) {
  for (const auto& [name, value] : file.members()) {
    if (name == "extra_special_tokens" && value.is_object()) {
      add_special_tokens(value, tokens);
    } else if (name.ends_with("_token")) {
      const Json token = value.is_object() ? value["content"] : value;
      if (token.is_string()) tokens[name] = token.string();
      if (value.is_null()) tokens.erase(name);
    }
  }
}

/// As the tokenizer names them: the class, tokenizer_config.json and, where that does not say what is added,
/// special_tokens_map.json, each over the one before.
SpecialTokens read_special_tokens(const arch::ModelFiles& files, const Json& config) {
  SpecialTokens tokens;
  for (const auto& [name, token] : arch::tokenizer_class(config, files.model_type()).special_tokens)
    tokens[name] = token;
  add_special_tokens(config, tokens);
  if (config["added_tokens_decoder"].is_absent())
    add_special_tokens(read_if_there(files.directory / "special_tokens_map.json"), tokens);
  return tokens;
}

using jinja::Value;

/// What the caller brought in, checked.
Value foreign(jinja::Run& run, const std::string& text, const std::string& where) {
  if (!is_utf8(text)) throw_error(ErrorCode::invalid_argument, "{}: expected UTF-8", where);
  return jinja::make_text(run, text, /*foreign=*/true);
}

Value own(jinja::Run& run, std::string_view text) { return jinja::make_text(run, std::string(text)); }

/// A message as transformers takes it: role, and a list of contents with their types.
Value message_of(jinja::Run& run, const Turn& turn, size_t index) {
  std::vector<Value> contents;
  for (const auto& part : turn.content) {
    std::vector<std::pair<std::string, Value>> entries;
    if (const auto* text = std::get_if<std::string>(&part)) {
      entries.emplace_back("type", own(run, "text"));
      entries.emplace_back("text", foreign(run, *text, fmt::format("messages[{}].content", index)));
    } else {
      const bool image = std::get<arch::Modality>(part) == arch::Modality::image;
      entries.emplace_back("type", own(run, image ? "image" : "video"));
    }
    contents.push_back(jinja::make_dict(run, std::move(entries)));
  }
  return jinja::make_dict(run, {{"role", foreign(run, turn.role, fmt::format("messages[{}].role", index))},
                                {"content", jinja::make_list(run, std::move(contents))}});
}

}  // namespace

ChatTemplate ChatTemplate::load(const arch::ModelFiles& files) {
  ChatTemplate result;
  const Json tokenizer_config = read_if_there(files.directory / "tokenizer_config.json");
  try {
    result.template_ = find_template(files, tokenizer_config);
    result.variables_read_ = result.template_->variables_read();
  } catch (const Error& error) {
    result.refusal_ = error;
  }
  result.special_tokens_ = read_special_tokens(files, tokenizer_config);
  return result;
}

bool ChatTemplate::sets(std::string_view name) const {
  return is_reserved_variable(name) || special_tokens_.contains(name);
}

bool ChatTemplate::takes_argument(std::string_view name) const {
  if (refusal_) throw Error(*refusal_);
  return variables_read_.contains(name) && !sets(name);
}

jinja::Text ChatTemplate::render(std::span<const Turn> turns, const ChatOptions& options) const {
  if (refusal_) throw Error(*refusal_);
  if (turns.empty()) throw_error(ErrorCode::invalid_argument, "messages: expected at least one, got none");
  for (const auto& [name, value] : options.template_arguments)
    check_argument_name(name, sets(name), variables_read_.contains(name));
  return template_->render([&](jinja::Run& run) {
    std::vector<Value> messages;
    for (size_t i = 0; i < turns.size(); ++i) messages.push_back(message_of(run, turns[i], i));
    jinja::Template::Variables variables{{"messages", jinja::make_list(run, std::move(messages))},
                                         {"tools", Value(jinja::None{})},
                                         {"documents", Value(jinja::None{})},
                                         {"add_generation_prompt", Value(options.add_generation_prompt)}};
    for (const auto& [name, token] : special_tokens_) variables.emplace_back(name, own(run, token));
    for (const auto& [name, value] : options.template_arguments)
      variables.emplace_back(name, argument_value(run, name, value));
    return variables;
  });
}

}  // namespace oriel::text
