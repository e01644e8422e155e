#pragma once
#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/lexer.hpp"
#include "jinja/syntax.hpp"

namespace oriel::jinja {

/// Reads tokens in order; the expressions among them by Jinja's precedence.
class ExpressionParser {
 public:
  ExpressionParser(std::vector<Token> tokens, Run& run) : tokens_(std::move(tokens)), run_(run) {}

  [[nodiscard]] const Token& here() const { return tokens_[at_]; }
  [[nodiscard]] bool is_sign(std::string_view sign) const;
  [[nodiscard]] bool is_name(std::string_view name) const;
  Token take();
  bool take_sign(std::string_view sign);
  bool take_name(std::string_view name);
  void expect_sign(std::string_view sign);
  std::string expect_name();
  [[noreturn]] void fail_here(std::string_view expected) const;

  /// `choices`: whether `a if b else c` may stand at the top, which a loop's own `if` forbids. A comma makes a tuple.
  ExpressionPointer parse_tuple(bool choices = true);
  ExpressionPointer parse_expression();

 private:
  ExpressionPointer make(Expression::Kind kind, std::string name, std::vector<ExpressionPointer> children);
  template <typename... Children>
  ExpressionPointer make_of(Expression::Kind kind, std::string name, Children... children);

  ExpressionPointer parse_or();
  ExpressionPointer parse_and();
  ExpressionPointer parse_not();
  ExpressionPointer parse_comparison();
  ExpressionPointer parse_sum();
  ExpressionPointer parse_concatenation();
  ExpressionPointer parse_product();
  ExpressionPointer parse_unary(bool filters);
  ExpressionPointer parse_primary();
  ExpressionPointer parse_literal();
  ExpressionPointer parse_list();
  ExpressionPointer parse_dict();
  ExpressionPointer parse_postfix(ExpressionPointer value);
  ExpressionPointer parse_subscript(ExpressionPointer value);
  ExpressionPointer parse_filters(ExpressionPointer value);
  ExpressionPointer parse_test(ExpressionPointer value);
  void parse_arguments(Expression& call);
  [[nodiscard]] bool starts_test_argument() const;

  std::vector<Token> tokens_;
  size_t at_ = 0;
  Run& run_;
};

}  // namespace oriel::jinja
