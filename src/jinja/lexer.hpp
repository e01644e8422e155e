#pragma once
// A template's text to tokens, with Jinja's rules about whitespace around tags.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/run.hpp"

namespace oriel::jinja {

struct Token {
  enum class Kind {
    data,
    statement_begin,
    statement_end,
    print_begin,
    print_end,
    name,
    text,
    integer,
    number,
    sign,
    end
  };
  Kind kind = Kind::end;
  std::string text = {};  ///< the data, the name, the text without quotes and escapes, the sign
  int64_t integer = 0;
  double number = 0;
  int line = 1;
};

/// With trim_blocks and lstrip_blocks, as transformers runs templates. `source` must be UTF-8. Throws malformed_model.
[[nodiscard]] std::vector<Token> tokenize(std::string_view source, Run& run);

}  // namespace oriel::jinja
