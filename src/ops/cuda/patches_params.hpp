#pragma once
// From the tables of a resize to what the pixel kernels are given; without libtorch, so that their tests share it.
#include <cstddef>
#include <cstdint>

#include "image/resize_tables.hpp"
#include "pixels.h"

namespace oriel::ops::cuda {

inline kernels::AxisWeightsView view_of(const image::AxisTable& axis, const uint8_t* tables) {
  return {.first = reinterpret_cast<const int32_t*>(tables + axis.first_offset),
          .words = reinterpret_cast<const uint32_t*>(tables + axis.words_offset),
          .in = axis.in,
          .out = axis.out,
          .chunks = axis.chunks,
          .digits = axis.digits,
          .shift = axis.shift,
          .span = axis.span};
}

/// Everything but picture, output and scratch. `on_device` is where the tables' buffer lies on the device.
inline kernels::PatchesParams params_of(const image::PixelTables& tables, const uint8_t* on_device,
                                        const image::PixelSpec& spec, Size target) {
  kernels::PatchesParams params;
  params.resize = tables.resizes();
  params.rows_first = tables.rows_first();
  if (tables.resizes()) {
    params.rows = view_of(tables.rows(), on_device);
    params.columns = view_of(tables.columns(), on_device);
  }
  params.target_height = target.height;
  params.target_width = target.width;
  params.values = reinterpret_cast<const float*>(on_device + tables.values_offset());
  for (size_t c = 0; c < 3; ++c) {
    const image::ByteToFloat& from = tables.arithmetic()[c];
    params.channels[c] = {from.computable, from.scale_high, from.scale_low, from.mean, from.divisor, from.reciprocal};
  }
  params.patch = spec.patch;
  params.temporal = spec.temporal;
  params.merge = spec.merge;
  return params;
}

}  // namespace oriel::ops::cuda
