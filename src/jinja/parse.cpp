// Statements: what stands in {% %}, and the text around it.
#include <initializer_list>

#include "jinja/parse_expression.hpp"
#include "jinja/syntax.hpp"

namespace oriel::jinja {
namespace {

using Kind = Statement::Kind;

class Parser {
 public:
  Parser(std::vector<Token> tokens, Run& run) : tokens_(std::move(tokens), run), run_(run) {}

  std::vector<Statement> parse() {
    std::vector<Statement> body = parse_body({});
    if (tokens_.here().kind != Token::Kind::end) tokens_.fail_here("a statement");
    return body;
  }

 private:
  Statement make(Kind kind) const {
    Statement statement;
    statement.kind = kind;
    statement.line = run_.line;
    return statement;
  }

  /// Statements up to one of the words `ends`, which is taken, in front of what follows it; or to the template's end.
  std::vector<Statement> parse_body(std::initializer_list<std::string_view> ends) {
    const Run::Level level(run_);
    std::vector<Statement> body;
    for (;;) {
      const Token token = tokens_.take();
      if (token.kind == Token::Kind::end) {
        if (ends.size() > 0) tokens_.fail_here(*(ends.end() - 1));
        return body;
      }
      if (token.kind == Token::Kind::data) {
        body.push_back(make(Kind::data));
        body.back().text = Text(token.text);
      } else if (token.kind == Token::Kind::print_begin) {
        body.push_back(make(Kind::print));
        body.back().expression = tokens_.parse_tuple();
        expect_end(Token::Kind::print_end, "\"}}\"");
      } else {
        for (const std::string_view end : ends)
          if (tokens_.take_name(end)) {
            ended_by_ = end;
            return body;
          }
        body.push_back(parse_statement());
      }
    }
  }

  void expect_end(Token::Kind kind = Token::Kind::statement_end, std::string_view expected = "\"%}\"") {
    if (tokens_.here().kind != kind) tokens_.fail_here(expected);
    tokens_.take();
  }

  Statement parse_statement() {
    const int line = tokens_.here().line;
    Statement statement = parse_keyword();
    statement.line = line;
    expect_end();
    return statement;
  }

  Statement parse_keyword() {
    if (tokens_.take_name("if")) return parse_branch();
    if (tokens_.take_name("for")) return parse_loop();
    if (tokens_.take_name("set")) return parse_assignment();
    if (tokens_.take_name("macro")) return parse_macro();
    if (tokens_.take_name("generation")) return parse_generation();
    if (tokens_.take_name("break")) return parse_jump(Kind::leave);
    if (tokens_.take_name("continue")) return parse_jump(Kind::next);
    for (const std::string_view known : {"call", "filter", "with", "autoescape", "block", "extends", "include",
                                         "import", "from", "do", "print", "trans"})
      if (tokens_.is_name(known)) run_.fail(ErrorCode::unsupported_model, "the statement {} is not supported", known);
    tokens_.fail_here("a statement");
  }

  Statement parse_branch() {
    Statement branch = make(Kind::branch);
    branch.expression = tokens_.parse_tuple();
    expect_end();
    branch.body = parse_body({"elif", "else", "endif"});
    if (ended_by_ == "elif") {
      const Run::Level level(run_);
      branch.else_body.push_back(parse_branch());
    } else if (ended_by_ == "else") {
      expect_end();
      branch.else_body = parse_body({"endif"});
    }
    return branch;
  }

  std::vector<std::string> parse_targets() {
    const bool bracket = tokens_.take_sign("(");
    std::vector<std::string> targets{tokens_.expect_name()};
    while (tokens_.take_sign(",")) targets.push_back(tokens_.expect_name());
    if (bracket) tokens_.expect_sign(")");
    return targets;
  }

  Statement parse_loop() {
    Statement loop = make(Kind::loop);
    loop.targets = parse_targets();
    if (!tokens_.take_name("in")) tokens_.fail_here("\"in\"");
    loop.expression = tokens_.parse_tuple(/*choices=*/false);
    if (tokens_.take_name("if")) loop.condition = tokens_.parse_expression();
    if (tokens_.is_name("recursive")) run_.fail(ErrorCode::unsupported_model, "recursive loops are not supported");
    expect_end();
    ++loops_;
    loop.body = parse_body({"else", "endfor"});
    --loops_;
    if (ended_by_ == "else") {
      expect_end();
      loop.else_body = parse_body({"endfor"});
    }
    return loop;
  }

  Statement parse_jump(Kind kind) {
    if (loops_ == 0)
      run_.fail(ErrorCode::malformed_model, "expected {} inside of a loop", kind == Kind::leave ? "break" : "continue");
    return make(kind);
  }

  Statement parse_assignment() {
    Statement assignment = make(Kind::assign);
    assignment.targets = parse_targets();
    if (tokens_.take_sign(".")) {
      assignment.kind = Kind::assign_in;
      assignment.targets.push_back(tokens_.expect_name());
    }
    if (tokens_.take_sign("=")) {
      assignment.expression = tokens_.parse_tuple();
    } else {
      if (assignment.kind != Kind::assign || assignment.targets.size() != 1) tokens_.fail_here("\"=\"");
      if (tokens_.is_sign("|")) run_.fail(ErrorCode::unsupported_model, "a filter on a set block is not supported");
      assignment.kind = Kind::assign_body;
      expect_end();
      assignment.body = parse_inner_body("endset");
    }
    return assignment;
  }

  /// Defined at the top of the template only, so that what a macro sees outside of itself always is there.
  Statement parse_macro() {
    if (loops_ > 0 || inner_bodies_ > 0)
      run_.fail(ErrorCode::unsupported_model, "a macro inside of a loop or another body is not supported");
    Statement macro = make(Kind::macro);
    macro.targets = {tokens_.expect_name()};
    tokens_.expect_sign("(");
    while (!tokens_.is_sign(")")) {
      Parameter parameter{tokens_.expect_name(), nullptr};
      if (tokens_.take_sign("=")) parameter.fallback = tokens_.parse_expression();
      macro.parameters.push_back(std::move(parameter));
      if (!tokens_.take_sign(",")) break;
    }
    tokens_.expect_sign(")");
    expect_end();
    macro.body = parse_inner_body("endmacro");
    return macro;
  }

  Statement parse_generation() {
    Statement group = make(Kind::group);
    expect_end();
    group.body = parse_inner_body("endgeneration");
    return group;
  }

  /// A body of its own scope, from which no break or continue leads out.
  std::vector<Statement> parse_inner_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    ++inner_bodies_;
    std::vector<Statement> body = parse_body({end});
    --inner_bodies_;
    loops_ = loops;
    return body;
  }

  ExpressionParser tokens_;
  Run& run_;
  std::string_view ended_by_;
  int loops_ = 0;
  int inner_bodies_ = 0;
};

}  // namespace

std::vector<Statement> parse(std::string_view source, Run& run) {
  std::vector<Token> tokens = tokenize(source, run);
  run.line = 1;
  return Parser(std::move(tokens), run).parse();
}

}  // namespace oriel::jinja
