#include <gtest/gtest.h>

#include <oriel/types.hpp>
#include <string>

#include "core/expect_error.hpp"

namespace oriel {
namespace {

TEST(Device, ParsesWhatItPrints) {
  EXPECT_EQ(Device::parse("cpu"), Device::cpu());
  EXPECT_EQ(Device::parse("cuda"), Device::cuda(0));
  for (const Device device : {Device::cpu(), Device::cuda(0), Device::cuda(17)}) {
    EXPECT_EQ(Device::parse(to_string(device)), device);
  }
  EXPECT_EQ(to_string(Device::cpu()), "cpu");
  EXPECT_EQ(to_string(Device::cuda(3)), "cuda:3");
}

TEST(Device, RefusesEverythingElse) {
  for (const std::string text : {"", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:+1", "cuda: 1", "cuda:1x", "cuda:0x1",
                                 "cuda:99999999999", "gpu"}) {
    expect_error(ErrorCode::invalid_argument, "device: expected \"cpu\", \"cuda\" or \"cuda:N\", got \"" + text + "\"",
                 [&] { (void)Device::parse(text); });
  }
}

TEST(DType, KnowsNameAndSize) {
  EXPECT_EQ(to_string(DType::float32), "float32");
  EXPECT_EQ(to_string(DType::bfloat16), "bfloat16");
  EXPECT_EQ(to_string(DType::float16), "float16");
  EXPECT_EQ(to_string(DType::int64), "int64");
  EXPECT_EQ(to_string(DType::uint8), "uint8");
  EXPECT_EQ(size_in_bytes(DType::float32), 4U);
  EXPECT_EQ(size_in_bytes(DType::bfloat16), 2U);
  EXPECT_EQ(size_in_bytes(DType::float16), 2U);
  EXPECT_EQ(size_in_bytes(DType::int64), 8U);
  EXPECT_EQ(size_in_bytes(DType::uint8), 1U);
}

TEST(ContentHash, PrintsThirtyTwoDigitsHighFirst) {
  EXPECT_EQ((ContentHash{0x1, 0xabcdef}.to_string()), "00000000000000010000000000abcdef");
}

}  // namespace
}  // namespace oriel
