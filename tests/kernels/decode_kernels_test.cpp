// The kernels of a decoder's step against what the decoder does elsewhere: every kernel, all dtypes, odd sizes.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "decode.h"
#include "kernels/random_on_gpu.hpp"
#include "ops/activation.hpp"
#include "ops/causal_attention.hpp"
#include "ops/cuda/launch.hpp"
#include "ops/decode.hpp"
#include "ops/linear.hpp"
#include "ops/norm.hpp"
#include "ops/rotary.hpp"

namespace oriel::ops {
namespace {

const std::vector<at::ScalarType> dtypes{at::kFloat, at::kBFloat16, at::kHalf};

/// Half a unit in the last place of a dtype, relative: what one rounding of the result may cost, with some room for
/// sums; in float32 for one value alone of thousands of terms that mostly cancel (3e-6 was seen), too.
double tolerance(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return 4e-3;
  return dtype == at::kHalf ? 5e-4 : 1e-5;
}

class DecodeOnGpu : public RandomOnGpu {
 protected:
  static at::Tensor defined_or(const at::Tensor& x, double other) {
    return x.defined() ? wide(x) : at::full({1}, other, at::kDouble);
  }
  static at::Tensor integers(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }
};

struct Product {
  at::Tensor x, weight, bias, residual;  // on the CPU
  Activation activation = Activation::identity;
  bool gated = false;

  /// By the kernel; `rows` of x and residual, from `first` on.
  [[nodiscard]] at::Tensor run(int64_t first, int64_t rows) const {
    const auto on_gpu = [](const at::Tensor& part) { return part.defined() ? part.cuda() : part; };
    const at::Tensor some = x.narrow(0, first, rows).cuda();
    const at::Tensor w = weight.cuda();
    const at::Tensor b = on_gpu(bias);
    const at::Tensor r = residual.defined() ? residual.narrow(0, first, rows).cuda() : at::Tensor();
    const int64_t out = gated ? w.size(0) / 2 : w.size(0);
    at::Tensor y = at::full({rows, out}, std::numeric_limits<float>::quiet_NaN(), some.options());
    cuda::check(kernels::multiply_few_rows({.x = some.const_data_ptr(),
                                            .weight = w.const_data_ptr(),
                                            .bias = b.defined() ? b.const_data_ptr() : nullptr,
                                            .residual = r.defined() ? r.const_data_ptr() : nullptr,
                                            .y = y.mutable_data_ptr(),
                                            .rows = rows,
                                            .in = w.size(1),
                                            .out = out,
                                            .function = cuda::function_of(activation),
                                            .gated = gated,
                                            .element = cuda::element_of(some)},
                                           cuda::stream_of(some)),
                "multiply_few_rows");
    return y.cpu();
  }
};

TEST_F(DecodeOnGpu, ProductsOfFewRowsEqualTheDefinition) {
  for (const at::ScalarType dtype : dtypes)
    for (const int64_t in : {8, 24, 32, 136, 1000, 1024, 3584, 4104, 8200})
      for (const int64_t out : {1, 15, 16, 17, 100, 8200}) {
        if (in * out > 20'000'000) continue;
        const at::Tensor x = draw({8, in}, dtype);
        const at::Tensor weight = draw({out, in}, dtype) / std::sqrt(static_cast<double>(in));
        const at::Tensor plain = at::matmul(wide(x), wide(weight).t());
        for (const int64_t rows : {1, 2, 3, 5, 7, 8}) {
          const Product product{.x = x, .weight = weight, .bias = {}, .residual = {}};
          SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(in) + " x " + std::to_string(out));
          EXPECT_LT(distance(product.run(0, rows), plain.narrow(0, 0, rows)), tolerance(dtype));
        }
      }
}

TEST_F(DecodeOnGpu, ProductsOfFewRowsAddWhatSurroundsThem) {
  for (const at::ScalarType dtype : dtypes)
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{72, 40}, {520, 24}, {2048, 8208}}) {
      const at::Tensor x = draw({5, in}, dtype);
      const at::Tensor weight = draw({2 * out, in}, dtype) / std::sqrt(static_cast<double>(in));
      const at::Tensor bias = draw({2 * out}, dtype);
      const at::Tensor residual = draw({5, out}, dtype);
      const at::Tensor sums = at::matmul(wide(x), wide(weight).t()) + wide(bias);
      for (const Activation activation : {Activation::identity, Activation::relu, Activation::silu,
                                          Activation::gelu_erf, Activation::gelu_tanh, Activation::quick_gelu}) {
        SCOPED_TRACE(std::to_string(in) + " -> " + std::to_string(out) + ", activation " +
                     std::to_string(static_cast<int>(activation)));
        const Product half{x, weight.narrow(0, 0, out), bias.narrow(0, 0, out), residual, activation};
        const at::Tensor first = activate(sums.narrow(1, 0, out), activation);
        EXPECT_LT(distance(half.run(0, 5), first + wide(residual)), tolerance(dtype));
        const Product gated{x, weight, bias, residual, activation, /*gated=*/true};
        EXPECT_LT(distance(gated.run(0, 5), first * sums.narrow(1, out, out) + wide(residual)), tolerance(dtype));
      }
    }
}

TEST_F(DecodeOnGpu, ARowsBitsDependOnThatRowAlone) {
  for (const at::ScalarType dtype : dtypes)
    for (const bool gated : {false, true}) {
      const Product product{
          draw({8, 1096}, dtype), draw({640, 1096}, dtype), draw({640}, dtype), {}, Activation::silu, gated};
      const at::Tensor together = product.run(0, 8);
      for (const int64_t count : {1, 3, 4})
        for (int64_t row = 0; row + count <= 8; ++row)
          EXPECT_TRUE(product.run(row, count).equal(together.narrow(0, row, count))) << count << " from row " << row;
    }
}

TEST_F(DecodeOnGpu, NanStaysInItsRow) {
  Product product{draw({8, 512}, at::kBFloat16), draw({128, 512}, at::kBFloat16), {}, {}};
  product.x[3][77] = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor y = product.run(0, 8);
  for (int64_t row = 0; row < 8; ++row) {
    EXPECT_EQ(y[row].isnan().all().item<bool>(), row == 3);
    EXPECT_EQ(y[row].isnan().any().item<bool>(), row == 3);
  }
}

TEST_F(DecodeOnGpu, LinearLayersTakeFewRowsAsMany) {
  for (const at::ScalarType dtype : dtypes) {
    const at::Tensor x = draw({12, 70}, dtype);
    const at::Tensor weight = draw({50, 70}, dtype) / 8;
    const at::Tensor up = draw({50, 70}, dtype) / 8;
    const at::Tensor bias = draw({50}, dtype);
    const Linear linear(weight.cuda(), bias.cuda());
    const GatedLinear gated(Linear(weight.cuda(), bias.cuda()), Linear(up.cuda(), bias.cuda()));
    const at::Tensor residual = draw({12, 50}, dtype);
    const at::Tensor g = at::matmul(wide(x), wide(weight).t()) + wide(bias);
    const at::Tensor u = at::matmul(wide(x), wide(up).t()) + wide(bias);
    for (const int64_t rows : {1, 8, 9, 12}) {
      const auto some = [&](const at::Tensor& all) { return all.narrow(0, 0, rows); };
      EXPECT_LT(distance(linear(some(x).cuda(), Activation::gelu_tanh), activate(some(g), Activation::gelu_tanh)),
                tolerance(dtype) + 1e-4);  // cuBLASLt's approximation
      EXPECT_LT(distance(linear.add_to(some(residual).cuda(), some(x).cuda()), some(g) + some(wide(residual))),
                tolerance(dtype));
      // From nine rows on, gate and up are rounded in between.
      EXPECT_LT(distance(gated(some(x).cuda(), Activation::silu).narrow(1, 0, 50),
                         activate(some(g), Activation::silu) * some(u)),
                3 * tolerance(dtype));
    }
  }
}

TEST_F(DecodeOnGpu, WideNormsEqualTheDefinition) {
  for (const at::ScalarType dtype : dtypes)
    for (const int64_t width : {8, 40, 1032, 2048, 2056, 3584, 4096, 5376, 8192, 16384, 16392})
      for (const int64_t rows : {1, 3, 8, 300}) {
        if (width * rows > 1'500'000) continue;
        SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(width));
        const at::Tensor x = draw({rows, width}, dtype) * 3 + 1;
        const at::Tensor weight = draw({width}, dtype);
        const at::Tensor residual = draw({rows, width}, dtype);
        const at::Tensor unit = wide(x) / (wide(x).square().mean(-1, true) + 1e-6).sqrt();
        const at::Tensor plain = unit * wide(weight);
        const at::Tensor offset = unit * (1 + wide(weight));
        EXPECT_LT(distance(rms_norm(x.cuda(), weight.cuda(), 1e-6), plain), tolerance(dtype));
        EXPECT_LT(distance(rms_norm_offset(x.cuda(), weight.cuda(), 1e-6), offset), tolerance(dtype));
        // Two roundings.
        EXPECT_LT(distance(add_rms_norm(residual.cuda(), x.cuda(), weight.cuda(), 1e-6), plain + wide(residual)),
                  2 * tolerance(dtype));
        EXPECT_LT(
            distance(add_rms_norm_offset(residual.cuda(), x.cuda(), weight.cuda(), 1e-6), offset + wide(residual)),
            2 * tolerance(dtype));
      }
}

TEST_F(DecodeOnGpu, TurnsAreTheAnglesOfTokenRotary) {
  const at::Tensor positions =
      at::stack({integers({0, 1, 777, 131071}), integers({5, 0, 3, 9}), integers({2, 2, 8, 1})});
  for (const int64_t pairs : {1, 4, 20, 64, 128}) {
    const at::Tensor frequencies = inverse_frequencies(10000, 2 * pairs).cuda();
    for (const bool one_axis : {true, false}) {
      const at::Tensor axes = one_axis ? at::Tensor() : at::randint(0, 3, {pairs}, at::kLong).cuda();
      const Rotary expected = token_rotary(positions, frequencies, axes);
      const at::Tensor turns = token_turns(positions.cuda(), frequencies, axes);
      EXPECT_TRUE(turns.narrow(1, 0, pairs).equal(expected.cos.narrow(1, 0, pairs)));
      EXPECT_TRUE(turns.narrow(1, pairs, pairs).equal(expected.sin.narrow(1, 0, pairs)));
    }
  }
}

/// Some tokens of a cache of five slots; the third token is nobody's.
struct Cached {
  static constexpr int64_t slots = 5;
  int64_t capacity;
  std::vector<int64_t> slot{4, 0, 0, 2};
  std::vector<int64_t> length;
  at::Tensor keys, values;

  Cached(std::vector<int64_t> lengths, int64_t kv_heads, int64_t head_dim, at::ScalarType dtype)
      : capacity(*std::max_element(lengths.begin(), lengths.end()) + 3), length(std::move(lengths)) {
    keys = at::randn({slots, capacity, kv_heads, head_dim}, at::kFloat).to(dtype).cuda();
    values = at::randn({slots, capacity, kv_heads, head_dim}, at::kFloat).to(dtype).cuda();
  }
  [[nodiscard]] CachedTokens tokens() const {
    return {keys, values, at::stack({at::tensor(slot, at::kLong), at::tensor(length, at::kLong)}).cuda()};
  }
};

// The rotation is the decoder's bit for bit; norms sum in another order.
TEST_F(DecodeOnGpu, RotatedTokensLieInTheCache) {
  for (const at::ScalarType dtype : dtypes)
    for (const int64_t head_dim : {8, 40, 64, 96, 128, 256})
      for (const bool norms : {false, true}) {
        SCOPED_TRACE(std::to_string(head_dim) + (norms ? " with norms" : ""));
        constexpr int64_t heads = 6, kv_heads = 2;
        const Cached cached({9, 1, 0, 12}, kv_heads, head_dim, dtype);
        const at::Tensor positions = integers({8, 0, 0, 100}).unsqueeze(0);
        const at::Tensor frequencies = inverse_frequencies(10000, head_dim).cuda();
        const at::Tensor qkv = draw({4, heads + 2 * kv_heads, head_dim}, dtype).cuda();
        const HeadNorms weights =
            norms ? HeadNorms{draw({head_dim}, dtype).cuda(), draw({head_dim}, dtype).cuda(), 1e-6, true} : HeadNorms();
        at::Tensor q = qkv.narrow(1, 0, heads).clone();
        at::Tensor k = qkv.narrow(1, heads, kv_heads).clone();
        const at::Tensor v = qkv.narrow(1, heads + kv_heads, kv_heads).clone();
        if (norms) {
          q = rms_norm_offset(q.view({-1, head_dim}), weights.query, 1e-6).view(q.sizes());
          k = rms_norm_offset(k.view({-1, head_dim}), weights.key, 1e-6).view(k.sizes());
        }
        const Rotary wide_rotary = token_rotary(positions, frequencies, {});
        const Rotary rotary{wide_rotary.cos.to(dtype), wide_rotary.sin.to(dtype), {}};
        rotate_in_place(q, rotary, RotaryPrecision::working);
        rotate_in_place(k, rotary, RotaryPrecision::working);
        at::Tensor keys = cached.keys.clone();
        at::Tensor values = cached.values.clone();
        for (const int64_t token : {0, 1, 3}) {
          const auto i = static_cast<size_t>(token);
          keys[cached.slot[i]][cached.length[i] - 1].copy_(k[token]);
          values[cached.slot[i]][cached.length[i] - 1].copy_(v[token]);
        }
        rotate_and_store(qkv, token_turns(positions.cuda(), frequencies, {}), weights, heads, cached.tokens());
        EXPECT_TRUE(cached.values.equal(values));
        if (norms) {
          EXPECT_LT(distance(qkv.narrow(1, 0, heads), wide(q)), tolerance(dtype));
          EXPECT_LT(distance(cached.keys, wide(keys)), tolerance(dtype));
        } else {
          EXPECT_TRUE(qkv.narrow(1, 0, heads).equal(q));
          EXPECT_TRUE(cached.keys.equal(keys));
        }
      }
}

at::Tensor attended_alone(const at::Tensor& q, const Cached& cached, size_t token, int64_t window, double scale) {
  const auto of_slot = [&](const at::Tensor& all) {
    return all.select(0, cached.slot[token]).to(at::kCPU).to(at::kDouble);
  };
  const int64_t length = cached.length[token];
  const Visibility newest = make_visibility(length - 1, 1, window, {}, at::kCPU);
  return causal_attention_reference(q, of_slot(cached.keys), of_slot(cached.values), newest, scale);
}

TEST_F(DecodeOnGpu, AttentionOverTheCacheEqualsTheReference) {
  struct Heads {
    int64_t all, kv;
  };
  for (const at::ScalarType dtype : dtypes)
    for (const Heads heads : {Heads{1, 1}, {2, 1}, {6, 2}, {28, 4}, {8, 4}, {16, 4}, {10, 1}, {40, 2}})
      for (const int64_t head_dim : {8, 24, 40, 64, 80, 128, 256})
        for (const std::vector<int64_t>& lengths :
             {std::vector<int64_t>{1, 2, 0, 33}, {64, 65, 0, 63}, {700, 31, 0, 2049}}) {
          // Not every combination, for time's sake.
          if (lengths[0] > 100 && (heads.all > 30 || head_dim < 64)) continue;
          if (dtype != at::kFloat && heads.all != 28 && heads.all != 8) continue;
          Cached cached(lengths, heads.kv, head_dim, dtype);
          const at::Tensor qkv = draw({4, heads.all + 2 * heads.kv, head_dim}, dtype).cuda();
          const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
          const at::Tensor q = wide(qkv).narrow(1, 0, heads.all);
          // What lies behind a sequence's tokens is not looked at.
          for (size_t i = 0; i < 4; ++i)
            if (cached.length[i] > 0)
              for (const at::Tensor& part : {cached.keys, cached.values})
                part[cached.slot[i]].narrow(0, lengths[i], cached.capacity - lengths[i]).fill_(std::nan(""));
          for (const int64_t window : {0, 1, 5, 64, 100}) {
            SCOPED_TRACE(std::to_string(heads.all) + "/" + std::to_string(heads.kv) + " heads of " +
                         std::to_string(head_dim) + ", " + std::to_string(lengths[3]) + " keys, window " +
                         std::to_string(window));
            const at::Tensor out = decode_attention(qkv, heads.all, cached.tokens(), window, scale);
            ASSERT_EQ(out.sizes(), (std::vector<int64_t>{4, heads.all * head_dim}));
            EXPECT_EQ(out[2].abs().max().item<double>(), 0);
            for (const int64_t token : {0, 1, 3})
              EXPECT_LT(distance(out.narrow(0, token, 1), attended_alone(q.narrow(0, token, 1), cached,
                                                                         static_cast<size_t>(token), window, scale)),
                        tolerance(dtype))
                  << "token " << token;
          }
        }
}

TEST_F(DecodeOnGpu, ATokensBitsDependOnItsSequenceAlone) {
  const Cached cached({700, 31, 0, 2049}, 2, 128, at::kBFloat16);
  const at::Tensor qkv = draw({4, 14 + 4, 128}, at::kBFloat16).cuda();
  const at::Tensor together = decode_attention(qkv, 14, cached.tokens(), 0, 0.1);
  for (const int64_t token : {0, 1, 3}) {
    CachedTokens own = cached.tokens();
    own.places = own.places.narrow(1, token, 1).contiguous();
    EXPECT_TRUE(decode_attention(qkv.narrow(0, token, 1), 14, own, 0, 0.1).equal(together.narrow(0, token, 1)));
  }
}

TEST_F(DecodeOnGpu, ManyTokensTakeTheScratchOfAFew) {
  Cached cached({700, 31, 0, 2049}, 2, 128, at::kBFloat16);
  const auto attend = [&](const at::Tensor& qkv, const CachedTokens& tokens) {
    return decode_attention(qkv, 14, tokens, 0, 0.1);
  };
  const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto allocated = [&] { return c10::cuda::CUDACachingAllocator::getDeviceStats(0).allocated_bytes[all]; };
  std::vector<int64_t> held;
  for (const int64_t count : {64, 650}) {
    cached.slot.clear();
    cached.length.clear();
    for (int64_t token = 0; token < count; ++token) {
      cached.slot.push_back(token % Cached::slots);
      cached.length.push_back(token * 613 % 2050);  // of 2049 at most, and the first of nobody
    }
    const at::Tensor qkv = draw({count, 14 + 4, 128}, at::kBFloat16).cuda();
    const CachedTokens tokens = cached.tokens();
    const int64_t before = allocated().current;
    c10::cuda::CUDACachingAllocator::resetPeakStats(0);
    const at::Tensor together = attend(qkv, tokens);
    held.push_back(allocated().peak - before);
    for (int64_t token = 0; token<count; token += count> 100 ? 13 : 1) {
      CachedTokens own = tokens;
      own.places = tokens.places.narrow(1, token, 1).contiguous();
      EXPECT_TRUE(attend(qkv.narrow(0, token, 1), own).equal(together.narrow(0, token, 1))) << token << " of " << count;
    }
    EXPECT_EQ(together[0].abs().max().item<double>(), 0);
  }
  // A few MB of results; ten times as much scratch would be some 100 MB more.
  EXPECT_LT(held[1] - held[0], 8 << 20);
}

TEST_F(DecodeOnGpu, LargeScoresDoNotOverflow) {
  const Cached cached({300, 1, 0, 90}, 1, 64, at::kFloat);
  const at::Tensor qkv = draw({4, 3, 64}, at::kFloat).cuda() * 1000;
  const at::Tensor out = decode_attention(qkv, 1, cached.tokens(), 0, 10);
  EXPECT_TRUE(out.isfinite().all().item<bool>());
  EXPECT_LT(distance(out.narrow(0, 0, 1), attended_alone(wide(qkv).narrow(0, 0, 1).narrow(1, 0, 1), cached, 0, 0, 10)),
            1e-4);  // scores of 1e5 have an absolute error of 1e-2
}

TEST_F(DecodeOnGpu, GreedyChoicesAreTheArgmaxAndItsLogSoftmax) {
  for (const int64_t width : {1, 31, 64, 65, 1000, 16385, 152064}) {
    const at::Tensor logits = draw({5, width}, at::kFloat) * 5;
    const at::Tensor choices = greedy_choices(logits.cuda()).cpu();
    const at::Tensor truth = logits.to(at::kDouble).log_softmax(-1);
    for (int64_t row = 0; row < 5; ++row) {
      const auto id = static_cast<int64_t>(choices[0][row].item<double>());
      EXPECT_EQ(id, logits[row].argmax().item<int64_t>());
      EXPECT_NEAR(choices[1][row].item<double>(), truth[row][id].item<double>(), 1e-5);
    }
    const at::Tensor strided = at::cat({logits, logits}, 1).cuda().narrow(1, 0, width);
    EXPECT_TRUE(greedy_choices(strided).cpu().equal(choices));
  }
}

TEST_F(DecodeOnGpu, TheFirstOfEqualLogitsIsChosen) {
  at::Tensor logits = at::zeros({4, 9000}, at::kFloat);
  for (const int64_t at : {8999, 4321, 4320, 700}) logits[1][at] = 3;
  logits[2].fill_(-2);
  logits[3].narrow(0, 0, 5000).fill_(-1);
  const at::Tensor ids = greedy_choices(logits.cuda()).cpu()[0];
  EXPECT_TRUE(ids.equal(at::tensor({0.0, 700.0, 0.0, 5000.0}, at::kDouble)));
}

TEST_F(DecodeOnGpu, LogitsThatAreNoNumbersShowInTheLogProbability) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  at::Tensor logits = draw({6, 3000}, at::kFloat);
  logits[1][2999] = nan;
  logits[2][0] = infinity;
  logits[3].fill_(nan);
  logits[4].fill_(-infinity);
  logits[5][17] = -infinity;  // a forbidden id is none of the sum
  const at::Tensor logprobs = greedy_choices(logits.cuda()).cpu()[1];
  const std::vector<bool> expected{false, true, true, true, true, false};
  for (int64_t row = 0; row < 6; ++row)
    EXPECT_EQ(std::isnan(logprobs[row].item<double>()), expected[static_cast<size_t>(row)]) << "row " << row;
}

}  // namespace
}  // namespace oriel::ops
