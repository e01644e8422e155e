#include "jinja/variables.hpp"

namespace oriel::jinja {
namespace {

/// Both walks are as deep as the parser allowed (Run::deepest).
class Reader {
 public:
  void read(const std::vector<Statement>& body) {
    for (const Statement& statement : body) {
      read(statement.expression);
      read(statement.condition);
      for (const Parameter& parameter : statement.parameters) read(parameter.fallback);
      read(statement.body);
      read(statement.else_body);
    }
  }

  [[nodiscard]] std::set<std::string, std::less<>> take() { return std::move(names_); }

 private:
  void read(const ExpressionPointer& expression) {
    if (!expression) return;
    if (expression->kind == Expression::Kind::variable) names_.insert(expression->name);
    for (const ExpressionPointer& child : expression->children) read(child);
    for (const auto& [name, value] : expression->keywords) read(value);
  }

  std::set<std::string, std::less<>> names_;
};

}  // namespace

std::set<std::string, std::less<>> variables_read(const std::vector<Statement>& body) {
  Reader reader;
  reader.read(body);
  return reader.take();
}

}  // namespace oriel::jinja
