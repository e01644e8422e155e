#include <algorithm>

#include "core/json.hpp"
#include "jinja/interpreter.hpp"
#include "jinja/template.hpp"
#include "jinja/variables.hpp"

namespace oriel::jinja {

const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->around_)
    if (const auto found = scope->values_.find(name); found != scope->values_.end()) return &found->second;
  return nullptr;
}

void Interpreter::render(const std::vector<Statement>& body, Scope& top, Text& out) {
  top_ = &top;
  (void)render_body(body, top, out);
}

Interpreter::Flow Interpreter::render_body(const std::vector<Statement>& body, Scope& scope, Text& out) {
  const Run::Level level(run_);
  for (const Statement& statement : body)
    if (const Flow flow = render_statement(statement, scope, out); flow != Flow::on) return flow;
  return Flow::on;
}

Interpreter::Flow Interpreter::render_statement(const Statement& statement, Scope& scope, Text& out) {
  using Kind = Statement::Kind;
  run_.line = statement.line;
  run_.take_steps();
  switch (statement.kind) {
    case Kind::data:
      run_.take_bytes(statement.text.size());
      out.append(statement.text);
      return Flow::on;
    case Kind::print:
      print(evaluate(*statement.expression, scope), out);
      return Flow::on;
    case Kind::branch:
      return render_branch(statement, scope, out);
    case Kind::loop:
      return render_loop(statement, scope, out);
    case Kind::assign:
    case Kind::assign_body:
      assign(statement, scope);
      return Flow::on;
    case Kind::assign_in:
      assign_in_namespace(statement, scope);
      return Flow::on;
    case Kind::macro:
      scope.set(statement.targets[0],
                Value(std::make_shared<const Function>(
                    Function{.kind = Function::Kind::macro, .name = statement.targets[0], .macro = &statement})));
      return Flow::on;
    case Kind::group: {
      Scope inner(&scope);
      return render_body(statement.body, inner, out);
    }
    case Kind::leave:
      return Flow::leave;
    case Kind::next:
      return Flow::next;
  }
  return Flow::on;
}

// An elif is a branch in an else: a chain of them is walked here, so that it does not nest.
Interpreter::Flow Interpreter::render_branch(const Statement& statement, Scope& scope, Text& out) {
  const Statement* branch = &statement;
  while (!truthy(evaluate(*branch->expression, scope))) {
    const std::vector<Statement>& others = branch->else_body;
    if (others.size() != 1 || others[0].kind != Statement::Kind::branch) return render_body(others, scope, out);
    branch = &others[0];
    run_.take_steps();
  }
  return render_body(branch->body, scope, out);
}

Interpreter::Flow Interpreter::render_loop(const Statement& statement, Scope& scope, Text& out) {
  ListPointer items = items_of(run_, evaluate(*statement.expression, scope));
  if (statement.condition) {
    std::vector<Value> kept;
    for (const Value& item : items->items) {
      Scope inner(&scope);
      bind(statement.targets, item, inner);
      if (truthy(evaluate(*statement.condition, inner))) kept.push_back(item);
    }
    items = make_list(run_, std::move(kept)).as<ListPointer>();
  }
  if (items->items.empty()) return render_body(statement.else_body, scope, out);
  for (size_t i = 0; i < items->items.size(); ++i) {
    run_.take_steps();
    Scope inner(&scope);
    inner.set("loop", Value(std::make_shared<const Loop>(Loop{items, i})));
    bind(statement.targets, items->items[i], inner);
    if (render_body(statement.body, inner, out) == Flow::leave) break;
  }
  return Flow::on;
}

void Interpreter::assign(const Statement& statement, Scope& scope) {
  if (statement.kind == Statement::Kind::assign)
    return bind(statement.targets, evaluate(*statement.expression, scope), scope);
  Text text;
  Scope inner(&scope);
  (void)render_body(statement.body, inner, text);
  scope.set(statement.targets[0], Value(std::move(text)));
}

void Interpreter::assign_in_namespace(const Statement& statement, Scope& scope) {
  const Value target = evaluate_variable(statement.targets[0], scope);
  if (!target.is<NamespacePointer>())
    run_.fail(ErrorCode::malformed_model, "expected {} to be a namespace, got {}", statement.targets[0],
              type_name(target));
  Value value = evaluate(*statement.expression, scope);
  if (value.is<NamespacePointer>() || value.is<LoopPointer>() || value.is<FunctionPointer>())
    run_.fail(ErrorCode::unsupported_model, "a {} inside another value is not supported", type_name(value));
  target.as<NamespacePointer>()->values[statement.targets[1]] = std::move(value);
}

void Interpreter::bind(const std::vector<std::string>& targets, const Value& value, Scope& scope) {
  if (targets.size() == 1) return scope.set(targets[0], value);
  const ListPointer parts = items_of(run_, value);
  if (parts->items.size() != targets.size())
    run_.fail(ErrorCode::malformed_model, "expected {} values to unpack, got {}", targets.size(), parts->items.size());
  for (size_t i = 0; i < targets.size(); ++i) scope.set(targets[i], parts->items[i]);
}

void Interpreter::print(const Value& value, Text& out) {
  if (const Text* text = value.text()) {
    run_.take_bytes(text->cost());
    return out.append(*text);
  }
  out.append(to_text(run_, value));
}

Value Interpreter::call_macro(const Function& function, Arguments arguments) {
  const Statement& macro = *function.macro;
  if (arguments.values.size() > macro.parameters.size())
    run_.fail(ErrorCode::malformed_model, "macro {}: expected at most {} arguments, got {}", function.name,
              macro.parameters.size(), arguments.values.size());
  const int line = run_.line;
  Scope inner(top_);
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const Parameter& parameter = macro.parameters[i];
    if (i < arguments.values.size())
      inner.set(parameter.name, std::move(arguments.values[i]));
    else
      inner.set(parameter.name,
                parameter.fallback ? evaluate(*parameter.fallback, inner) : Value(Undefined{parameter.name}));
  }
  for (auto& [name, value] : arguments.keywords) {
    if (std::ranges::find(macro.parameters, name, &Parameter::name) == macro.parameters.end())
      run_.fail(ErrorCode::malformed_model, "macro {}: unexpected argument {}", function.name, name);
    inner.set(name, std::move(value));
  }
  Text text;
  (void)render_body(macro.body, inner, text);
  run_.line = line;
  return Value(std::move(text));
}

Template::Template(std::shared_ptr<const std::vector<Statement>> statements, std::shared_ptr<const std::string> name)
    : statements_(std::move(statements)), name_(std::move(name)) {}

Template Template::parse(std::string_view source, std::string name) {
  if (source.size() > most_source_bytes)
    throw_error(ErrorCode::limit_exceeded, "{}: expected a template of at most {} bytes, got {}", name,
                most_source_bytes, source.size());
  if (!is_utf8(source)) throw_error(ErrorCode::malformed_model, "{}: expected UTF-8", name);
  Run run(name);
  auto statements = std::make_shared<const std::vector<Statement>>(jinja::parse(source, run));
  return {std::move(statements), std::make_shared<const std::string>(std::move(name))};
}

std::set<std::string, std::less<>> Template::variables_read() const { return jinja::variables_read(*statements_); }

Text Template::render_with(Run& run, const Variables& variables) const {
  Scope globals;
  for (const auto& [name, value] : variables) globals.set(name, value);
  Scope top(&globals);
  Text out;
  Interpreter(run).render(*statements_, top, out);
  return out;
}

}  // namespace oriel::jinja
