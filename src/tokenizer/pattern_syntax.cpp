// Reads Oniguruma's syntax as far as tokenizers use it. Whatever PCRE2 could understand otherwise is refused by name.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <utility>

#include "core/error.hpp"
#include "core/json.hpp"
#include "tokenizer/pattern.hpp"

namespace oriel::tokenizer {
namespace {

constexpr int max_repeat = 1000;  // PCRE2 unrolls counted repetitions
constexpr size_t max_reads = 2000;
constexpr size_t max_sets = 500;
constexpr size_t max_nesting = 100;

CodePointSet oniguruma_word_set() {
  CodePointSet set = word_set();
  set.add(0xb2, 0xb3);
  set.add(0xb9, 0xb9);
  set.add(0xbc, 0xbe);
  return set;
}

class Parser {
 public:
  Parser(std::string_view regex, std::string_view where) : text_(regex), where_(where) {}

  ParsedPattern parse() {
    while (position_ < text_.size()) parse_next();
    if (!groups_.empty()) refuse("a group without its end");
    result_.reads = reads_;
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    throw_error(ErrorCode::unsupported_model, "{}: expected a pattern that oriel understands, got {} in {}", where_,
                what, quote_json(text_.substr(0, 200)));
  }
  [[nodiscard]] bool at(std::string_view next) const { return text_.substr(position_).starts_with(next); }
  bool take(std::string_view next) {
    if (!at(next)) return false;
    position_ += next.size();
    return true;
  }
  uint32_t take_character() {
    if (position_ >= text_.size()) refuse("an end too early");
    return next_code_point(text_, position_);
  }

  void emit(std::string_view syntax) { result_.pieces.push_back({std::string(syntax), -1}); }
  void emit(CodePointSet set) {
    if (result_.sets.size() == max_sets) refuse("more than 500 characters and sets");
    result_.pieces.push_back({"", static_cast<int>(result_.sets.size())});
    result_.sets.push_back(std::move(set));
    last_reads_ = 1;
    add_reads(last_reads_);
  }

  void add_reads(size_t reads) {
    reads_ += reads;
    if (reads_ > max_reads) refuse("parts that read more than 2000 characters in all");
  }

  void parse_next() {
    if (take("(")) return open_group();
    if (take(")")) return close_group();
    if (take("|")) {
      emit("|");
      can_repeat_ = false;
      return;
    }
    if (at("*") || at("+") || at("?") || is_counted_repeat()) return parse_repeat();
    if (at("^") || at("$")) refuse("an anchor");
    CodePointSet set;
    if (take("[")) {
      set = parse_set();
    } else if (take(".")) {
      set.add('\n', '\n');
      set = set.complement();
    } else if (at("\\")) {
      set = parse_escape();
    } else {
      const uint32_t character = take_character();
      set.add(character, character);
    }
    emit(ignore_case_ ? both_cases(set) : std::move(set));
    can_repeat_ = true;
    after_atomic_ = false;
  }

  struct Group {
    bool ignored_case;
    bool can_repeat;
    size_t reads_before;
    bool keeps_nothing = false;  // atomic, or a look around: what was tried inside is not tried again
    bool has_endless = false;    // a repeat without end is inside
  };
  void open_group() {
    if (groups_.size() == max_nesting) refuse("more than 100 groups in each other");
    groups_.push_back({ignore_case_, true, reads_});
    reads_ = 1;  // an empty group takes time, too
    if (take("?i:")) {
      ignore_case_ = true;
      emit("(?:");
    } else {
      bool known = false;
      for (const std::string_view kind : {"?:", "?=", "?!", "?<=", "?<!", "?>"}) {
        if (known || !take(kind)) continue;
        known = true;
        groups_.back().can_repeat = kind == "?:" || kind == "?>";
        groups_.back().keeps_nothing = kind != "?:";
        emit(fmt::format("({}", kind));
      }
      if (!known && at("?")) refuse("the group " + quote_json(text_.substr(position_ - 1, 4)));
      if (!known) emit("(?:");
    }
    can_repeat_ = false;
  }
  void close_group() {
    if (groups_.empty()) refuse("a ) without its (");
    emit(")");
    ignore_case_ = groups_.back().ignored_case;
    can_repeat_ = groups_.back().can_repeat;
    const Group closed = groups_.back();
    groups_.pop_back();
    after_atomic_ = closed.keeps_nothing;
    last_reads_ = std::exchange(reads_, closed.reads_before);
    add_reads(last_reads_);
    result_.reads_uncounted = result_.reads_uncounted || (closed.keeps_nothing && closed.has_endless);
    if (closed.has_endless && !groups_.empty()) groups_.back().has_endless = true;
  }

  /// Only ASCII letters change with case here, together with the two characters that fold to one of them.
  CodePointSet both_cases(CodePointSet set) const {
    CodePointSet result = set;
    for (const CodePointSet::Range& range : set.ranges()) {
      if (range.last >= 0x80) refuse("characters beyond ASCII where case is ignored");
      for (uint32_t c = range.first; c <= range.last; ++c) {
        if (std::isalpha(static_cast<int>(c)) == 0) continue;
        result.add(c ^ 0x20, c ^ 0x20);
        if ((c | 0x20) == 's') result.add(0x17f, 0x17f);
        if ((c | 0x20) == 'k') result.add(0x212a, 0x212a);
      }
    }
    return result;
  }

  /// {n}, {n,}, {,m} and {n,m}; any other brace is a character.
  [[nodiscard]] bool is_counted_repeat() const {
    if (!at("{")) return false;
    const size_t end = text_.find('}', position_);
    if (end == std::string_view::npos) return false;
    const std::string_view inside = text_.substr(position_ + 1, end - position_ - 1);
    return !inside.empty() && inside != "," && std::ranges::count(inside, ',') <= 1 &&
           std::ranges::all_of(inside, [](char c) { return (c >= '0' && c <= '9') || c == ','; });
  }
  int take_count(int fallback) {
    int value = fallback;
    const char* begin = text_.data() + position_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error == std::errc::result_out_of_range || value > max_repeat) refuse("a repetition of more than 1000");
    position_ += static_cast<size_t>(end - begin);
    return value;
  }
  void parse_repeat() {
    if (!can_repeat_) refuse("a repetition of nothing");
    can_repeat_ = false;
    if (!at("{")) {
      const bool is_endless = !at("?");
      emit(text_.substr(position_++, 1));
      if (is_endless) note_endless(at("+"));
      if (at("?") || at("+")) emit(text_.substr(position_++, 1));
      if (at("*") || at("+") || at("?") || is_counted_repeat()) refuse("a repetition of a repetition");
      return;
    }
    ++position_;
    const int least = take_count(0);
    int most = least;
    std::string syntax = fmt::format("{{{}", least);
    if (take(",")) {
      syntax += ',';
      if (at("}")) {
        note_endless(/*is_possessive=*/false);
      } else {
        most = take_count(0);
        syntax += fmt::to_string(most);
      }
    }
    if (!take("}")) refuse("a count that is no number");
    syntax += '}';
    emit(syntax);
    add_reads(last_reads_ * static_cast<size_t>(std::max({least, most, 1}) - 1));
    // Oniguruma reads what may follow a count otherwise than PCRE2.
    if (at("*") || at("+") || at("?") || is_counted_repeat()) refuse("a repetition of a repetition");
  }

  void note_endless(bool is_possessive) {
    if (is_possessive || after_atomic_) result_.reads_uncounted = true;
    if (!groups_.empty()) groups_.back().has_endless = true;
  }

  CodePointSet parse_set() {
    const bool negated = take("^");
    CodePointSet set;
    bool first = true;
    while (!take("]") || first) {
      if (first && !text_.empty() && text_[position_ - 1] == ']') refuse("an empty set");
      first = false;
      if (at("[") || at("&&")) refuse("a set inside a set");
      const size_t before = position_;
      CodePointSet item;
      if (at("\\")) {
        item = parse_escape();
      } else {
        const uint32_t character = take_character();
        item.add(character, character);
      }
      const bool is_range = at("-") && !text_.substr(position_).starts_with("-]");
      if (is_range && text_[before] != '-') {
        ++position_;
        item = parse_range_end(item);
      }
      set.add(item);
    }
    return negated ? set.complement() : set;
  }
  CodePointSet parse_range_end(const CodePointSet& from) {
    if (at("[")) refuse("a set inside a set");
    CodePointSet to;
    if (at("\\")) {
      to = parse_escape();
    } else {
      const uint32_t character = take_character();
      to.add(character, character);
    }
    const auto single = [](const CodePointSet& set) {
      return set.ranges().size() == 1 && set.ranges()[0].first == set.ranges()[0].last;
    };
    if (!single(from) || !single(to) || to.ranges()[0].first < from.ranges()[0].first) refuse("a range without order");
    CodePointSet range;
    range.add(from.ranges()[0].first, to.ranges()[0].first);
    return range;
  }

  CodePointSet parse_escape() {
    ++position_;
    const uint32_t kind = take_character();
    CodePointSet set;
    const auto one = [&](uint32_t character) {
      set.add(character, character);
      return set;
    };
    switch (kind) {
      case 's':
        return white_space_set();
      case 'S':
        return white_space_set().complement();
      case 'd':
        return *category_set("Nd");
      case 'D':
        return category_set("Nd")->complement();
      case 'w':
        return oniguruma_word_set();
      case 'W':
        return oniguruma_word_set().complement();
      case 'p':
      case 'P':
        return parse_property(kind == 'P');
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 't':
        return one('\t');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case 'x':
        return one(take_hexadecimal(at("{") ? 0 : 2));
      case 'u':
        return one(take_hexadecimal(4));
      default:
        if (kind >= 0x80 || std::isalnum(static_cast<int>(kind)) != 0)
          refuse("the escape " + quote_json(text_.substr(position_ - 2, 2)));
        return one(kind);
    }
  }
  /// Exactly `digits` digits, or {digits} if it is 0.
  uint32_t take_hexadecimal(size_t digits) {
    size_t begin = position_;
    size_t end = position_ + digits;
    if (digits == 0) {
      begin += 1;
      end = text_.find('}', begin);
    }
    uint32_t value = 0;
    if (end > text_.size() || end == begin) refuse("a character number without digits");
    const auto [stop, error] = std::from_chars(text_.data() + begin, text_.data() + end, value, 16);
    if (error != std::errc() || stop != text_.data() + end || value >= code_point_count ||
        (digits == 2 && value > 0x7f))
      refuse("the character number " + quote_json(text_.substr(begin, std::min<size_t>(end - begin, 40))));
    position_ = end + (digits == 0 ? 1 : 0);
    return value;
  }
  CodePointSet parse_property(bool negated) {
    const size_t end = text_.find('}', position_);
    if (!take("{") || end == std::string_view::npos) refuse("\\p without {}");
    if (take("^")) negated = !negated;
    const std::string_view name = text_.substr(position_, end - position_);
    const auto set = category_set(name);
    if (!set) refuse("the property " + quote_json(name.substr(0, 40)));
    position_ = end + 1;
    return negated ? set->complement() : *set;
  }

  std::string_view text_;
  std::string_view where_;
  size_t position_ = 0;
  bool ignore_case_ = false;
  bool can_repeat_ = false;
  size_t reads_ = 0;           // of the group so far, as ParsedPattern's
  size_t last_reads_ = 0;      // of what may be repeated here
  bool after_atomic_ = false;  // what may be repeated here is an atomic group
  std::vector<Group> groups_;
  ParsedPattern result_;
};

}  // namespace

ParsedPattern parse_pattern(std::string_view regex, std::string_view where) { return Parser(regex, where).parse(); }

}  // namespace oriel::tokenizer
