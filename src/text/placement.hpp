#pragma once
// Pictures in a prompt: from the placeholders in a text to the places of the pictures.
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "arch/architecture.hpp"
#include "jinja/text.hpp"

namespace oriel::text {

/// A stretch of a prompt: text, of which special tokens are recognised in what is not foreign, or picture number
/// `picture`; a bare one lacks the special tokens around its rows.
struct PlacedText {
  std::string text;
  bool foreign = false;
};
struct PlacedPicture {
  size_t picture = 0;
  size_t view = 0;  ///< 0 is the picture as a whole, crops follow
  bool bare = false;
};
using Piece = std::variant<PlacedText, PlacedPicture>;

struct PromptPicture {
  arch::Modality modality = arch::Modality::image;
  size_t views = 1;  ///< the whole and its crops
};

/// Puts each picture in the place of a placeholder of its kind, in order, as transformers' processor does it; foreign
/// text holds no placeholders. `where` begins messages. Throws invalid_argument if the placeholders of a kind are not
/// as many as its pictures, if the text has tokens of rows beside pictures, or if the family's prompts take no crops.
[[nodiscard]] std::vector<Piece> place_pictures(const jinja::Text& text,
                                                std::span<const arch::Placeholder> placeholders,
                                                std::span<const PromptPicture> pictures, std::string_view where);

}  // namespace oriel::text
