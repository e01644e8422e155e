#include "ops/parallel.hpp"

#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/ops/empty.h>

#include <algorithm>

namespace oriel::ops {

void parallel_for(int64_t count, int64_t grain, c10::function_ref<void(int64_t begin, int64_t end)> body) {
  if (count <= 0) return;
  const int64_t parts = std::min<int64_t>(at::get_num_threads(), (count + grain - 1) / grain);
  if (parts <= 1) return body(0, count);
  // A walk over a byte for each part, none of which is touched: where the bytes lie says which parts they are.
  const at::Tensor bytes = at::empty({parts}, at::kByte);
  const auto* first = static_cast<const char*>(bytes.const_data_ptr());
  at::TensorIterator walk = at::TensorIteratorConfig()
                                .set_check_mem_overlap(false)
                                .check_all_same_dtype(false)
                                .resize_outputs(false)
                                .add_output(bytes)
                                .build();
  walk.for_each(
      [&](char** data, const int64_t*, int64_t inner, int64_t outer) {
        const int64_t part = *data - first;
        body(count * part / parts, count * (part + inner * outer) / parts);
      },
      /*grain_size=*/1);
}

}  // namespace oriel::ops
