#include "tokenizer/vocabulary.hpp"

#include "core/error.hpp"

namespace oriel::tokenizer {

Vocabulary Vocabulary::read(const Json& json) {
  Vocabulary result;
  const auto members = json.members();
  result.ids_.reserve(members.size());
  for (const auto& [token, value] : members) {
    const auto id = static_cast<uint32_t>(value.integer_in(0, id_limit - 1));
    if (const auto other = result.token(id))
      throw_error(ErrorCode::malformed_model, "{}: expected an id that no other token has, got {}, the id of {}",
                  value.where(), id, quote_json(*other));
    if (id >= result.entries_.size()) result.entries_.resize(id + 1, no_entry);
    result.entries_[id] = static_cast<uint32_t>(result.ids_.size());
    result.ids_.insert_or_assign(token, id);
  }
  return result;
}

}  // namespace oriel::tokenizer
