#include "text/greedy.hpp"

#include <ATen/ops/argmax.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sub.h>

namespace oriel::text {

std::vector<Choice> choose_greedily(const at::Tensor& logits) {
  const at::Tensor ids = at::argmax(logits, -1, /*keepdim=*/true);
  const at::Tensor logprobs = at::sub(at::gather(logits, -1, ids), at::logsumexp(logits, {-1}, /*keepdim=*/true));
  // One copy to the host for both: a double holds every id.
  const at::Tensor both = at::stack({ids.to(at::kDouble), logprobs.to(at::kDouble)}).cpu();
  const auto n = static_cast<size_t>(logits.size(0));
  const double* values = both.const_data_ptr<double>();
  std::vector<Choice> choices(n);
  for (size_t i = 0; i < n; ++i) choices[i] = {static_cast<int64_t>(values[i]), static_cast<float>(values[n + i])};
  return choices;
}

}  // namespace oriel::text
