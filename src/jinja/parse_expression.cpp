#include "jinja/parse_expression.hpp"

#include <algorithm>
#include <array>

namespace oriel::jinja {
namespace {

constexpr int deepest_expression = 100;

using Kind = Expression::Kind;

std::string describe(const Token& token) {
  switch (token.kind) {
    case Token::Kind::end:
      return "the end of the template";
    case Token::Kind::statement_end:
      return "%}";
    case Token::Kind::print_end:
      return "}}";
    case Token::Kind::text:
      return "a text";
    case Token::Kind::integer:
    case Token::Kind::number:
      return "a number";
    case Token::Kind::name:
    case Token::Kind::sign:
      return fmt::format("\"{}\"", token.text);
    default:
      return "text outside of tags";
  }
}

}  // namespace

bool ExpressionParser::is_sign(std::string_view sign) const {
  return here().kind == Token::Kind::sign && here().text == sign;
}

bool ExpressionParser::is_name(std::string_view name) const {
  return here().kind == Token::Kind::name && here().text == name;
}

/// The last token stays, so that there always is one here.
Token ExpressionParser::take() {
  run_.line = here().line;
  return here().kind == Token::Kind::end ? here() : std::move(tokens_[at_++]);
}

bool ExpressionParser::take_sign(std::string_view sign) {
  const bool found = is_sign(sign);
  if (found) take();
  return found;
}

bool ExpressionParser::take_name(std::string_view name) {
  const bool found = is_name(name);
  if (found) take();
  return found;
}

void ExpressionParser::expect_sign(std::string_view sign) {
  if (!take_sign(sign)) fail_here(fmt::format("\"{}\"", sign));
}

std::string ExpressionParser::expect_name() {
  if (here().kind != Token::Kind::name) fail_here("a name");
  return take().text;
}

void ExpressionParser::fail_here(std::string_view expected) const {
  run_.line = here().line;
  run_.fail(ErrorCode::malformed_model, "expected {}, found {}", expected, describe(here()));
}

ExpressionPointer ExpressionParser::make(Kind kind, std::string name, std::vector<ExpressionPointer> children) {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = run_.line;
  expression->name = std::move(name);
  // A chain such as a + b + c nests to the left without the parser noticing, so that depth is counted here.
  for (const ExpressionPointer& child : children)
    if (child) expression->depth = std::max(expression->depth, child->depth + 1);
  expression->children = std::move(children);
  if (expression->depth > deepest_expression)
    run_.fail(ErrorCode::limit_exceeded, "expected at most {} expressions inside each other", deepest_expression);
  return expression;
}

template <typename... Children>
ExpressionPointer ExpressionParser::make_of(Kind kind, std::string name, Children... children) {
  std::vector<ExpressionPointer> all;
  (all.push_back(std::move(children)), ...);
  return make(kind, std::move(name), std::move(all));
}

ExpressionPointer ExpressionParser::parse_tuple(bool choices) {
  const auto parse_one = [&] { return choices ? parse_expression() : parse_or(); };
  ExpressionPointer first = parse_one();
  if (!is_sign(",")) return first;
  std::vector<ExpressionPointer> items;
  items.push_back(std::move(first));
  while (take_sign(",")) {
    const bool ends = here().kind == Token::Kind::statement_end || here().kind == Token::Kind::print_end;
    if (ends || is_sign(")") || is_name("in")) break;
    items.push_back(parse_one());
  }
  return make(Kind::tuple, {}, std::move(items));
}

ExpressionPointer ExpressionParser::parse_expression() {
  const Run::Level level(run_);
  ExpressionPointer value = parse_or();
  while (take_name("if")) {
    ExpressionPointer condition = parse_or();
    ExpressionPointer otherwise = take_name("else") ? parse_expression() : nullptr;
    value = make_of(Kind::choice, {}, std::move(condition), std::move(value), std::move(otherwise));
  }
  return value;
}

ExpressionPointer ExpressionParser::parse_or() {
  ExpressionPointer left = parse_and();
  while (take_name("or")) left = make_of(Kind::any_of, {}, std::move(left), parse_and());
  return left;
}

ExpressionPointer ExpressionParser::parse_and() {
  ExpressionPointer left = parse_not();
  while (take_name("and")) left = make_of(Kind::all_of, {}, std::move(left), parse_not());
  return left;
}

ExpressionPointer ExpressionParser::parse_not() {
  if (!take_name("not")) return parse_comparison();
  const Run::Level level(run_);
  return make_of(Kind::negation, {}, parse_not());
}

ExpressionPointer ExpressionParser::parse_comparison() {
  constexpr std::array<std::string_view, 6> signs = {"==", "!=", "<", "<=", ">", ">="};
  std::vector<ExpressionPointer> children;
  std::vector<std::string> operators;
  children.push_back(parse_sum());
  for (;;) {
    const bool negated = is_name("not") && tokens_[at_ + 1].kind == Token::Kind::name && tokens_[at_ + 1].text == "in";
    if (here().kind == Token::Kind::sign && std::ranges::find(signs, here().text) != signs.end()) {
      operators.push_back(take().text);
    } else if (negated || is_name("in")) {
      if (negated) take();
      take();
      operators.emplace_back(negated ? "not in" : "in");
    } else {
      break;
    }
    children.push_back(parse_sum());
  }
  if (operators.empty()) return std::move(children.front());
  ExpressionPointer comparison = make(Kind::comparison, {}, std::move(children));
  comparison->operators = std::move(operators);
  return comparison;
}

ExpressionPointer ExpressionParser::parse_sum() {
  ExpressionPointer left = parse_concatenation();
  while (is_sign("+") || is_sign("-")) {
    std::string sign = take().text;
    left = make_of(Kind::arithmetic, std::move(sign), std::move(left), parse_concatenation());
  }
  return left;
}

ExpressionPointer ExpressionParser::parse_concatenation() {
  ExpressionPointer first = parse_product();
  if (!is_sign("~")) return first;
  std::vector<ExpressionPointer> parts;
  parts.push_back(std::move(first));
  while (take_sign("~")) parts.push_back(parse_product());
  return make(Kind::concatenate, {}, std::move(parts));
}

ExpressionPointer ExpressionParser::parse_product() {
  ExpressionPointer left = parse_unary(/*filters=*/true);
  while (is_sign("*") || is_sign("/") || is_sign("//") || is_sign("%")) {
    std::string sign = take().text;
    left = make_of(Kind::arithmetic, std::move(sign), std::move(left), parse_unary(/*filters=*/true));
  }
  if (is_sign("**")) run_.fail(ErrorCode::unsupported_model, "powers (**) are not supported");
  return left;
}

ExpressionPointer ExpressionParser::parse_unary(bool filters) {
  const Run::Level level(run_);
  ExpressionPointer value;
  if (take_sign("-"))
    value = make_of(Kind::minus, "-", parse_unary(/*filters=*/false));
  else if (take_sign("+"))
    value = make_of(Kind::minus, "+", parse_unary(/*filters=*/false));
  else
    value = parse_primary();
  value = parse_postfix(std::move(value));
  return filters ? parse_filters(std::move(value)) : std::move(value);
}

ExpressionPointer ExpressionParser::parse_primary() {
  if (is_sign("(")) {
    take();
    if (take_sign(")")) return make(Kind::tuple, {}, {});
    ExpressionPointer value = parse_tuple();
    expect_sign(")");
    return value;
  }
  if (is_sign("[")) return parse_list();
  if (is_sign("{")) return parse_dict();
  return parse_literal();
}

ExpressionPointer ExpressionParser::parse_literal() {
  const auto constant = [&](Value value) {
    ExpressionPointer expression = make(Kind::constant, {}, {});
    expression->value = std::move(value);
    return expression;
  };
  switch (here().kind) {
    case Token::Kind::name: {
      std::string name = take().text;
      if (name == "true" || name == "True") return constant(Value(true));
      if (name == "false" || name == "False") return constant(Value(false));
      if (name == "none" || name == "None") return constant(Value(None{}));
      return make(Kind::variable, std::move(name), {});
    }
    case Token::Kind::text: {
      std::string text;
      while (here().kind == Token::Kind::text) text += take().text;
      return constant(Value(Text(std::move(text))));
    }
    case Token::Kind::integer:
      return constant(Value(take().integer));
    case Token::Kind::number:
      return constant(Value(take().number));
    default:
      fail_here("a value");
  }
}

ExpressionPointer ExpressionParser::parse_list() {
  take();
  std::vector<ExpressionPointer> items;
  while (!is_sign("]")) {
    items.push_back(parse_expression());
    if (!take_sign(",")) break;
  }
  expect_sign("]");
  return make(Kind::list, {}, std::move(items));
}

ExpressionPointer ExpressionParser::parse_dict() {
  take();
  std::vector<ExpressionPointer> entries;
  while (!is_sign("}")) {
    entries.push_back(parse_expression());
    expect_sign(":");
    entries.push_back(parse_expression());
    if (!take_sign(",")) break;
  }
  expect_sign("}");
  return make(Kind::dict, {}, std::move(entries));
}

ExpressionPointer ExpressionParser::parse_postfix(ExpressionPointer value) {
  for (;;) {
    if (take_sign(".")) {
      if (here().kind == Token::Kind::integer) {
        ExpressionPointer index = parse_literal();
        value = make_of(Kind::item, {}, std::move(value), std::move(index));
      } else {
        value = make_of(Kind::attribute, expect_name(), std::move(value));
      }
    } else if (is_sign("[")) {
      value = parse_subscript(std::move(value));
    } else if (is_sign("(")) {
      value = make_of(Kind::call, {}, std::move(value));
      parse_arguments(*value);
    } else {
      return value;
    }
  }
}

ExpressionPointer ExpressionParser::parse_subscript(ExpressionPointer value) {
  take();
  std::vector<ExpressionPointer> bounds;
  const auto parse_bound = [&] { bounds.push_back(is_sign(":") || is_sign("]") ? nullptr : parse_expression()); };
  parse_bound();
  while (bounds.size() < 3 && take_sign(":")) parse_bound();
  if (is_sign(",")) run_.fail(ErrorCode::unsupported_model, "an index of several values is not supported");
  expect_sign("]");
  if (bounds.size() == 1) {
    if (!bounds[0]) fail_here("an index");
    return make_of(Kind::item, {}, std::move(value), std::move(bounds[0]));
  }
  bounds.resize(3);
  return make_of(Kind::slice, {}, std::move(value), std::move(bounds[0]), std::move(bounds[1]), std::move(bounds[2]));
}

ExpressionPointer ExpressionParser::parse_filters(ExpressionPointer value) {
  for (;;) {
    if (take_sign("|")) {
      value = make_of(Kind::filter, expect_name(), std::move(value));
      if (is_sign("(")) parse_arguments(*value);
    } else if (take_name("is")) {
      value = parse_test(std::move(value));
    } else if (is_sign("(")) {
      value = make_of(Kind::call, {}, std::move(value));
      parse_arguments(*value);
    } else {
      return value;
    }
  }
}

ExpressionPointer ExpressionParser::parse_test(ExpressionPointer value) {
  const bool negated = take_name("not");
  ExpressionPointer test = make_of(Kind::test, expect_name(), std::move(value));
  if (is_sign("(")) {
    parse_arguments(*test);
    if (!test->keywords.empty()) run_.fail(ErrorCode::unsupported_model, "keywords of a test are not supported");
  } else if (starts_test_argument()) {
    if (is_name("is")) fail_here("one test");
    ExpressionPointer argument = parse_postfix(parse_primary());
    test->depth = std::max(test->depth, argument->depth + 1);
    test->children.push_back(std::move(argument));
  }
  return negated ? make_of(Kind::negation, {}, std::move(test)) : std::move(test);
}

bool ExpressionParser::starts_test_argument() const {
  switch (here().kind) {
    case Token::Kind::name:
      return !is_name("else") && !is_name("or") && !is_name("and");
    case Token::Kind::text:
    case Token::Kind::integer:
    case Token::Kind::number:
      return true;
    default:
      return is_sign("(") || is_sign("[") || is_sign("{");
  }
}

void ExpressionParser::parse_arguments(Expression& call) {
  take();
  while (!is_sign(")")) {
    if (is_sign("*") || is_sign("**"))
      run_.fail(ErrorCode::unsupported_model, "arguments from a list or dict (*, **) are not supported");
    const Token& next = tokens_[std::min(at_ + 1, tokens_.size() - 1)];
    const bool keyword = here().kind == Token::Kind::name && next.kind == Token::Kind::sign && next.text == "=";
    std::string name = keyword ? take().text : std::string();
    if (keyword) take();
    if (!keyword && !call.keywords.empty()) fail_here("a keyword");
    ExpressionPointer argument = parse_expression();
    call.depth = std::max(call.depth, argument->depth + 1);
    if (keyword)
      call.keywords.emplace_back(std::move(name), std::move(argument));
    else
      call.children.push_back(std::move(argument));
    if (!take_sign(",")) break;
  }
  expect_sign(")");
  if (call.depth > deepest_expression)
    run_.fail(ErrorCode::limit_exceeded, "expected at most {} expressions inside each other", deepest_expression);
}

}  // namespace oriel::jinja
