#include "image/resize.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "image/resize_plan.hpp"

namespace oriel::image {

namespace {

/// Every range begins by squeezing rows that its neighbour has squeezed too: not worth it for a few output rows.
constexpr int64_t least_rows_per_range = 16;

std::string_view name_of(Simd simd) {
  switch (simd) {
    case Simd::best:
      return "best";
    case Simd::plain:
      return "plain";
    case Simd::avx2:
      return "avx2";
    case Simd::avx512:
      return "avx512";
  }
  return "unknown";
}

}  // namespace

void resize(const RgbView& source, const MutableRgbView& target, Filter filter, ResizeArithmetic arithmetic,
            const ThreadPool& pool, Simd simd) {
  check_view("resize: source", source.data, source.size, source.stride);
  check_view("resize: target", target.data, target.size, target.stride);
  const ResizePlan plan(source.size, target.size, filter, arithmetic, simd);
  pool.parallel_for(target.size.height, least_rows_per_range, [&](int64_t begin, int64_t end) {
    RowResizer rows(plan, source);
    rows.write_rows(begin, end, target.data + begin * target.stride, target.stride);
  });
}

bool is_supported(Simd simd) {
  switch (simd) {
    case Simd::best:
    case Simd::plain:
      return true;
#if defined(__x86_64__)
    // The compiler's run-time library asks cpuid, and xgetbv whether the system saves the registers.
    case Simd::avx2: {
      static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
      return has;
    }
    case Simd::avx512: {
      static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                              __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
      return has;
    }
#else
    case Simd::avx2:
    case Simd::avx512:
      return false;
#endif
  }
  return false;
}

Simd resolve(Simd simd) {
  if (simd != Simd::best) return simd;
  if (is_supported(Simd::avx512)) return Simd::avx512;
  return is_supported(Simd::avx2) ? Simd::avx2 : Simd::plain;
}

const Kernels& kernels_for(Simd simd) {
  if (!is_supported(simd)) {
    throw_error(ErrorCode::unavailable, "simd: this processor does not have the instructions of {}", name_of(simd));
  }
#if defined(__x86_64__)
  if (resolve(simd) == Simd::avx512) return avx512_kernels;
  if (resolve(simd) == Simd::avx2) return avx2_kernels;
#endif
  return plain_kernels;
}

}  // namespace oriel::image
