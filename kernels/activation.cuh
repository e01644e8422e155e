#pragma once
// The activations on one value. For 16-bit types they take the fast exponential and reciprocal (errors below 2^-21 of
// the result, far below the rounding of such a type), for float32 the exact functions.
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels.h"

namespace oriel::kernels {

template <typename T>
__device__ float sigmoid(float x) {
  if constexpr (sizeof(T) == 4) return 1.0F / (1.0F + expf(-x));
  float power;
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(-1.4426950408889634F * x));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(1.0F + power));  // 1 to infinity: nothing to scale
  return result;
}

template <typename T, ElementwiseFunction function>
__device__ float apply(float x) {
  if constexpr (function == ElementwiseFunction::identity) return x;
  if constexpr (function == ElementwiseFunction::relu) return x < 0.0F ? 0.0F : x;  // NaN stays NaN
  if constexpr (function == ElementwiseFunction::silu) return x * sigmoid<T>(x);
  if constexpr (function == ElementwiseFunction::quick_gelu) return x * sigmoid<T>(1.702F * x);
  if constexpr (function == ElementwiseFunction::gelu_erf) return 0.5F * x * (1.0F + erff(x * 0.70710678118654752F));
  if constexpr (function == ElementwiseFunction::gelu_tanh) {
    // 0.5 (1 + tanh(u)) is sigmoid(2u).
    const float twice = 1.5957691216057308F * (x + 0.044715F * x * x * x);
    return x * sigmoid<T>(twice);
  }
}

/// Calls f with the function as an integral constant.
template <typename F>
cudaError_t with_function(ElementwiseFunction function, F&& f) {
  using E = ElementwiseFunction;
  switch (function) {
    case E::identity:
      return f(std::integral_constant<E, E::identity>());
    case E::relu:
      return f(std::integral_constant<E, E::relu>());
    case E::silu:
      return f(std::integral_constant<E, E::silu>());
    case E::gelu_erf:
      return f(std::integral_constant<E, E::gelu_erf>());
    case E::gelu_tanh:
      return f(std::integral_constant<E, E::gelu_tanh>());
    case E::quick_gelu:
      return f(std::integral_constant<E, E::quick_gelu>());
  }
  return cudaErrorInvalidValue;
}

}  // namespace oriel::kernels
