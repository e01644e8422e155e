// Boxes in a trained model's answers, read and mapped as ground_objects does it.
#include "grounding.hpp"

#include <gtest/gtest.h>

#include <cstdio>

#include "demo/demo_model.hpp"

namespace oriel {
namespace {

class DemoGrounding : public testing::TestWithParam<std::string> {};

TEST_P(DemoGrounding, BoxesLieWhereTheObjectsAre) {
  constexpr int scene_count = 50;
  const DemoModel model(GetParam(), Device::cpu(), DType::float32);
  std::vector<scenes::Case> drawn;
  std::vector<DemoModel::Asked> asked;
  for (int number = 0; number < scene_count; ++number) {
    drawn.push_back(
        scenes::make_case({.seed = 78, .kind = scenes::Kind::where, .place = scenes::Place::boxes}, number));
    asked.push_back(model.ask(drawn.back()));
  }
  const std::vector<DemoModel::Said> answers = model.answer(asked, /*special_tokens=*/true);
  double sum = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    const std::vector<FoundObject> found = boxes_in_picture(answers[i].text, asked[i].pictures[0]);
    ASSERT_EQ(found.size(), 1U) << asked[i].question << ": " << answers[i].text;
    const scenes::Question& question = drawn[i].questions[0];
    EXPECT_NE(question.question.find(found[0].label), std::string::npos)
        << question.question << ": " << answers[i].text;
    const auto pixels = [](int length) { return static_cast<double>(length) / scenes::unit; };
    const scenes::Box& box = question.boxes[0];
    sum += intersection_over_union({found[0].first.x, found[0].first.y, found[0].last.x, found[0].last.y},
                                   {pixels(box.left), pixels(box.top), pixels(box.right), pixels(box.bottom)});
  }
  std::printf("%s: mean intersection over union %.3f of %d boxes\n", GetParam().c_str(), sum / scene_count,
              scene_count);
  EXPECT_GT(sum / scene_count, 0.7);
}

INSTANTIATE_TEST_SUITE_P(Families, DemoGrounding, testing::ValuesIn(grounding_families),
                         [](const auto& of_family) { return of_family.param; });

}  // namespace
}  // namespace oriel
