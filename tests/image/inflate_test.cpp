#include "image/inflate.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace oriel::image {
namespace {

/// Python's zlib.compress(b"oriel oriel oriel!"): one block of fixed codes.
const std::vector<uint8_t> kStream{0x78, 0x9c, 0xcb, 0x2f, 0xca, 0x4c, 0xcd, 0x51, 0xc8,
                                   0x47, 0x90, 0x8a, 0x00, 0x42, 0x16, 0x06, 0xb3};
const std::string kText = "oriel oriel oriel!";

struct Inflated {
  InflateStatus status;
  std::string text;
};

Inflated inflate(const std::vector<uint8_t>& input, size_t room) {
  std::vector<uint8_t> output(room);
  const InflateResult result = inflate_zlib(input, output);
  return {result.status, std::string(output.begin(), output.begin() + static_cast<std::ptrdiff_t>(result.written))};
}

TEST(Inflate, GivesTheTextBack) {
  const Inflated all = inflate(kStream, kText.size());
  EXPECT_EQ(all.status, InflateStatus::finished);
  EXPECT_EQ(all.text, kText);
  EXPECT_EQ(inflate(kStream, 100).text, kText);
}

TEST(Inflate, StopsWhereTheOutputEnds) {
  for (size_t room = 0; room < kText.size(); ++room) {
    const Inflated part = inflate(kStream, room);
    EXPECT_EQ(part.status, InflateStatus::output_full) << room;
    EXPECT_EQ(part.text, kText.substr(0, room));
  }
}

TEST(Inflate, SaysThatTheInputEnded) {
  for (size_t count = 0; count + 4 < kStream.size(); ++count) {
    const std::vector<uint8_t> cut(kStream.begin(), kStream.begin() + static_cast<std::ptrdiff_t>(count));
    const Inflated part = inflate(cut, 100);
    EXPECT_EQ(part.status, InflateStatus::input_ended) << count;
    EXPECT_EQ(part.text, kText.substr(0, part.text.size())) << count;
  }
}

TEST(Inflate, GivesTheWholeTextOfAStreamWithoutItsChecksum) {
  const std::vector<uint8_t> cut(kStream.begin(), kStream.end() - 1);
  const Inflated all = inflate(cut, 100);
  EXPECT_EQ(all.status, InflateStatus::input_ended);
  EXPECT_EQ(all.text, kText);
}

TEST(Inflate, RefusesAWrongChecksum) {
  std::vector<uint8_t> wrong = kStream;
  wrong.back() ^= 1;
  EXPECT_EQ(inflate(wrong, 100).status, InflateStatus::corrupt);
}

TEST(Inflate, RefusesStreamsThatAreNoneOfZlib) {
  const auto status = [](std::vector<uint8_t> input) { return inflate(input, 100).status; };
  EXPECT_EQ(status({0x79, 0x9c, 0, 0}), InflateStatus::corrupt);              // another method
  EXPECT_EQ(status({0x78, 0x9d, 0, 0}), InflateStatus::corrupt);              // header check
  EXPECT_EQ(status({0x78, 0xbb, 0, 0, 0, 0}), InflateStatus::corrupt);        // a preset dictionary
  EXPECT_EQ(status({0x78, 0x9c, 0x07, 0}), InflateStatus::corrupt);           // the block type that does not exist
  EXPECT_EQ(status({0x78, 0x9c, 0x01, 2, 0, 2, 0}), InflateStatus::corrupt);  // a length unlike its complement
  EXPECT_EQ(status({0x78, 0x9c, 0x03, 0x02}), InflateStatus::corrupt);        // a copy from before the beginning
}

}  // namespace
}  // namespace oriel::image
