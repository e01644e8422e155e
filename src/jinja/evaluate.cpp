#include "jinja/interpreter.hpp"

namespace oriel::jinja {

Value Interpreter::evaluate(const Expression& expression, Scope& scope) {
  const Run::Level level(run_);
  run_.take_steps();
  run_.line = expression.line;
  return evaluate_node(expression, scope);
}

Value Interpreter::evaluate_node(const Expression& expression, Scope& scope) {
  using Kind = Expression::Kind;
  const auto child = [&](size_t i) { return evaluate(*expression.children[i], scope); };
  switch (expression.kind) {
    case Kind::constant:
      return expression.value;
    case Kind::variable:
      return evaluate_variable(expression.name, scope);
    case Kind::list:
    case Kind::tuple:
      return make_list(run_, evaluate_children(expression, scope, 0), expression.kind == Kind::tuple);
    case Kind::dict:
      return evaluate_dict(expression, scope);
    case Kind::attribute:
      return attribute_of(run_, child(0), expression.name);
    case Kind::item: {
      const Value container = child(0);
      return item_of(run_, container, child(1));
    }
    case Kind::slice:
      return evaluate_slice(expression, scope);
    case Kind::call:
      return evaluate_call(expression, scope);
    case Kind::filter: {
      const Value value = child(0);
      return apply_filter(run_, expression.name, value, evaluate_arguments(expression, scope));
    }
    case Kind::test: {
      const Value value = child(0);
      return Value(apply_test(run_, expression.name, value, evaluate_children(expression, scope, 1)));
    }
    case Kind::negation:
      return Value(!truthy(child(0)));
    case Kind::minus:
      return calculate(run_, expression.name, Value(int64_t{0}), child(0));
    case Kind::arithmetic: {
      const Value left = child(0);
      return calculate(run_, expression.name, left, child(1));
    }
    case Kind::concatenate:
      return evaluate_concatenation(expression, scope);
    case Kind::comparison:
      return evaluate_comparison(expression, scope);
    case Kind::all_of: {
      Value left = child(0);
      return truthy(left) ? child(1) : left;
    }
    case Kind::any_of: {
      Value left = child(0);
      return truthy(left) ? left : child(1);
    }
    case Kind::choice:
      if (truthy(child(0))) return child(1);
      return expression.children[2] ? child(2) : Value(Undefined{"an if without else"});
  }
  return {};
}

Value Interpreter::evaluate_variable(const std::string& name, const Scope& scope) const {
  if (const Value* value = scope.find(name)) return *value;
  if (is_global(name))
    return Value(std::make_shared<const Function>(Function{.kind = Function::Kind::global, .name = name}));
  return Value(Undefined{name});
}

std::vector<Value> Interpreter::evaluate_children(const Expression& expression, Scope& scope, size_t first) {
  std::vector<Value> values;
  for (size_t i = first; i < expression.children.size(); ++i)
    values.push_back(evaluate(*expression.children[i], scope));
  return values;
}

Arguments Interpreter::evaluate_arguments(const Expression& expression, Scope& scope) {
  Arguments arguments{.values = evaluate_children(expression, scope, 1)};
  for (const auto& [name, value] : expression.keywords) {
    if (arguments.find(arguments.values.size(), name) != nullptr)
      run_.fail(ErrorCode::malformed_model, "argument {} is given twice", name);
    arguments.keywords.emplace_back(name, evaluate(*value, scope));
  }
  return arguments;
}

Value Interpreter::evaluate_dict(const Expression& expression, Scope& scope) {
  std::vector<std::pair<std::string, Value>> entries;
  for (size_t i = 0; i < expression.children.size(); i += 2) {
    const Value key = evaluate(*expression.children[i], scope);
    if (key.text() == nullptr)
      run_.fail(ErrorCode::unsupported_model, "keys of dicts other than texts are not supported, got {}",
                type_name(key));
    // Keys do not remember where they come from, so that a foreign one would come out as the template's own.
    if (key.text()->any_foreign())
      run_.fail(ErrorCode::unsupported_model, "keys of dicts that a message says are not supported");
    run_.take_bytes(key.text()->size());
    entries.emplace_back(key.text()->bytes(), evaluate(*expression.children[i + 1], scope));
  }
  return make_dict(run_, std::move(entries));
}

Value Interpreter::evaluate_slice(const Expression& expression, Scope& scope) {
  const Value container = evaluate(*expression.children[0], scope);
  Value bounds[3];
  const Value* given[3] = {};
  for (size_t i = 0; i < 3; ++i) {
    if (!expression.children[i + 1]) continue;
    bounds[i] = evaluate(*expression.children[i + 1], scope);
    if (!bounds[i].is<None>()) given[i] = &bounds[i];
  }
  return slice_of(run_, container, given[0], given[1], given[2]);
}

Value Interpreter::evaluate_call(const Expression& expression, Scope& scope) {
  const Value callee = evaluate(*expression.children[0], scope);
  Arguments arguments = evaluate_arguments(expression, scope);
  run_.line = expression.line;
  expect_defined(run_, callee);
  if (!callee.is<FunctionPointer>())
    run_.fail(ErrorCode::malformed_model, "expected a function to call, got {}", type_name(callee));
  const Function& function = *callee.as<FunctionPointer>();
  switch (function.kind) {
    case Function::Kind::macro:
      return call_macro(function, std::move(arguments));
    case Function::Kind::global:
      return call_global(run_, function.name, arguments);
    default:
      return call_method(run_, function, arguments);
  }
}

Value Interpreter::evaluate_concatenation(const Expression& expression, Scope& scope) {
  Text text;
  for (const auto& part : expression.children) {
    const Value value = evaluate(*part, scope);
    text.append(to_text(run_, value));
  }
  return Value(std::move(text));
}

Value Interpreter::evaluate_comparison(const Expression& expression, Scope& scope) {
  Value left = evaluate(*expression.children[0], scope);
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = evaluate(*expression.children[i + 1], scope);
    if (!compare(run_, expression.operators[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

}  // namespace oriel::jinja
