#include "tokenizer/vocabulary.hpp"

#include "core/error.hpp"

namespace oriel::tokenizer {

Vocabulary Vocabulary::read(const Json& json) {
  Vocabulary result;
  for (const auto& [token, value] : json.members()) {
    const auto id = static_cast<uint32_t>(value.integer_in(0, id_limit - 1));
    if (result.token(id))
      throw_error(ErrorCode::malformed_model, "{}: expected an id that no other token has, got {}, the id of {}",
                  value.where(), id, quote_json(*result.token(id)));
    result.set(token, id);
  }
  return result;
}

void Vocabulary::set(std::string_view token, uint32_t id) {
  if (id >= tokens_.size()) tokens_.resize(id + 1);
  ids_.insert_or_assign(token, id);
  tokens_[id] = std::string(token);
}

const std::optional<std::string>& Vocabulary::token(uint32_t id) const {
  static const std::optional<std::string> none;
  return id < tokens_.size() ? tokens_[id] : none;
}

}  // namespace oriel::tokenizer
