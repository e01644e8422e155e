// Attention of new tokens over the KV cache against its definition in float64: both kernels, all dtypes, odd sizes.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDACachingAllocator.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "decode.h"
#include "kernels/cached_on_gpu.hpp"
#include "ops/cuda/launch.hpp"

namespace oriel::ops {
namespace {

/// By its definition in float64, on the GPU for time's sake: q [1, heads, head_dim] to [1, heads * head_dim].
at::Tensor attended_alone(const at::Tensor& q, const Cached& cached, size_t token, int64_t window, double scale) {
  const int64_t length = cached.length[token];
  const int64_t begin = window > 0 ? std::max<int64_t>(0, length - window) : 0;
  const auto seen = [&](const at::Tensor& all) {
    const at::Tensor own = all.select(0, cached.slot[token]).narrow(0, begin, length - begin).to(at::kDouble);
    return own.repeat_interleave(q.size(1) / own.size(1), 1);  // [keys, heads, head_dim]
  };
  const at::Tensor scores = (q.cuda().to(at::kDouble) * seen(cached.keys)).sum(-1, /*keepdim=*/true) * scale;
  return (at::softmax(scores, 0) * seen(cached.values)).sum(0).reshape({1, -1}).cpu();
}

/// The weights are rounded to 16-bit dtypes before they meet the values, the result after: two roundings that know
/// nothing of each other.
double attention_tolerance(at::ScalarType dtype) { return (dtype == at::kFloat ? 1 : 1.5) * tolerance(dtype); }

struct HeadShape {
  int64_t all, kv, dim;
};

/// What no sequence holds becomes NaN: it is not to be looked at.
void spoil(const Cached& cached) {
  for (const at::Tensor& part : {cached.keys, cached.values}) {
    const at::Tensor before = part.clone();
    part.fill_(std::nan(""));
    for (size_t i = 0; i < 4; ++i)
      if (cached.length[i] > 0)
        part[cached.slot[i]]
            .narrow(0, 0, cached.length[i])
            .copy_(before[cached.slot[i]].narrow(0, 0, cached.length[i]));
  }
}

class DecodeAttentionOnGpu : public RandomOnGpu {
 protected:
  static void expect_reference(const HeadShape& heads, at::ScalarType dtype, const std::vector<int64_t>& lengths,
                               const std::vector<int64_t>& windows) {
    const Cached cached(lengths, heads.kv, heads.dim, dtype);
    spoil(cached);
    const at::Tensor qkv = draw({4, heads.all + 2 * heads.kv, heads.dim}, dtype).cuda();
    const double scale = 1 / std::sqrt(static_cast<double>(heads.dim));
    const at::Tensor q = wide(qkv).narrow(1, 0, heads.all);
    for (const int64_t window : windows) {
      SCOPED_TRACE(std::to_string(heads.all) + "/" + std::to_string(heads.kv) + " heads of " +
                   std::to_string(heads.dim) + ", " + std::to_string(lengths[3]) + " keys, window " +
                   std::to_string(window));
      const at::Tensor out = decode_attention(qkv, heads.all, cached.tokens(), window, scale);
      ASSERT_EQ(out.sizes(), (std::vector<int64_t>{4, heads.all * heads.dim}));
      EXPECT_EQ(out[2].abs().max().item<double>(), 0);
      for (const int64_t token : {0, 1, 3})
        EXPECT_LT(distance(out.narrow(0, token, 1),
                           attended_alone(q.narrow(0, token, 1), cached, static_cast<size_t>(token), window, scale)),
                  attention_tolerance(dtype))
            << "token " << token;
    }
  }

  /// By either kernel, whatever the chip would get.
  static at::Tensor run(const at::Tensor& qkv, int64_t heads, const Cached& cached, double scale,
                        bool on_matrix_units) {
    const CachedTokens tokens = cached.tokens();
    const int64_t kv_heads = tokens.keys.size(2);
    const int64_t head_dim = tokens.keys.size(3);
    const int32_t splits = kernels::decode_attention_splits(kv_heads, cached.capacity);
    const at::Tensor partial = at::empty({kernels::decode_attention_scratch(qkv.size(0), heads, head_dim, splits)},
                                         qkv.options().dtype(at::kFloat));
    at::Tensor out = at::empty({qkv.size(0), heads * head_dim}, qkv.options());
    cuda::check(kernels::decode_attention({.q = qkv.const_data_ptr(),
                                           .keys = tokens.keys.const_data_ptr(),
                                           .values = tokens.values.const_data_ptr(),
                                           .slots = tokens.places.const_data_ptr<int64_t>(),
                                           .lengths = tokens.places[1].const_data_ptr<int64_t>(),
                                           .partial = partial.mutable_data_ptr<float>(),
                                           .out = out.mutable_data_ptr(),
                                           .q_stride = qkv.stride(0),
                                           .tokens = qkv.size(0),
                                           .heads = heads,
                                           .kv_heads = kv_heads,
                                           .head_dim = head_dim,
                                           .capacity = cached.capacity,
                                           .splits = splits,
                                           .scale = static_cast<float>(scale),
                                           .element = cuda::element_of(qkv),
                                           .on_matrix_units = on_matrix_units},
                                          cuda::stream_of(qkv)),
                "decode_attention");
    return out.cpu();  // also keeps what the kernel reads until it has ended
  }
};

TEST_F(DecodeAttentionOnGpu, EqualsTheReferenceInFloat32) {
  for (const auto& [all, kv] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {2, 1}, {6, 2}, {28, 4}, {8, 4}, {16, 4}, {10, 1}, {40, 2}})
    for (const int64_t head_dim : {8, 24, 40, 64, 80, 128, 256})
      for (const std::vector<int64_t>& lengths :
           {std::vector<int64_t>{1, 2, 0, 33}, {64, 65, 0, 63}, {700, 31, 0, 2049}}) {
        // Not every combination, for time's sake.
        if (lengths[0] > 100 && (all > 30 || head_dim < 64)) continue;
        expect_reference({all, kv, head_dim}, at::kFloat, lengths, {0, 1, 5, 64, 100});
      }
}

TEST_F(DecodeAttentionOnGpu, EqualsTheReferenceForEveryHeadDimOnMatrixUnits) {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf})
    for (const int64_t head_dim : {8, 16, 40, 64, 72, 80, 96, 128, 136, 192, 200, 256})
      for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{1, 17, 0, 16}, {64, 65, 0, 63}})
        expect_reference({12, 2, head_dim}, dtype, lengths, {0, 1, 5, 64});
}

TEST_F(DecodeAttentionOnGpu, EqualsTheReferenceForEveryGroupOnMatrixUnits) {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf})
    for (const int64_t shared_by : {1, 2, 3, 7, 8, 9, 16, 17})
      for (const int64_t kv_heads : {1, 3})
        expect_reference({shared_by * kv_heads, kv_heads, 64}, dtype, {15, 129, 0, 300}, {0, 100});
}

TEST_F(DecodeAttentionOnGpu, EqualsTheReferenceForManyPartsOnMatrixUnits) {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf})
    for (const HeadShape& heads : {HeadShape{28, 4, 128}, {32, 8, 128}, {8, 4, 256}, {16, 16, 80}})
      expect_reference(heads, dtype, {700, 2048, 0, 4097}, {0, 1000});
}

TEST_F(DecodeAttentionOnGpu, MatrixUnitsAndMultiplicationsAgree) {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf})
    for (const HeadShape& heads : {HeadShape{28, 4, 128}, {3, 3, 80}, {8, 4, 256}, {20, 2, 64}}) {
      SCOPED_TRACE(std::to_string(heads.all) + "/" + std::to_string(heads.kv) + " heads of " +
                   std::to_string(heads.dim));
      const Cached cached({700, 31, 0, 2049}, heads.kv, heads.dim, dtype);
      spoil(cached);
      const at::Tensor qkv = draw({4, heads.all + 2 * heads.kv, heads.dim}, dtype).cuda();
      const at::Tensor by_units = run(qkv, heads.all, cached, 0.1, true);
      const at::Tensor by_multiplications = run(qkv, heads.all, cached, 0.1, false);
      // The latter rounds its result, too.
      EXPECT_LT(distance(by_units, wide(by_multiplications)), attention_tolerance(dtype) + tolerance(dtype));
      for (const int64_t token : {0, 1, 3})
        EXPECT_LT(distance(by_multiplications.narrow(0, token, 1),
                           attended_alone(wide(qkv).narrow(0, token, 1).narrow(1, 0, heads.all), cached,
                                          static_cast<size_t>(token), 0, 0.1)),
                  tolerance(dtype))
            << "token " << token;
    }
}

TEST_F(DecodeAttentionOnGpu, ATokensBitsDependOnItsSequenceAlone) {
  for (const at::ScalarType dtype : dtypes)
    for (const int64_t window : {0, 300}) {
      const Cached cached({700, 31, 0, 2049}, 2, 128, dtype);
      const at::Tensor qkv = draw({4, 14 + 4, 128}, dtype).cuda();
      const at::Tensor together = decode_attention(qkv, 14, cached.tokens(), window, 0.1);
      Cached roomy = cached;  // the parts may not depend on what else a slot could hold
      roomy.capacity = 20'000;
      for (at::Tensor* part : {&roomy.keys, &roomy.values})
        *part =
            at::cat({*part, at::zeros({Cached::slots, roomy.capacity - cached.capacity, 2, 128}, part->options())}, 1);
      EXPECT_TRUE(decode_attention(qkv, 14, roomy.tokens(), window, 0.1).equal(together));
      for (const int64_t token : {0, 1, 3}) {
        CachedTokens own = cached.tokens();
        own.places = own.places.narrow(1, token, 1).contiguous();
        EXPECT_TRUE(
            decode_attention(qkv.narrow(0, token, 1), 14, own, window, 0.1).equal(together.narrow(0, token, 1)));
      }
    }
}

TEST_F(DecodeAttentionOnGpu, ManyTokensTakeTheScratchOfAFew) {
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

TEST_F(DecodeAttentionOnGpu, NanStaysInItsHead) {
  for (const at::ScalarType dtype : dtypes) {
    constexpr int64_t heads = 6, kv_heads = 2, head_dim = 64;
    const Cached cached({70, 31, 0, 200}, kv_heads, head_dim, dtype);
    const at::Tensor qkv = draw({4, heads + 2 * kv_heads, head_dim}, dtype).cuda();
    const at::Tensor clean = decode_attention(qkv, heads, cached.tokens(), 0, 0.1).view({4, heads, head_dim});
    qkv[0][1].fill_(std::nan(""));
    cached.keys[cached.slot[3]][150][1][7].fill_(std::nan(""));  // seen by heads 3 to 5 of the last token
    const at::Tensor out = decode_attention(qkv, heads, cached.tokens(), 0, 0.1).view({4, heads, head_dim});
    for (const int64_t token : {0, 1, 2, 3})
      for (int64_t head = 0; head < heads; ++head) {
        const bool is_spoiled = (token == 0 && head == 1) || (token == 3 && head >= 3);
        if (is_spoiled)
          EXPECT_TRUE(out[token][head].isnan().all().item<bool>()) << "token " << token << ", head " << head;
        else
          EXPECT_TRUE(out[token][head].equal(clean[token][head])) << "token " << token << ", head " << head;
      }
  }
}

TEST_F(DecodeAttentionOnGpu, LargeScoresDoNotOverflow) {
  for (const at::ScalarType dtype : dtypes) {
    const Cached cached({300, 1, 0, 90}, 1, 64, dtype);
    const at::Tensor qkv = draw({4, 3, 64}, dtype).cuda() * 1000;
    const at::Tensor out = decode_attention(qkv, 1, cached.tokens(), 0, 10);
    EXPECT_TRUE(out.isfinite().all().item<bool>());
    EXPECT_LT(
        distance(out.narrow(0, 0, 1), attended_alone(wide(qkv).narrow(0, 0, 1).narrow(1, 0, 1), cached, 0, 0, 10)),
        attention_tolerance(dtype) + 1e-4);  // scores of 1e5 have an absolute error of 1e-2
  }
}

}  // namespace
}  // namespace oriel::ops
