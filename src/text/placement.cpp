#include "text/placement.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace oriel::text {
namespace {

std::string_view name_of(arch::Modality modality) { return modality == arch::Modality::image ? "pictures" : "videos"; }

class Placement {
 public:
  Placement(std::span<const arch::Placeholder> placeholders, std::span<const PromptPicture> pictures,
            std::string_view where)
      : placeholders_(placeholders), pictures_(pictures), where_(where), found_(placeholders.size()) {}

  std::vector<Piece> place(const jinja::Text& text) {
    for (const jinja::Text::Run& run : text.runs()) {
      if (run.foreign)
        add_text(run.bytes, /*foreign=*/true);
      else
        place_in(run.bytes);
    }
    check_counts();
    return std::move(pieces_);
  }

 private:
  void add_text(std::string_view text, bool foreign) {
    if (text.empty()) return;
    auto* last = pieces_.empty() ? nullptr : std::get_if<PlacedText>(&pieces_.back());
    if (last != nullptr && last->foreign == foreign)
      last->text += text;
    else
      pieces_.emplace_back(PlacedText{std::string(text), foreign});
  }

  void place_in(std::string_view text) {
    size_t at = 0;
    // The next placeholder of each kind. One that is far away, or nowhere, is not looked for again at each other one.
    std::vector<size_t> next;
    for (const arch::Placeholder& placeholder : placeholders_) next.push_back(text.find(placeholder.token));
    for (;;) {
      for (size_t i = 0; i < next.size(); ++i)
        if (next[i] < at) next[i] = text.find(placeholders_[i].token, at);
      const auto nearest = std::ranges::min_element(next);
      if (nearest == next.end() || *nearest == std::string_view::npos) break;
      at = place_one(text, at, *nearest, static_cast<size_t>(nearest - next.begin()));
    }
    add_own(text.substr(at));
  }

  /// Takes the placeholder at `place` with the special tokens around it; returns where the text goes on. One without
  /// them stands for the rows alone: the processor looks for the placeholder only.
  size_t place_one(std::string_view text, size_t at, size_t place, size_t kind) {
    const arch::Placeholder& placeholder = placeholders_[kind];
    const std::string_view before = text.substr(at, place - at);
    const size_t behind = place + placeholder.token.size();
    const bool bare = !before.ends_with(placeholder.opening) || !text.substr(behind).starts_with(placeholder.closing);
    add_own(bare ? before : before.substr(0, before.size() - placeholder.opening.size()));
    if (const size_t picture = next_picture(placeholder.modality, found_[kind]++); picture < pictures_.size())
      add_picture(placeholder, picture, bare);
    return bare ? behind : behind + placeholder.closing.size();
  }

  void add_picture(const arch::Placeholder& placeholder, size_t picture, bool bare) {
    const size_t views = pictures_[picture].views;
    const arch::Placeholder::Crops& crops = placeholder.crops;
    if (views > 1 && crops.introduction.empty())
      throw_error(ErrorCode::invalid_argument, "{}: this family's prompts take one view of a picture, got {}", where_,
                  views);
    for (size_t view = 0; view < views; ++view) {
      if (views > 1) add_text(view == 0 ? crops.introduction : view == 1 ? crops.transition : crops.separator, false);
      add_text(placeholder.around, /*foreign=*/false);
      pieces_.emplace_back(PlacedPicture{picture, view, bare});
      add_text(placeholder.around, /*foreign=*/false);
    }
  }

  /// Without a picture the token of a row is one like any other.
  void add_own(std::string_view text) {
    for (const arch::Placeholder& placeholder : placeholders_)
      if (!placeholder.row.empty() && !pictures_.empty() && text.find(placeholder.row) != std::string_view::npos)
        throw_error(ErrorCode::invalid_argument, "{}: expected no {} beside pictures: it stands for a row of one",
                    where_, placeholder.row);
    add_text(text, /*foreign=*/false);
  }

  /// Index of picture number `number` of a kind; the count of all if there is none.
  [[nodiscard]] size_t next_picture(arch::Modality modality, size_t number) const {
    for (size_t i = 0; i < pictures_.size(); ++i)
      if (pictures_[i].modality == modality && number-- == 0) return i;
    return pictures_.size();
  }

  void check_counts() const {
    for (size_t i = 0; i < placeholders_.size(); ++i) {
      const auto wanted =
          static_cast<size_t>(std::ranges::count(pictures_, placeholders_[i].modality, &PromptPicture::modality));
      if (found_[i] != wanted)
        throw_error(ErrorCode::invalid_argument, "{}: expected one {} for each of {} {}, found {}", where_,
                    placeholders_[i].token, wanted, name_of(placeholders_[i].modality), found_[i]);
    }
    for (const PromptPicture& picture : pictures_)
      if (std::ranges::find(placeholders_, picture.modality, &arch::Placeholder::modality) == placeholders_.end())
        throw_error(ErrorCode::invalid_argument, "{}: this family's prompts take no {}", where_,
                    name_of(picture.modality));
  }

  std::span<const arch::Placeholder> placeholders_;
  std::span<const PromptPicture> pictures_;
  std::string_view where_;
  std::vector<size_t> found_;  // placeholders of each kind
  std::vector<Piece> pieces_;
};

}  // namespace

std::vector<Piece> place_pictures(const jinja::Text& text, std::span<const arch::Placeholder> placeholders,
                                  std::span<const PromptPicture> pictures, std::string_view where) {
  return Placement(placeholders, pictures, where).place(text);
}

}  // namespace oriel::text
