// A stranger who has libtorch too: rows as an at::Tensor and back, without a copy.
#include <cstdio>
#include <oriel/oriel.hpp>
#include <oriel/torch.hpp>
#include <vector>

int main() {
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  const oriel::Tensor rows = oriel::Tensor::copy_of(values, {2, 3});
  const at::Tensor tensor = oriel::to_torch(rows);
  const oriel::Tensor again = oriel::from_torch(tensor);
  if (tensor.size(0) != 2 || tensor.size(1) != 3 || again.to_float32() != values) return 1;
  if (again.data() != rows.data()) return 2;
  std::printf("libtorch and oriel share rows [2, 3]\n");
}
