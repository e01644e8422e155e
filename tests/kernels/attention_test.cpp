// The towers' attention kernels by themselves against their definition in float32: lengths of one token to more than
// 32,768, plans of any height, values that are not finite, strides, streams. What the ops make of them is in
// ops_on_gpu_test.cpp.
#include "attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAGuard.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "attention_plan.h"
#include "kernels/random_on_gpu.hpp"
#include "ops/cuda/launch.hpp"

namespace oriel::ops {
namespace {

using Lengths = std::vector<int64_t>;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();
const std::vector<int64_t> head_dims{64, 72, 80, 128};
const std::vector<at::ScalarType> dtypes{at::kBFloat16, at::kHalf};
const Lengths mixed{1, 2, 15, 16, 63, 64, 65, 127, 129, 255, 257, 700, 1000, 1009, 0, 4096, 313, 3};

enum class Kernel { sm90, window };

struct How {
  Kernel kernel = Kernel::sm90;
  bool prescaled = false;
  int processors = 0;  ///< that the plan is for; 0: the chip's
  int units = 0;       ///< height of the plan's tiles; 0: its own choice
};

int64_t sum(const Lengths& lengths) { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }

std::vector<int32_t> bounds_of(const Lengths& lengths) {
  std::vector<int32_t> bounds{0};
  for (const int64_t length : lengths) bounds.push_back(bounds.back() + static_cast<int32_t>(length));
  return bounds;
}

/// One launch over qkv [tokens, 3, heads, head_dim], whose memory it keeps.
class Launch {
 public:
  Launch(const at::Tensor& qkv, const at::Tensor& out, const Lengths& lengths, const How& how)
      : qkv_(qkv), out_(out), how_(how) {
    kernels::AttentionInputs inputs{.qkv = qkv.const_data_ptr(),
                                    .out = out.mutable_data_ptr(),
                                    .token_stride = qkv.stride(0),
                                    .tokens = static_cast<int32_t>(sum(lengths)),
                                    .heads = static_cast<int32_t>(qkv.size(2)),
                                    .head_dim = static_cast<int32_t>(qkv.size(3)),
                                    .element = cuda::element_of(qkv),
                                    .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(qkv.size(3)))),
                                    .q_prescaled = how.prescaled};
    const std::vector<int32_t> bounds = bounds_of(lengths);
    if (how.kernel == Kernel::window) {
      static_cast<kernels::AttentionInputs&>(window_) = inputs;
      placed_ = cuda::to_device(bounds.data(), static_cast<int64_t>(bounds.size()), at::kInt, qkv.device());
      window_.cu_seqlens = placed_.const_data_ptr<int32_t>();
      window_.windows = static_cast<int32_t>(lengths.size());
      window_.longest = static_cast<int32_t>(*std::max_element(lengths.begin(), lengths.end()));
      return;
    }
    static_cast<kernels::AttentionInputs&>(sm90_) = inputs;
    const int processors = how.processors > 0 ? how.processors : cuda::chip_of(qkv.device()).processors;
    const auto heads = static_cast<int>(qkv.size(2));
    const auto head_dim = static_cast<int>(qkv.size(3));
    const kernels::AttentionPlan plan =
        how.units > 0
            ? kernels::plan_attention_of_height(bounds.data(), bounds.size(), heads, head_dim, processors, how.units)
            : kernels::plan_attention(bounds, heads, head_dim, processors);
    placed_ = cuda::to_device(plan.bytes.data(), static_cast<int64_t>(plan.bytes.size()), at::kByte, qkv.device());
    sm90_.plan = placed_.const_data_ptr();
    sm90_.blocks = plan.blocks;
  }

  /// On the current stream.
  [[nodiscard]] cudaError_t operator()() const {
    const cudaStream_t stream = cuda::stream_of(out_);
    return how_.kernel == Kernel::window ? kernels::attention_window(window_, stream)
                                         : kernels::attention_sm90(sm90_, stream);
  }

 private:
  at::Tensor qkv_, out_, placed_;
  How how_;
  kernels::AttentionSm90Params sm90_;
  kernels::AttentionWindowParams window_;
};

class AttentionOnGpu : public RandomOnGpu {
 protected:
  void SetUp() override {
    RandomOnGpu::SetUp();
    if (IsSkipped()) return;
    const cuda::Chip chip = cuda::chip_of({at::kCUDA, 0});
    if (chip.major != 9) GTEST_SKIP() << "a kernel is for compute capability 9.0, this is " << chip.major << ".x";
    ASSERT_TRUE(chip.has_sm90_code) << "the build has no code for this chip";
  }

  static at::Tensor normal(at::IntArrayRef shape) { return at::randn(shape, at::dtype(at::kFloat).device(at::kCUDA)); }
  static at::Tensor draw_qkv(int64_t tokens, int64_t heads, int64_t head_dim, at::ScalarType dtype,
                             double spread = 1.5) {
    at::Tensor qkv = normal({tokens, 3, heads, head_dim});
    qkv.narrow(1, 0, 2).mul_(spread);
    return qkv.to(dtype);
  }
  /// Logits up to hundreds, growing along the sequence: the maximum of the first keys is far too low. Rows are near
  /// one-hot, and the rounding of one weight is not averaged.
  static at::Tensor draw_hard_qkv(int64_t tokens, int64_t heads, int64_t head_dim, at::ScalarType dtype) {
    at::Tensor qkv = draw_qkv(tokens, heads, head_dim, at::kFloat, 7);
    qkv.select(1, 1).mul_(at::linspace(0.02, 2, tokens, qkv.options()).view({-1, 1, 1}));
    return qkv.to(dtype);
  }
  /// q times scale / ln 2, rounded once: as the rotation leaves it.
  static at::Tensor prescaled(const at::Tensor& qkv) {
    at::Tensor result = qkv.clone();
    result.select(1, 0).copy_(qkv.select(1, 0).to(at::kFloat) / std::log(2.0) /
                              std::sqrt(static_cast<double>(qkv.size(3))));
    return result;
  }

  /// [tokens, heads, head_dim] in float32, some thousands of queries at a time.
  static at::Tensor definition(const at::Tensor& qkv, const Lengths& lengths, bool is_prescaled = false) {
    const double scale = is_prescaled ? std::log(2.0) : 1 / std::sqrt(static_cast<double>(qkv.size(3)));
    std::vector<at::Tensor> parts;
    int64_t begin = 0;
    for (const int64_t length : lengths) {
      const auto heads_first = [&](int64_t part) {
        return qkv.narrow(0, begin, length).select(1, part).transpose(0, 1).to(at::kFloat);
      };
      const at::Tensor q = heads_first(0), keys = heads_first(1).transpose(1, 2), values = heads_first(2);
      for (int64_t row = 0; row < length; row += 4096) {
        const at::Tensor some = q.narrow(1, row, std::min<int64_t>(4096, length - row));
        parts.push_back(at::matmul(at::softmax(at::matmul(some, keys) * scale, -1), values).transpose(0, 1));
      }
      begin += length;
    }
    return at::cat(parts);
  }

  /// The result, after checking that nothing behind it was written; what was not written is NaN.
  static at::Tensor run(const at::Tensor& qkv, const Lengths& lengths, const How& how = {}) {
    const int64_t tokens = sum(lengths);
    const at::Tensor whole = at::full({tokens + 3, qkv.size(2), qkv.size(3)}, nan, qkv.options());
    whole.narrow(0, tokens, 3).fill_(7);
    cuda::check(Launch(qkv, whole, lengths, how)(), "attention");
    EXPECT_TRUE((whole.narrow(0, tokens, 3) == 7).all().item<bool>()) << "wrote behind the last token";
    return whole.narrow(0, 0, tokens);
  }

  static double error(const at::Tensor& ours, const at::Tensor& truth) {
    return ((ours.to(at::kFloat) - truth).norm() / truth.norm()).item<double>();
  }
  /// P and the result are rounded to the dtype once each, 2^-9 / sqrt(3) and 2^-12 / sqrt(3) relative; few rows average
  /// less.
  static void expect_definition(const at::Tensor& qkv, const Lengths& lengths, const How& how, double factor = 1) {
    const double limit = factor * (qkv.scalar_type() == at::kBFloat16 ? 3e-3 : 4e-4);
    const at::Tensor out = run(qkv, lengths, how);
    const at::Tensor truth = definition(qkv, lengths, how.prescaled);
    EXPECT_LT(error(out, truth), limit);
    if (how.kernel == Kernel::window) return;  // hundreds of a few rows each
    int64_t begin = 0;
    for (const int64_t length : lengths) {
      if (length > 0) {
        EXPECT_LT(error(out.narrow(0, begin, length), truth.narrow(0, begin, length)), 1.5 * limit)
            << "length " << length;
      }
      begin += length;
    }
  }
  static bool same_bits(const at::Tensor& a, const at::Tensor& b) {
    return a.view(at::kShort).equal(b.view(at::kShort));
  }
};

std::string name_of(int64_t head_dim, at::ScalarType dtype) {
  return "head dim " + std::to_string(head_dim) + (dtype == at::kHalf ? ", float16" : ", bfloat16");
}

TEST_F(AttentionOnGpu, LengthsOfAnyKindEqualTheDefinition) {
  for (const int64_t head_dim : head_dims)
    for (const at::ScalarType dtype : dtypes)
      for (const bool scaled : {false, true}) {
        SCOPED_TRACE(name_of(head_dim, dtype) + (scaled ? ", scaled" : ""));
        const auto as_given = [&](const at::Tensor& qkv) { return scaled ? prescaled(qkv) : qkv; };
        const How how{.prescaled = scaled};
        expect_definition(as_given(draw_qkv(sum(mixed), 3, head_dim, dtype)), mixed, how);
        expect_definition(as_given(draw_hard_qkv(sum(mixed), 3, head_dim, dtype)), mixed, how, 2);
      }
}

TEST_F(AttentionOnGpu, ManyTokensEqualTheDefinition) {
  const Lengths lengths{61, 32771, 1};  // a prime: no tile, and no block's share, comes out even
  for (const int64_t head_dim : head_dims)
    for (const at::ScalarType dtype : dtypes) {
      SCOPED_TRACE(name_of(head_dim, dtype));
      expect_definition(draw_qkv(sum(lengths), 2, head_dim, dtype), lengths, {});
    }
}

TEST_F(AttentionOnGpu, WindowsEqualTheDefinition) {
  std::mt19937 random(7);
  Lengths lengths(65);
  std::iota(lengths.begin(), lengths.end(), 0);
  for (int i = 0; i < 300; ++i) lengths.push_back(static_cast<int64_t>(random() % 65));
  lengths.resize(lengths.size() + 40, 64);
  for (const int64_t head_dim : head_dims)
    for (const at::ScalarType dtype : dtypes) {
      SCOPED_TRACE(name_of(head_dim, dtype));
      const at::Tensor qkv = draw_qkv(sum(lengths), 3, head_dim, dtype);
      expect_definition(qkv, lengths, {.kernel = Kernel::window});
      expect_definition(prescaled(qkv), lengths, {.kernel = Kernel::window, .prescaled = true});
      expect_definition(draw_hard_qkv(sum(lengths), 3, head_dim, dtype), lengths, {.kernel = Kernel::window}, 2);
    }
}

// A query is the code of key (7 i + 3) mod n: a swapped, missing or doubled key shows. The one weight is rounded to the
// dtype where the maximum of the first keys is near enough to stay, and so is the result: by 2^-8 at most each. A value
// of zero gets what the other weights leave, less than e^-28 (of codes that differ in seven signs, of which 2^31 pairs
// of 64 have none).
TEST_F(AttentionOnGpu, OneKeyIsFoundAmongMany) {
  for (const int64_t tokens : {1009, 32771})
    for (const int64_t head_dim : head_dims) {
      SCOPED_TRACE(std::to_string(tokens) + ", " + name_of(head_dim, at::kBFloat16));
      const at::Tensor qkv = draw_qkv(tokens, 2, head_dim, at::kBFloat16);
      qkv.select(1, 1).copy_(normal({tokens, 2, head_dim}).sign() * 2);
      const at::Tensor target = (at::arange(tokens, at::dtype(at::kLong).device(at::kCUDA)) * 7 + 3).remainder(tokens);
      qkv.select(1, 0).copy_(qkv.select(1, 1).index_select(0, target) * 4);
      const at::Tensor expected = qkv.select(1, 2).index_select(0, target).to(at::kFloat);
      const at::Tensor away = (run(qkv, {tokens}).to(at::kFloat) - expected).abs();
      EXPECT_EQ((away <= expected.abs() * 0x1p-7F + 1e-11F).logical_not().sum().item<int64_t>(), 0);
    }
}

TEST_F(AttentionOnGpu, TokensMayLieApart) {
  const Lengths lengths{70, 200};
  for (const int64_t head_dim : head_dims) {
    SCOPED_TRACE(head_dim);
    const at::Tensor storage = at::full({270, 6 * head_dim + 40}, nan, at::dtype(at::kBFloat16).device(at::kCUDA));
    const at::Tensor qkv = storage.narrow(1, 0, 6 * head_dim).unflatten(1, {3, 2, head_dim});
    qkv.copy_(draw_qkv(270, 2, head_dim, at::kBFloat16));
    expect_definition(qkv, lengths, {});
  }
}

TEST_F(AttentionOnGpu, ASequencesBitsDependOnThatSequenceAlone) {
  struct Case {
    Kernel kernel;
    Lengths lengths;
  };
  for (const auto& [kernel, lengths] :
       {Case{Kernel::sm90, {1, 300, 64, 65, 15, 1000, 0, 127, 512, 200}}, Case{Kernel::window, {64, 1, 17, 0, 50, 33}}})
    for (const int64_t head_dim : head_dims)
      for (const at::ScalarType dtype : dtypes)
        for (const bool scaled : {false, true})
          for (const bool hard : {false, true}) {
            SCOPED_TRACE(name_of(head_dim, dtype) + (scaled ? ", scaled" : "") + (hard ? ", hard" : ""));
            const auto draw =
                hard ? draw_hard_qkv(sum(lengths), 2, head_dim, dtype) : draw_qkv(sum(lengths), 2, head_dim, dtype);
            const at::Tensor qkv = scaled ? prescaled(draw) : draw;
            const How how{.kernel = kernel, .prescaled = scaled};
            const at::Tensor packed = run(qkv, lengths, how);
            int64_t begin = 0;
            for (const int64_t length : lengths) {
              if (length > 0) {
                const at::Tensor alone = run(qkv.narrow(0, begin, length).clone(), {length}, how);
                EXPECT_TRUE(same_bits(packed.narrow(0, begin, length), alone)) << "length " << length;
              }
              begin += length;
            }
          }
}

TEST_F(AttentionOnGpu, EveryPlanGivesTheSameBits) {
  const Lengths lengths{640, 65, 1000, 257, 129};
  for (const int64_t head_dim : head_dims)
    for (const at::ScalarType dtype : dtypes)
      for (const bool scaled : {false, true}) {
        SCOPED_TRACE(name_of(head_dim, dtype) + (scaled ? ", scaled" : ""));
        const at::Tensor hard = draw_hard_qkv(sum(lengths), 7, head_dim, dtype);
        const at::Tensor qkv = scaled ? prescaled(hard) : hard;
        const at::Tensor first = run(qkv, lengths, {.prescaled = scaled});
        for (const int processors : {132, 1, 5, 31, 57})
          EXPECT_TRUE(same_bits(first, run(qkv, lengths, {.prescaled = scaled, .processors = processors})))
              << processors << " multiprocessors";
        for (const int units : {1, 2, 3, 4})
          EXPECT_TRUE(same_bits(first, run(qkv, lengths, {.prescaled = scaled, .units = units}))) << units << " units";
      }
}

TEST_F(AttentionOnGpu, TheSameCallGivesTheSameBits) {
  const Lengths lengths{4096, 300, 1500};
  for (const int64_t head_dim : head_dims) {
    const at::Tensor qkv = draw_qkv(sum(lengths), 16, head_dim, at::kBFloat16);
    const at::Tensor first = run(qkv, lengths);
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(same_bits(first, run(qkv, lengths))) << head_dim;
  }
}

TEST_F(AttentionOnGpu, NoValueOfAnotherSequenceHasAnEffect) {
  struct Case {
    Kernel kernel;
    Lengths lengths;
  };
  for (const auto& [kernel, lengths] :
       {Case{Kernel::sm90, {100, 64, 50, 1, 200, 77}}, Case{Kernel::window, {64, 33, 1, 0, 50}}})
    for (const int64_t head_dim : head_dims)
      for (const at::ScalarType dtype : dtypes) {
        SCOPED_TRACE(name_of(head_dim, dtype));
        const How how{.kernel = kernel, .prescaled = dtype == at::kBFloat16};
        const int64_t tokens = sum(lengths);
        const at::Tensor clean = draw_qkv(tokens + 64, 2, head_dim, dtype);
        const at::Tensor expected = run(clean.narrow(0, 0, tokens), lengths, how);
        int64_t begin = 0;
        for (size_t broken = 0; broken <= lengths.size(); ++broken) {  // the last one: memory behind all tokens
          const int64_t length = broken < lengths.size() ? lengths[broken] : 64;
          for (const double bad : {nan, infinity, -infinity}) {
            const at::Tensor qkv = clean.clone();
            qkv.narrow(0, begin, length).fill_(bad);
            const at::Tensor out = run(qkv.narrow(0, 0, tokens), lengths, how);
            EXPECT_TRUE(same_bits(out.narrow(0, 0, begin), expected.narrow(0, 0, begin)))
                << bad << " in sequence " << broken << " shows before it";
            if (broken == lengths.size()) continue;
            const int64_t end = begin + length;
            EXPECT_TRUE(same_bits(out.narrow(0, end, tokens - end), expected.narrow(0, end, tokens - end)))
                << bad << " in sequence " << broken << " shows behind it";
            EXPECT_TRUE(out.narrow(0, begin, length).isnan().all().item<bool>()) << bad << " is lost in its own";
          }
          begin += length;
        }
      }
}

// In q: its row alone. In k: all rows of its sequence and head. In v: its column of these.
TEST_F(AttentionOnGpu, OneNaNStaysWhereItBelongs) {
  struct Case {
    int64_t token, part;
  };
  for (const int64_t head_dim : head_dims)
    for (const at::ScalarType dtype : dtypes) {
      const at::Tensor clean = draw_qkv(177, 2, head_dim, dtype);
      const Lengths lengths{100, 77};
      const at::Tensor expected = run(clean, lengths);
      for (const auto& [token, part] : {Case{5, 0}, Case{20, 1}, Case{30, 2}}) {
        SCOPED_TRACE(name_of(head_dim, dtype) + ", part " + std::to_string(part));
        const at::Tensor qkv = clean.clone();
        qkv[token][part][1][3].fill_(nan);
        const at::Tensor reached = at::zeros_like(expected, at::dtype(at::kBool));
        if (part == 0) reached[5][1].fill_(true);
        if (part == 1) reached.narrow(0, 0, 100).select(1, 1).fill_(true);
        if (part == 2) reached.narrow(0, 0, 100).select(1, 1).select(1, 3).fill_(true);
        const at::Tensor out = run(qkv, lengths);
        EXPECT_TRUE(out.isnan().equal(reached));
        EXPECT_TRUE(same_bits(out.masked_fill(reached, 0), expected.masked_fill(reached, 0)));
      }
    }
}

TEST_F(AttentionOnGpu, TwoStreamsDoNotMeet) {
  const Lengths lengths{1000, 300};
  std::vector<at::Tensor> inputs, expected, outs;
  std::vector<Launch> launches;
  for (int i = 0; i < 2; ++i) {
    inputs.push_back(draw_qkv(1300, 16, 80, at::kBFloat16));
    expected.push_back(run(inputs.back(), lengths));
    outs.push_back(at::zeros_like(expected.back()));
    launches.emplace_back(inputs.back(), outs.back(), lengths, How{});
  }
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<c10::cuda::CUDAStream> streams{c10::cuda::getStreamFromPool(), c10::cuda::getStreamFromPool()};
  for (int round = 0; round < 50; ++round)
    for (size_t i = 0; i < 2; ++i) {
      const c10::cuda::CUDAStreamGuard guard(streams[i]);
      ASSERT_EQ(launches[i](), cudaSuccess);
    }
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(same_bits(outs[i], expected[i]));
}

TEST_F(AttentionOnGpu, RefusesWhatItDoesNotTake) {
  const auto options = at::dtype(at::kBFloat16).device(at::kCUDA);
  const at::Tensor out = at::zeros({65, 2, 96}, options);
  const auto status = [&](const at::Tensor& qkv, Kernel kernel, const Lengths& lengths) {
    return Launch(qkv, out, lengths, {.kernel = kernel})();
  };
  const auto strided = [&](int64_t offset, int64_t token_stride) {
    return at::zeros({64 * 400 + 8}, options).as_strided({64, 3, 2, 64}, {token_stride, 128, 64, 1}, offset);
  };
  for (const Kernel kernel : {Kernel::sm90, Kernel::window}) {
    EXPECT_EQ(status(strided(4, 392), kernel, {64}), cudaErrorNotSupported) << "aligned to 8 bytes";
    EXPECT_EQ(status(strided(0, 388), kernel, {64}), cudaErrorNotSupported) << "so are the tokens";
    const cudaError_t overlapping = status(strided(0, 64), kernel, {64});
    EXPECT_TRUE(overlapping != cudaSuccess && overlapping != cudaErrorNotSupported) << overlapping;
    EXPECT_EQ(status(draw_qkv(64, 2, 96, at::kBFloat16), kernel, {64}), cudaErrorNotSupported);
  }
  EXPECT_EQ(status(draw_qkv(65, 2, 64, at::kBFloat16), Kernel::window, {65}), cudaErrorNotSupported);
  EXPECT_EQ(status(draw_qkv(1, 2, 64, at::kBFloat16), Kernel::sm90, {0, 0}), cudaSuccess);
  EXPECT_TRUE((out == 0).all().item<bool>()) << "wrote something";
}

}  // namespace
}  // namespace oriel::ops
