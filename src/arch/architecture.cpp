#include "arch/architecture.hpp"

#include <ATen/ops/empty.h>

#include "core/error.hpp"

namespace oriel::arch {

VideoTarget Architecture::plan_video(const VideoRequest&) const {
  throw_error(ErrorCode::unsupported_model, "{}: this family takes pictures, not videos", traits_.family);
}

std::vector<Rect> Architecture::plan_crops(Size, const CropOptions&) const {
  throw_error(ErrorCode::unsupported_model, "{}: this family sees pictures as a whole, without crops", traits_.family);
}

int64_t Architecture::rows(const Grid& grid) const {
  return grid.t * (grid.h / traits_.merge_size) * (grid.w / traits_.merge_size);
}

std::vector<int64_t> segment_bounds(std::span<const Grid> grids) {
  std::vector<int64_t> bounds{0};
  for (const Grid& grid : grids)
    for (int64_t t = 0; t < grid.t; ++t) bounds.push_back(bounds.back() + grid.h * grid.w);
  return bounds;
}

PatchCoordinates patch_coordinates(std::span<const Grid> grids, int64_t merge) {
  int64_t total = 0;
  for (const Grid& grid : grids) total += grid.patches();
  PatchCoordinates result{at::empty({total}, at::kLong), at::empty({total}, at::kLong)};
  auto* row = result.rows.mutable_data_ptr<int64_t>();
  auto* column = result.columns.mutable_data_ptr<int64_t>();
  for (const Grid& grid : grids)
    for (int64_t t = 0; t < grid.t; ++t)
      for (int64_t block_row = 0; block_row < grid.h; block_row += merge)
        for (int64_t block_column = 0; block_column < grid.w; block_column += merge)
          for (int64_t dy = 0; dy < merge; ++dy)
            for (int64_t dx = 0; dx < merge; ++dx) {
              *row++ = block_row + dy;
              *column++ = block_column + dx;
            }
  return result;
}

void expect_distinct(const Json& config, int64_t placeholder, std::string_view placeholder_key,
                     std::initializer_list<int64_t> special_tokens) {
  for (const int64_t token : special_tokens)
    if (token == placeholder)
      throw_error(ErrorCode::malformed_model, "{}: expected {} to differ from the other special tokens, got {} for two",
                  config.where(), placeholder_key, placeholder);
}

Prompt bracketed_prompt(int64_t start, int64_t placeholder, int64_t rows, int64_t end) {
  Prompt prompt{.tokens = std::vector(static_cast<size_t>(rows) + 2, placeholder),
                .placeholder = placeholder,
                .pre_tokens = 1,
                .post_tokens = 1,
                .unavailable = {}};
  prompt.tokens.front() = start;
  prompt.tokens.back() = end;
  return prompt;
}

}  // namespace oriel::arch
