#include "ops/decode.hpp"

#include <ATen/ops/argmax.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sub.h>

#ifdef ORIEL_CUDA
#include "ops/cuda/decode.hpp"
#else
#include "core/error.hpp"
#endif

namespace oriel::ops {

#ifdef ORIEL_CUDA

bool has_decode_kernels(const DecodeShape& shape, at::ScalarType dtype, c10::Device device) {
  return cuda::has_decode_kernels(shape, dtype, device);
}
at::Tensor token_turns(const at::Tensor& positions, const at::Tensor& frequencies, const at::Tensor& axes) {
  return cuda::token_turns(positions, frequencies, axes);
}
void rotate_and_store(const at::Tensor& qkv, const at::Tensor& turns, const HeadNorms& norms, int64_t heads,
                      const CachedTokens& cached) {
  cuda::rotate_and_store(qkv, turns, norms, heads, cached);
}
at::Tensor decode_attention(const at::Tensor& qkv, int64_t heads, const CachedTokens& cached, int64_t window,
                            double scale) {
  return cuda::decode_attention(qkv, heads, cached, window, scale);
}

#else

namespace {
[[noreturn]] void throw_no_kernels() {
  throw_error(ErrorCode::internal, "decode: expected a build with CUDA and a shape that has kernels");
}
}  // namespace

bool has_decode_kernels(const DecodeShape&, at::ScalarType, c10::Device) { return false; }
at::Tensor token_turns(const at::Tensor&, const at::Tensor&, const at::Tensor&) { throw_no_kernels(); }
void rotate_and_store(const at::Tensor&, const at::Tensor&, const HeadNorms&, int64_t, const CachedTokens&) {
  throw_no_kernels();
}
at::Tensor decode_attention(const at::Tensor&, int64_t, const CachedTokens&, int64_t, double) { throw_no_kernels(); }

#endif

at::Tensor greedy_choices(const at::Tensor& logits) {
#ifdef ORIEL_CUDA
  if (logits.is_cuda() && logits.scalar_type() == at::kFloat) return cuda::greedy_choices(logits);
#endif
  const at::Tensor ids = at::argmax(logits, -1, /*keepdim=*/true);
  const at::Tensor logprobs = at::sub(at::gather(logits, -1, ids), at::logsumexp(logits, {-1}, /*keepdim=*/true));
  return at::stack({ids.to(at::kDouble), logprobs.to(at::kDouble)}).squeeze(-1);  // a double holds every id
}

}  // namespace oriel::ops
