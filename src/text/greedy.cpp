#include "text/greedy.hpp"

#include "ops/decode.hpp"

namespace oriel::text {

std::vector<Choice> choose_greedily(const at::Tensor& logits) {
  const at::Tensor both = ops::greedy_choices(logits).cpu();  // one copy to the host
  const auto n = static_cast<size_t>(logits.size(0));
  const double* values = both.const_data_ptr<double>();
  std::vector<Choice> choices(n);
  for (size_t i = 0; i < n; ++i) choices[i] = {static_cast<int64_t>(values[i]), static_cast<float>(values[n + i])};
  return choices;
}

}  // namespace oriel::text
