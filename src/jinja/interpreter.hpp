#pragma once
// Runs what parse made. evaluate.cpp holds expressions, render.cpp statements.
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/functions.hpp"
#include "jinja/syntax.hpp"

namespace oriel::jinja {

/// The variables of a body, inside those of the body around it.
class Scope {
 public:
  explicit Scope(const Scope* around = nullptr) : around_(around) {}
  void set(const std::string& name, Value value) { values_[name] = std::move(value); }
  /// nullptr if there is no such variable here or around.
  [[nodiscard]] const Value* find(std::string_view name) const;

 private:
  const Scope* around_;
  std::map<std::string, Value, std::less<>> values_;
};

class Interpreter {
 public:
  explicit Interpreter(Run& run) : run_(run) {}

  /// Writes a template's body to the end of `out`; `top` is seen by its macros.
  void render(const std::vector<Statement>& body, Scope& top, Text& out);

 private:
  enum class Flow { on, leave, next };
  Flow render_body(const std::vector<Statement>& body, Scope& scope, Text& out);
  Flow render_statement(const Statement& statement, Scope& scope, Text& out);
  Flow render_branch(const Statement& statement, Scope& scope, Text& out);
  Flow render_loop(const Statement& statement, Scope& scope, Text& out);
  void assign(const Statement& statement, Scope& scope);
  void assign_in_namespace(const Statement& statement, Scope& scope);
  void bind(const std::vector<std::string>& targets, const Value& value, Scope& scope);
  void print(const Value& value, Text& out);
  [[nodiscard]] Value call_macro(const Function& function, Arguments arguments);

  [[nodiscard]] Value evaluate(const Expression& expression, Scope& scope);
  [[nodiscard]] Value evaluate_node(const Expression& expression, Scope& scope);
  [[nodiscard]] Value evaluate_variable(const std::string& name, const Scope& scope) const;
  [[nodiscard]] Value evaluate_dict(const Expression& expression, Scope& scope);
  [[nodiscard]] Value evaluate_slice(const Expression& expression, Scope& scope);
  [[nodiscard]] Value evaluate_call(const Expression& expression, Scope& scope);
  [[nodiscard]] Value evaluate_concatenation(const Expression& expression, Scope& scope);
  [[nodiscard]] Value evaluate_comparison(const Expression& expression, Scope& scope);
  [[nodiscard]] std::vector<Value> evaluate_children(const Expression& expression, Scope& scope, size_t first);
  [[nodiscard]] Arguments evaluate_arguments(const Expression& expression, Scope& scope);

  Run& run_;
  Scope* top_ = nullptr;
};

}  // namespace oriel::jinja
