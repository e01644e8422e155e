#include "tokenizer/pattern.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "core/error.hpp"

namespace oriel::tokenizer {
namespace {

// A pattern of a real tokenizer backtracks a few steps a character. PCRE2 counts them from 0 at each character at which
// a match may start, so that a text's own sum is kept here: first_limit steps a start are free, for they only take time
// that grows with the text, and starts that take more are tried again with more, one by one, out of this budget. All of
// it takes a moment. Patterns whose steps read much have fewer of them, for which they pay more.
constexpr uint32_t first_limit = 128;
constexpr uint64_t text_budget = 4'000'000;
constexpr uint64_t character_budget = 64;
constexpr size_t cheap_reads = 128;  // ParsedPattern's; those of real tokenizers are fewer
// What a pattern reads uncounted (ParsedPattern) counts by length instead: such a pattern is shown this many characters
// behind a start, and where it asks for more, more, out of the same budget.
constexpr size_t first_window = 256;
constexpr uint64_t most_counted = std::numeric_limits<uint32_t>::max();  // that PCRE2 counts
constexpr size_t stack_start = 32 << 10;
constexpr size_t stack_limit = 16 << 20;

/// What a thread needs to run patterns.
struct Scratch {
  Scratch()
      : data(pcre2_match_data_create_8(1, nullptr)),
        context(pcre2_match_context_create_8(nullptr)),
        stack(pcre2_jit_stack_create_8(stack_start, stack_limit, nullptr)) {
    if (data == nullptr || context == nullptr || stack == nullptr)
      throw_error(ErrorCode::out_of_memory, "a pattern's stack could not be allocated");
    pcre2_jit_stack_assign_8(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_match_data_free_8(data);
    pcre2_match_context_free_8(context);
    pcre2_jit_stack_free_8(stack);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  pcre2_match_data_8* data;
  pcre2_match_context_8* context;
  pcre2_jit_stack_8* stack;
  std::vector<uint8_t> classes;
};

uint64_t budget_of(size_t size) { return text_budget + character_budget * size; }

thread_local uint64_t* shared_budget = nullptr;

}  // namespace

SharedPatternBudget::SharedPatternBudget(size_t size)
    : steps_(budget_of(size)), around_(std::exchange(shared_budget, &steps_)) {}
SharedPatternBudget::~SharedPatternBudget() { shared_budget = around_; }

struct Pattern::Code {
  /// Without auto-possessification, which would turn steps that are counted into some that are not.
  Code(const std::string& syntax, uint32_t options, std::string_view where, uint32_t kinds = PCRE2_JIT_COMPLETE) {
    int error = 0;
    size_t offset = 0;
    code = pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(syntax.data()), syntax.size(),
                           PCRE2_DOTALL | PCRE2_NEVER_UTF | PCRE2_NO_AUTO_CAPTURE | PCRE2_NO_AUTO_POSSESS | options,
                           &error, &offset, nullptr);
    if (code == nullptr) {
      std::array<unsigned char, 128> reason{};
      pcre2_get_error_message_8(error, reason.data(), reason.size());
      throw_error(ErrorCode::unsupported_model, "{}: expected a pattern that PCRE2 compiles, got: {}", where,
                  reinterpret_cast<const char*>(reason.data()));
    }
    is_native = pcre2_jit_compile_8(code, kinds) == 0;
  }
  ~Code() { pcre2_code_free_8(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  /// Where a match is, in the scratch's data: as pcre2_match, with up to `limit` steps a start.
  int match(const Scratch& scratch, size_t from, uint64_t limit) const {
    return match(scratch, from, scratch.classes.size(), limit);
  }
  /// The same in what is before `end`; PCRE2_ERROR_PARTIAL if that depends on what is behind.
  int match(const Scratch& scratch, size_t from, size_t end, uint64_t limit) const {
    pcre2_set_match_limit_8(scratch.context, static_cast<uint32_t>(limit));
    const auto run = is_native ? pcre2_jit_match_8 : pcre2_match_8;
    const uint32_t partial = end < scratch.classes.size() ? PCRE2_PARTIAL_HARD : 0;
    return run(code, scratch.classes.data(), end, from, PCRE2_NO_UTF_CHECK | partial, scratch.data, scratch.context);
  }

  pcre2_code_8* code = nullptr;
  bool is_native = false;
};

/// Finds the matches of one text within its budget.
class Pattern::Search {
 public:
  Search(const Pattern& pattern, const Scratch& scratch)
      : pattern_(pattern),
        scratch_(scratch),
        own_budget_(budget_of(scratch.classes.size())),
        budget_(shared_budget != nullptr ? *shared_budget : own_budget_),
        free_steps_(first_limit / pattern.step_cost_) {}

  /// Whether there is a match at or behind `from`; it is in the scratch's data.
  bool find(size_t from) {
    if (pattern_.reads_uncounted_) return find_in_windows(from);
    const int found = pattern_.code_->match(scratch_, from, free_steps_);
    if (found == PCRE2_ERROR_MATCHLIMIT) return find_slowly(from);
    return is_match(found);
  }

 private:
  bool find_slowly(size_t from) {
    for (; from <= scratch_.classes.size(); ++from) {
      uint64_t limit = free_steps_;
      int found = pattern_.anchored_->match(scratch_, from, limit);
      while (found == PCRE2_ERROR_MATCHLIMIT && budget_ >= pattern_.step_cost_) {
        limit = std::min({4 * limit, budget_ / pattern_.step_cost_, most_counted});
        budget_ -= limit * pattern_.step_cost_;
        found = pattern_.anchored_->match(scratch_, from, limit);
      }
      if (is_match(found)) return true;
    }
    return false;
  }

  bool find_in_windows(size_t from) {
    const size_t size = scratch_.classes.size();
    for (; from <= size; ++from) {
      size_t window = first_window;
      uint64_t limit = free_steps_;
      int found = 0;
      while (true) {
        found = pattern_.anchored_->match(scratch_, from, std::min(size, from + window), limit);
        const bool needs_more = found == PCRE2_ERROR_PARTIAL;
        if (!needs_more && found != PCRE2_ERROR_MATCHLIMIT) break;
        if (needs_more)
          window *= 4;
        else
          limit = std::min(4 * limit, most_counted);
        const uint64_t cost = std::min<uint64_t>(window, size - from) * (limit / free_steps_);
        if (cost > budget_) refuse();
        budget_ -= cost;
      }
      if (is_match(found)) return true;
    }
    return false;
  }

  [[noreturn]] void refuse() const {
    throw_error(ErrorCode::limit_exceeded, "{}: the pattern backtracks without end in this text", pattern_.where_);
  }

  [[nodiscard]] bool is_match(int found) const {
    if (found < 0 && found != PCRE2_ERROR_NOMATCH) refuse();
    return found >= 0;
  }

  const Pattern& pattern_;
  const Scratch& scratch_;
  uint64_t own_budget_;
  uint64_t& budget_;     // steps
  uint64_t free_steps_;  // a start
};

Pattern::Pattern(std::string_view regex, std::string_view where) : where_(where) {
  const ParsedPattern parsed = parse_pattern(regex, where);
  std::vector<std::string> set_syntax;
  number_classes(parsed.sets, set_syntax);
  std::string syntax;
  for (const ParsedPattern::Piece& piece : parsed.pieces)
    syntax += piece.set < 0 ? piece.syntax : set_syntax[static_cast<size_t>(piece.set)];

  reads_uncounted_ = reads_uncounted_ || parsed.reads_uncounted;
  step_cost_ = 1 + parsed.reads / cheap_reads;
  code_ = std::make_shared<const Code>(syntax, 0, where_);
  anchored_ = std::make_shared<const Code>(syntax, PCRE2_ANCHORED, where_, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
}

/// Numbers the classes, has them tabulated, and writes each set as a PCRE2 set of classes.
void Pattern::number_classes(const std::vector<CodePointSet>& sets, std::vector<std::string>& set_syntax) {
  // Between two neighbouring bounds of any sets all characters are alike.
  struct Bound {
    uint32_t at;
    uint32_t set;
  };
  std::vector<Bound> bounds;
  for (uint32_t set = 0; set < sets.size(); ++set) {
    for (const CodePointSet::Range& range : sets[set].ranges()) {
      bounds.push_back({range.first, set});
      bounds.push_back({range.last + 1, set});
    }
  }
  std::ranges::sort(bounds, {}, &Bound::at);

  std::vector<bool> inside(sets.size());
  std::map<std::vector<bool>, uint8_t> classes;
  std::vector<Run> runs;
  size_t next = 0;
  for (uint32_t begin = 0; begin < code_point_count;) {
    for (; next < bounds.size() && bounds[next].at == begin; ++next)
      inside[bounds[next].set] = !inside[bounds[next].set];
    const uint32_t end = next < bounds.size() ? bounds[next].at : code_point_count;
    const auto [place, is_new] = classes.emplace(inside, static_cast<uint8_t>(classes.size()));
    if (is_new && classes.size() > 256)
      throw_error(ErrorCode::unsupported_model, "{}: expected at most 256 kinds of characters, got more", where_);
    runs.push_back({begin, place->second});
    begin = end;
  }
  tabulate(runs);

  // PCRE2 makes a letter of a set of one letter, or of one in both cases. Taking a repeat back to where a letter
  // stands, it counts no steps; so such sets also hold a class that no character has.
  constexpr size_t no_class = 255;
  if (classes.size() > no_class) reads_uncounted_ = true;
  for (size_t set = 0; set < sets.size(); ++set) {
    std::vector<size_t> numbers;
    for (const auto& [members, number] : classes)
      if (members[set]) numbers.push_back(number);
    if ((numbers.size() == 1 || numbers.size() == 2) && !reads_uncounted_) numbers.push_back(no_class);
    std::string& syntax = set_syntax.emplace_back();
    for (const size_t number : numbers) syntax += fmt::format("\\x{:02x}", number);
    syntax = numbers.empty() ? "(?!)" : "[" + syntax + "]";
  }
}

void Pattern::tabulate(const std::vector<Run>& runs) {
  std::map<std::string, uint16_t> known;
  std::array<std::optional<uint16_t>, 256> known_of_one_class;
  const auto number_of = [&](const std::string& block) {
    const auto [place, is_new] = known.emplace(block, static_cast<uint16_t>(known.size()));
    if (is_new) blocks_.insert(blocks_.end(), block.begin(), block.end());
    return place->second;
  };
  std::string block(256, '\0');
  size_t run = 0;
  const auto end_of_run = [&] { return run + 1 < runs.size() ? runs[run + 1].begin : code_point_count; };
  for (uint32_t begin = 0; begin < code_point_count; begin += 256) {
    if (end_of_run() <= begin) ++run;
    const uint8_t number = runs[run].class_number;
    if (end_of_run() >= begin + 256) {  // most blocks
      auto& place = known_of_one_class[number];
      if (!place) place = number_of(std::string(256, static_cast<char>(number)));
      block_of_.push_back(*place);
      continue;
    }
    for (uint32_t at = begin; at < begin + 256; ++at) {
      if (end_of_run() <= at) ++run;
      block[at - begin] = static_cast<char>(runs[run].class_number);
    }
    block_of_.push_back(number_of(block));
  }
}

void Pattern::to_classes(std::string_view text, std::vector<uint8_t>& classes) const {
  classes.resize(text.size());
  size_t count = 0;
  const uint8_t* ascii = &blocks_[static_cast<size_t>(block_of_[0]) * 256];
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80) {
      classes[count++] = ascii[byte];
      ++i;
    } else {
      classes[count++] = class_of(next_code_point(text, i));
    }
  }
  classes.resize(count);
}

void Pattern::find_all(std::string_view text, std::vector<Match>& matches) const {
  thread_local Scratch scratch;
  matches.clear();
  to_classes(text, scratch.classes);
  const size_t* bounds = pcre2_get_ovector_pointer_8(scratch.data);
  Search search(*this, scratch);

  // Characters advance together with the bytes that they come from.
  size_t character = 0;
  size_t byte = 0;
  const auto byte_at = [&](size_t target) {
    for (; character < target; ++character) byte += utf8_length(text[byte]);
    return byte;
  };
  size_t from = 0;
  size_t last_end = 0;
  bool any = false;
  while (from <= scratch.classes.size() && search.find(from)) {
    // Oniguruma's iteration: no empty match where the last one ended.
    if (bounds[0] == bounds[1] && any && last_end == bounds[0]) {
      ++from;
      continue;
    }
    const size_t begin = byte_at(bounds[0]);
    matches.push_back({begin, byte_at(bounds[1])});
    from = last_end = bounds[1];
    any = true;
  }
}

}  // namespace oriel::tokenizer
