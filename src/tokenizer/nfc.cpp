#include "tokenizer/nfc.hpp"

#include <algorithm>
#include <optional>

#include "tokenizer/flat_map.hpp"
#include "tokenizer/unicode.hpp"
#include "tokenizer/unicode_tables.hpp"

namespace oriel::tokenizer {
namespace {

constexpr uint32_t l_base = 0x1100, v_base = 0x1161, t_base = 0x11a7, s_base = 0xac00;
constexpr uint32_t l_count = 19, v_count = 21, t_count = 28, s_count = l_count * v_count * t_count;

/// The tables, arranged for looking up.
struct Tables {
  Tables() : combining(code_point_count), unstable(code_point_count) {
    for (size_t i = 0; i < combining_runs.size(); ++i) {
      const uint32_t end = i + 1 < combining_runs.size() ? combining_runs[i + 1].first : code_point_count;
      const uint8_t value = combining_runs[i].combining_class;
      std::fill(combining.begin() + combining_runs[i].first, combining.begin() + end, value);
      if (value != 0) std::fill(unstable.begin() + combining_runs[i].first, unstable.begin() + end, true);
    }
    for (uint32_t i = 0; i < decompositions.size(); ++i) {
      const Decomposition& entry = decompositions[i];
      decomposition.insert_or_assign(entry.code_point, i);
      if (entry.composes) {
        composition.insert_or_assign(uint64_t{entry.first} << 32 | entry.second, entry.code_point);
        unstable[entry.second] = true;
      } else {
        unstable[entry.code_point] = true;
      }
    }
    for (uint32_t v = v_base; v < v_base + v_count; ++v) unstable[v] = true;
    for (uint32_t t = t_base + 1; t < t_base + t_count; ++t) unstable[t] = true;
  }
  std::vector<uint8_t> combining;
  std::vector<bool> unstable;  // may join what stands before it, or is never part of composed text
  FlatMap decomposition;       // code point to index
  FlatMap composition;         // pair to code point
};

const Tables& tables() {
  static const Tables instance;
  return instance;
}

std::optional<uint32_t> compose_pair(uint32_t first, uint32_t second) {
  if (first - l_base < l_count && second - v_base < v_count)
    return s_base + ((first - l_base) * v_count + (second - v_base)) * t_count;
  const uint32_t syllable = first - s_base;
  if (syllable < s_count && syllable % t_count == 0 && second - t_base - 1 < t_count - 1)
    return first + (second - t_base);
  const uint64_t* found = tables().composition.find(uint64_t{first} << 32 | second);
  return found == nullptr ? std::nullopt : std::optional(static_cast<uint32_t>(*found));
}

/// A part of text between two characters that nothing can join.
class Segment {
 public:
  void add(uint32_t code_point) { decompose(code_point, 0); }
  void flush(std::vector<ComposedCharacter>& result) {
    sort_marks();
    compose(result);
    characters_.clear();
  }

 private:
  void decompose(uint32_t code_point, int change) {
    const uint32_t syllable = code_point - s_base;
    if (syllable < s_count) {
      characters_.push_back({l_base + syllable / (v_count * t_count), change});
      characters_.push_back({v_base + syllable % (v_count * t_count) / t_count, 1});
      if (syllable % t_count != 0) characters_.push_back({t_base + syllable % t_count, 1});
      return;
    }
    const uint64_t* found = tables().decomposition.find(code_point);
    if (found == nullptr) return characters_.push_back({code_point, change});
    const Decomposition& entry = decompositions[*found];  // nests three deep at most
    decompose(entry.first, change);
    if (entry.second != 0) decompose(entry.second, 1);
  }
  void sort_marks() {
    const auto class_of = [](const ComposedCharacter& c) { return tables().combining[c.code_point]; };
    for (auto begin = characters_.begin(); begin != characters_.end();) {
      if (class_of(*begin) == 0) {
        ++begin;
        continue;
      }
      const auto end = std::find_if(begin, characters_.end(), [&](const auto& c) { return class_of(c) == 0; });
      std::stable_sort(begin, end, [&](const auto& a, const auto& b) { return class_of(a) < class_of(b); });
      begin = end;
    }
  }
  void compose(std::vector<ComposedCharacter>& result) {
    std::optional<size_t> base;  // the last starter's place in the result
    int last_class = -1;         // of the marks behind the starter that stay; -1 without one
    for (const ComposedCharacter& character : characters_) {
      const int combining = tables().combining[character.code_point];
      if (base && last_class < combining) {
        if (const auto joined = compose_pair(result[*base].code_point, character.code_point)) {
          result[*base] = {*joined, result[*base].change + character.change - 1};
          continue;
        }
      }
      if (combining == 0) {
        base = result.size();
        last_class = -1;
      } else if (base) {
        last_class = combining;
      }
      result.push_back(character);
    }
  }

  std::vector<ComposedCharacter> characters_;
};

}  // namespace

bool is_composed(std::string_view text) {
  const std::vector<bool>& unstable = tables().unstable;
  for (size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      ++i;
    } else if (unstable[next_code_point(text, i)]) {
      return false;
    }
  }
  return true;
}

void compose_text(std::string_view text, std::vector<ComposedCharacter>& result) {
  Segment segment;
  for (size_t i = 0; i < text.size();) {
    const uint32_t code_point = next_code_point(text, i);
    if (!tables().unstable[code_point]) segment.flush(result);
    segment.add(code_point);
  }
  segment.flush(result);
}

}  // namespace oriel::tokenizer
