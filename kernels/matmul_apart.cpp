#include "matmul_apart.h"

#include "kernels.h"

namespace oriel::kernels {
namespace {

/// What the choice between the two is remembered by. Rows are rounded there, the shape of tiles must not be.
MatmulShape shape_of(const MatmulSm90Params& p) {
  return {.rows = p.rows,
          .in = p.in,
          .out = p.out,
          .x_stride = p.x_stride,
          .element = static_cast<int32_t>(p.element),
          .epilogue = (p.bias != nullptr ? 1 : 0) | 16 | (p.gated ? 32 : 0) | (matmul_sm90_is_square(p) ? 64 : 0)};
}

}  // namespace

cudaError_t matmul_apart(Matmul& products, const MatmulSm90Params& p, const MatmulApartRoom& room,
                         cudaStream_t stream) {
  const cudaError_t error = products({.x = p.x,
                                      .weight = p.weight,
                                      .bias = p.bias,
                                      .y = p.gated ? room.gate_up : p.y,
                                      .rows = p.rows,
                                      .in = p.in,
                                      .out = p.gated ? 2 * p.out : p.out,
                                      .x_stride = p.x_stride,
                                      .element = p.element,
                                      .workspace = room.workspace,
                                      .workspace_bytes = room.workspace_bytes},
                                     stream);
  if (error != cudaSuccess) return error;
  if (!p.gated) return elementwise({p.y, p.y, p.rows * p.out, p.function, p.element}, stream);
  return gate({room.gate_up, p.y, p.rows, p.out, p.function, p.element}, stream);
}

bool matmul_sm90_is_faster(Matmul& products, const MatmulSm90Params& p, const MatmulApartRoom& room, int processors,
                           cudaStream_t stream) {
  MatmulTwoWays choice;
  choice.shape = shape_of(p);
  choice.first = [&](const void* weight, cudaStream_t on) {
    MatmulSm90Params inside = p;
    inside.weight = weight;
    return matmul_sm90(inside, processors, on);
  };
  choice.second = [&](const void* weight, cudaStream_t on) {
    MatmulSm90Params apart = p;
    apart.weight = weight;
    return matmul_apart(products, apart, room, on);
  };
  choice.weight = p.weight;
  choice.weight_rows = p.gated ? 2 * p.out : p.out;
  choice.otherwise = matmul_sm90_pays(p, processors);
  return products.is_faster(choice, stream);
}

std::optional<bool> matmul_sm90_was_faster(Matmul& products, const MatmulSm90Params& p) {
  return products.was_faster(shape_of(p));
}

}  // namespace oriel::kernels
