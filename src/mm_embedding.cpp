#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <oriel/mm_embedding.hpp>

#include "core/error.hpp"
#include "core/json.hpp"

namespace oriel {
namespace {

constexpr int64_t first_id_of_all = 1'000'000'000;

int64_t take_ids(int64_t count) {
  static std::atomic<int64_t> next{first_id_of_all};
  return next.fetch_add(count, std::memory_order_relaxed);
}

std::string automatic_alias(int64_t first_id) { return fmt::format("<$EMB_{}$>", first_id); }

/// Aliases are looked for in UTF-8: one that ends inside a character would cut a text there.
void check_alias(const std::string& text_alias) {
  if (!is_utf8(text_alias)) throw_error(ErrorCode::invalid_argument, "text_alias: expected UTF-8, got other bytes");
}

void check_rows(const Tensor& rows) {
  if (!rows.defined() || rows.shape().size() != 2 || rows.size(0) < 1 || rows.size(1) < 1)
    throw_error(ErrorCode::invalid_argument, "embedding rows: expected a tensor [length, hidden], got {}",
                rows.defined()
                    ? fmt::format("one of {} dimensions and {} elements", rows.shape().size(), rows.element_count())
                    : "an empty one");
  const DType dtype = rows.dtype();
  if (dtype != DType::float32 && dtype != DType::bfloat16 && dtype != DType::float16)
    throw_error(ErrorCode::invalid_argument, "embedding rows: expected a floating dtype, got {}", to_string(dtype));
}

void check_info(const MMEmbeddingInfo& info, int64_t length) {
  if (info.pre_tokens < 0 || info.post_tokens < 0 || info.pre_tokens > length ||
      info.post_tokens > length - info.pre_tokens)
    throw_error(ErrorCode::invalid_argument, "embedding: expected at most {} special rows, got {} before and {} after",
                length, info.pre_tokens, info.post_tokens);
  if (info.merge_size < 1)
    throw_error(ErrorCode::invalid_argument, "embedding: expected a merge size of at least 1, got {}", info.merge_size);
  if (info.placeholder_tokens.empty()) return;
  const int64_t places =
      std::count(info.placeholder_tokens.begin(), info.placeholder_tokens.end(), info.placeholder_id);
  if (places != length)
    throw_error(ErrorCode::invalid_argument, "embedding: expected {} placeholders of id {} for its rows, got {}",
                length, info.placeholder_id, places);
}

}  // namespace

struct MMEmbedding::State {
  Tensor rows;
  MMEmbeddingInfo info;  // text_alias is resolved
  int64_t first_id = 0;
};

MMEmbedding::MMEmbedding(std::shared_ptr<const State> state) : state_(std::move(state)) {}

MMEmbedding MMEmbedding::from_rows(Tensor rows, MMEmbeddingInfo info) {
  check_rows(rows);
  check_alias(info.text_alias);
  check_info(info, rows.size(0));
  const int64_t first_id = take_ids(rows.size(0));
  if (info.text_alias.empty()) info.text_alias = automatic_alias(first_id);
  return MMEmbedding(std::make_shared<const State>(State{std::move(rows), std::move(info), first_id}));
}

const Tensor& MMEmbedding::embeddings() const noexcept { return state_->rows; }
int64_t MMEmbedding::length() const noexcept { return state_->rows.shape()[0]; }
int64_t MMEmbedding::hidden_size() const noexcept { return state_->rows.shape()[1]; }
int64_t MMEmbedding::first_id() const noexcept { return state_->first_id; }
const MMEmbeddingInfo& MMEmbedding::info() const noexcept { return state_->info; }
const std::string& MMEmbedding::text_alias() const noexcept { return state_->info.text_alias; }
size_t MMEmbedding::size_in_bytes() const { return state_->rows.size_in_bytes(); }

std::vector<int64_t> MMEmbedding::ids() const {
  std::vector<int64_t> ids(static_cast<size_t>(length()));
  std::iota(ids.begin(), ids.end(), first_id());
  return ids;
}

std::pair<int64_t, int64_t> MMEmbedding::vision_id_range() const noexcept {
  return {first_id() + info().pre_tokens, first_id() + length() - info().post_tokens};
}

const std::vector<int64_t>& MMEmbedding::placeholder_tokens() const {
  if (!info().tokens_unavailable.empty())
    throw_error(ErrorCode::unavailable, "prompt tokens: {}", info().tokens_unavailable);
  return info().placeholder_tokens;
}

std::vector<int64_t> MMEmbedding::tokens() const {
  std::vector<int64_t> tokens = placeholder_tokens();
  if (tokens.empty()) return ids();
  int64_t next = first_id();
  for (int64_t& token : tokens)
    if (token == info().placeholder_id) token = next++;
  return tokens;
}

MMEmbedding MMEmbedding::with_alias(std::string text_alias) const {
  check_alias(text_alias);
  State copy = *state_;
  copy.info.text_alias = text_alias.empty() ? automatic_alias(copy.first_id) : std::move(text_alias);
  return MMEmbedding(std::make_shared<const State>(std::move(copy)));
}

MMEmbedding MMEmbedding::with_placeholder_tokens(std::vector<int64_t> placeholder_tokens) const {
  State copy = *state_;
  copy.info.placeholder_tokens = std::move(placeholder_tokens);
  copy.info.tokens_unavailable.clear();
  check_info(copy.info, copy.rows.size(0));
  return MMEmbedding(std::make_shared<const State>(std::move(copy)));
}

MMEmbedding MMEmbedding::to(Device device) const {
  State copy = *state_;
  copy.rows = copy.rows.to(device);
  return MMEmbedding(std::make_shared<const State>(std::move(copy)));
}

namespace {

Point scale(Point point, Size from, Size to) {
  if (from.width < 1 || from.height < 1 || to.width < 1 || to.height < 1)
    throw_error(ErrorCode::invalid_argument, "embedding: its original or preprocessed size is unknown");
  return {point.x * static_cast<double>(to.width) / static_cast<double>(from.width),
          point.y * static_cast<double>(to.height) / static_cast<double>(from.height)};
}

}  // namespace

Point MMEmbedding::to_original(Point preprocessed) const {
  return scale(preprocessed, preprocessed_size(), original_size());
}

Point MMEmbedding::to_preprocessed(Point original) const {
  return scale(original, original_size(), preprocessed_size());
}

}  // namespace oriel
