#pragma once
// Jinja templates as transformers runs chat templates: trim_blocks, lstrip_blocks, break and continue, an immutable
// sandbox, raise_exception, strftime_now, a tojson that escapes nothing, {% generation %}.
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/value.hpp"

namespace oriel::jinja {

/// A parsed template. Immutable; copies share it. Safe from many threads.
class Template {
 public:
  static constexpr size_t most_source_bytes = 1 << 20;

  /// `name` stands for the file in messages. Throws malformed_model for what does not parse, unsupported_model for what
  /// oriel does not run, limit_exceeded for a template that is too long or nests too deep.
  [[nodiscard]] static Template parse(std::string_view source, std::string name);

  /// Names of all variables that the template reads somewhere, those that it sets itself among them.
  [[nodiscard]] std::set<std::string, std::less<>> variables_read() const;

  using Variables = std::vector<std::pair<std::string, Value>>;
  /// What the template writes. `make_variables` builds its variables, within the limits of the same run. Throws
  /// invalid_argument with the template's own words where it calls raise_exception, malformed_model for mistakes in it,
  /// unsupported_model and limit_exceeded.
  template <typename MakeVariables>
  [[nodiscard]] Text render(MakeVariables&& make_variables) const {
    Run run(*name_);
    const Variables variables = make_variables(run);
    return render_with(run, variables);
  }

 private:
  Template(std::shared_ptr<const std::vector<Statement>> statements, std::shared_ptr<const std::string> name);
  [[nodiscard]] Text render_with(Run& run, const Variables& variables) const;

  std::shared_ptr<const std::vector<Statement>> statements_;
  std::shared_ptr<const std::string> name_;
};

}  // namespace oriel::jinja
