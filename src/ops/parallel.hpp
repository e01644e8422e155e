#pragma once
#include <c10/util/FunctionRef.h>

#include <cstdint>

namespace oriel::ops {

/// Calls body(begin, end) for ranges that cover [0, count): one for each of libtorch's threads, but none much shorter
/// than `grain`. These are the threads of its operators, which still spin when the next product begins.
/// at::parallel_for is a template that knows no threads unless its user is compiled with the OpenMP that libtorch has.
void parallel_for(int64_t count, int64_t grain, c10::function_ref<void(int64_t begin, int64_t end)> body);

}  // namespace oriel::ops
