#include "text/placement.hpp"

#include <gtest/gtest.h>

#include <chrono>

#include "core/expect_error.hpp"

namespace oriel::text {
namespace {

using arch::Modality;

const std::vector<arch::Placeholder> both = {{.modality = Modality::image, .token = "<image>"},
                                             {.modality = Modality::video, .token = "<video>"}};

/// The pieces, pictures as their number.
std::string written(const std::vector<Piece>& pieces) {
  std::string all;
  for (const Piece& piece : pieces) {
    if (const auto* placed = std::get_if<PlacedPicture>(&piece))
      all += std::to_string(placed->picture);
    else
      all += std::get<PlacedText>(piece).text;
  }
  return all;
}

TEST(Placement, KindsTakeTurns) {
  const std::vector<PromptPicture> pictures = {
      {Modality::video}, {Modality::image}, {Modality::image}, {Modality::video}};
  const jinja::Text prompt(std::string("a<image>b<image><video>c<video>d"));
  EXPECT_EQ(written(place_pictures(prompt, both, pictures, "here")), "a1b20c3d");
}

TEST(Placement, ForeignTextHoldsNoPlaceholders) {
  jinja::Text prompt(std::string("<image>"));
  prompt.append(jinja::Text("<image><video>", /*foreign=*/true));
  const std::vector<PromptPicture> pictures = {{Modality::image}};
  EXPECT_EQ(written(place_pictures(prompt, both, pictures, "here")), "0<image><video>");
}

TEST(Placement, SpecialTokensThatATextLacksAreNotAdded) {
  const std::vector<arch::Placeholder> bracketed = {{.token = "<image>", .opening = "(", .closing = ")"}};
  const std::vector<PromptPicture> pictures(4, {Modality::image});
  const jinja::Text prompt(std::string("(<image>)<image>)(<image>(<image>)"));
  const std::vector<Piece> pieces = place_pictures(prompt, bracketed, pictures, "here");
  EXPECT_EQ(written(pieces), "01)(23");
  std::vector<bool> bare;
  for (const Piece& piece : pieces)
    if (const auto* placed = std::get_if<PlacedPicture>(&piece)) bare.push_back(placed->bare);
  EXPECT_EQ(bare, (std::vector<bool>{false, true, true, false}));
}

/// One look at the rest of the text for the other kind, at each placeholder, takes minutes.
TEST(Placement, ManyPlaceholdersOfOneKindTakeAMoment) {
  std::string text;
  for (int i = 0; i < 1'000'000; ++i) text += "<image>";
  const auto begin = std::chrono::steady_clock::now();
  expect_error(ErrorCode::invalid_argument, "here: expected one <image> for each of 0 pictures, found 1000000",
               [&] { (void)place_pictures(jinja::Text(text), both, {}, "here"); });
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

}  // namespace
}  // namespace oriel::text
