#pragma once
// The element types as kernels see them: vectors of 16 bytes in memory, float32 in registers, and one dispatch from the
// run-time Element to a template parameter.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels.h"

namespace oriel::kernels {

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float widen(__half x) { return __half2float(x); }

template <typename T>
__device__ T narrow(float x);
template <>
__device__ inline float narrow<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline __half narrow<__half>(float x) {
  return __float2half_rn(x);
}

/// N elements that are loaded and stored at once; memory is aligned to all of them.
template <typename T, int N>
struct alignas(sizeof(T) * N) Vector {
  T values[N];
};

template <typename T>
constexpr int vector_length = 16 / sizeof(T);

template <typename T, int N>
__device__ Vector<T, N> load(const T* from) {
  return *reinterpret_cast<const Vector<T, N>*>(from);
}
template <typename T, int N>
__device__ void store(T* to, const Vector<T, N>& vector) {
  *reinterpret_cast<Vector<T, N>*>(to) = vector;
}

/// N elements in float32, by loads of 16 bytes.
template <typename T, int N>
__device__ void load_wide(const T* from, float (&values)[N]) {
  constexpr int length = vector_length<T>;
#pragma unroll
  for (int part = 0; part < N / length; ++part) {
    const auto vector = load<T, length>(from + part * length);
#pragma unroll
    for (int i = 0; i < length; ++i) values[part * length + i] = widen(vector.values[i]);
  }
}

/// Calls f with a null pointer of the element's type.
template <typename F>
cudaError_t dispatch(Element element, F&& f) {
  switch (element) {
    case Element::float32:
      return f(static_cast<float*>(nullptr));
    case Element::bfloat16:
      return f(static_cast<__nv_bfloat16*>(nullptr));
    case Element::float16:
      return f(static_cast<__half*>(nullptr));
  }
  return cudaErrorInvalidValue;
}

template <typename T>
bool is_aligned(const T* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace oriel::kernels
