#pragma once
// What a template is once it is parsed.
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/run.hpp"
#include "jinja/value.hpp"

namespace oriel::jinja {

/// An expression. What `name` and `children` mean goes with the kind.
struct Expression {
  enum class Kind {
    constant,     ///< value
    variable,     ///< name
    list,         ///< children
    tuple,        ///< children
    dict,         ///< children: key, value, key, value ...
    attribute,    ///< child . name
    item,         ///< child [ child ]
    slice,        ///< child [ child : child : child ], the last three may be null
    call,         ///< child ( children, keywords )
    filter,       ///< child | name ( children, keywords )
    test,         ///< child is name ( children )
    negation,     ///< not child
    minus,        ///< - child
    arithmetic,   ///< child name child
    concatenate,  ///< child ~ child ~ ...
    comparison,   ///< child name child; names of a chain in `operators`
    all_of,       ///< child and child
    any_of,       ///< child or child
    choice,       ///< child if child else child; children: condition, then, else (may be null)
  };
  Kind kind = Kind::constant;
  int line = 1;
  int depth = 1;  ///< of expressions inside each other
  std::string name = {};
  Value value = {};
  std::vector<std::string> operators = {};
  std::vector<std::unique_ptr<Expression>> children = {};
  std::vector<std::pair<std::string, std::unique_ptr<Expression>>> keywords = {};
};
using ExpressionPointer = std::unique_ptr<Expression>;

/// A parameter of a macro.
struct Parameter {
  std::string name;
  ExpressionPointer fallback;  ///< may be null
};

/// A statement. What its parts mean goes with the kind.
struct Statement {
  enum class Kind {
    data,         ///< text
    print,        ///< expression
    branch,       ///< if expression body; else_body, which holds the next branch of an elif
    loop,         ///< for targets in expression if condition: body else else_body
    assign,       ///< set targets = expression
    assign_in,    ///< set targets[0].targets[1] = expression
    assign_body,  ///< set targets[0] = what body writes
    macro,        ///< targets[0] (parameters) body
    group,        ///< body
    leave,        ///< break
    next,         ///< continue
  };
  Kind kind = Kind::data;
  int line = 1;
  Text text = {};
  ExpressionPointer expression = {};
  ExpressionPointer condition = {};
  std::vector<std::string> targets = {};
  std::vector<Parameter> parameters = {};
  std::vector<Statement> body = {};
  std::vector<Statement> else_body = {};
};

/// Throws malformed_model for what is no Jinja, unsupported_model for what oriel does not run, limit_exceeded.
[[nodiscard]] std::vector<Statement> parse(std::string_view source, Run& run);

}  // namespace oriel::jinja
