// Templates against what Jinja itself makes of them (tests/goldens/make_template_goldens.py), and where text comes
// from.
#include "jinja/template.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/expect_error.hpp"
#include "jinja/json_value.hpp"

namespace oriel::jinja {
namespace {

Text render(const std::string& source, const Json& variables) {
  return Template::parse(source, "t.jinja").render([&](Run& run) {
    Template::Variables values;
    for (const auto& [name, value] : variables.members()) values.emplace_back(name, value_of(run, value));
    return values;
  });
}

Text render(const std::string& source, const std::string& variables = "{}") {
  return render(source, Json::parse(variables, "variables"));
}

TEST(Template, WritesWhatJinjaWrites) {
  const Json document = Json::read(ORIEL_TEST_DATA "/jinja/cases.json");
  int compared = 0;
  for (const Json& test_case : document["cases"].elements()) {
    const std::string source = test_case["template"].string();
    SCOPED_TRACE(source);
    const Json expected = test_case["expected"];
    try {
      const Text written = render(source, document["variables"]);
      if (expected.is_null())
        ADD_FAILURE() << "expected an error, but it writes: " << written.bytes();
      else
        EXPECT_EQ(written.bytes(), expected.string());
    } catch (const Error& error) {
      if (!expected.is_null()) ADD_FAILURE() << "expected: " << expected.string() << "\nbut: " << error.what();
      EXPECT_NE(error.code(), ErrorCode::internal);
    }
    ++compared;
  }
  EXPECT_GT(compared, 250);
}

/// The foreign runs in brackets.
std::string marked(const Text& text) {
  std::string out;
  for (const Text::Run& run : text.runs()) out += fmt::format(fmt::runtime(run.foreign ? "[{}]" : "{}"), run.bytes);
  return out;
}

constexpr const char* words = R"({"a": " one <s> ", "b": "two", "l": [{"k": "x"}, {"k": "y"}]})";

TEST(Template, KnowsWhatOfItsTextIsForeign) {
  EXPECT_EQ(marked(render("<s>{{ a }}</s>", words)), "<s>[ one <s> ]</s>");
  EXPECT_EQ(marked(render("{{ '<s>' ~ a | trim ~ '</s>' + b }}", words)), "<s>[one <s>]</s>[two]");
  EXPECT_EQ(marked(render("{{ (a + '<s>' + b)[4:12] }}", words)), "[ <s> ]<s>");
  EXPECT_EQ(marked(render("{{ a.replace('<s>', '|') }}", words)), "[ one ]|[ ]");
  EXPECT_EQ(marked(render("{{ a.split('<')[1] }}", words)), "[s> ]");
  EXPECT_EQ(marked(render("{{ l | map(attribute='k') | join('+') }}", words)), "[x]+[y]");
  EXPECT_EQ(marked(render("{{ ('i' ~ b) | upper }}", words)), "I[TWO]");
  EXPECT_EQ(marked(render("{% set x %}<{{ b }}>{% endset %}{{ x }}", words)), "<[two]>");
  EXPECT_EQ(marked(render("{% macro m(t) %}<{{ t }}>{% endmacro %}{{ m(b) | trim }}", words)), "<[two]>");
  EXPECT_EQ(marked(render("{% for c in b %}{{ c }}.{% endfor %}", words)), "[t].[w].[o].");
}

TEST(Template, TextThatIsEscapedIsForeignAsAWhole) {
  EXPECT_EQ(marked(render("{{ l | tojson }}", words)), R"([[{"k": "x"}, {"k": "y"}]])");
  EXPECT_EQ(marked(render("{{ [1, 'a'] }}", words)), "[1, 'a']");
  EXPECT_EQ(marked(render("{{ ['a', b] }}", words)), "[['a', 'two']]");
}

TEST(Template, RaisesInItsOwnWords) {
  expect_error(ErrorCode::invalid_argument, "t.jinja: line 2: the template refuses the messages: roles  must alternate",
               [] { (void)render("\n{{ raise_exception('roles\\n must ' ~ 'alternate') }}"); });
}

TEST(Template, NamesTheLineOfAMistake) {
  const auto malformed = [](const std::string& source, const std::string& message) {
    expect_error(ErrorCode::malformed_model, "t.jinja: " + message, [&] { (void)render(source, words); });
  };
  malformed("{{ a }}\n{% if b %}\n", "line 2: expected endif, found the end of the template");
  malformed("{{ a b }}", "line 1: expected \"}}\", found \"b\"");
  malformed("\n\n{{ 'x }}", "line 3: expected the end of a text, found none");
  malformed("\n{{ c.d }}", "line 2: c is undefined");
  malformed("{{ l[7].k }}", "line 1: item 7 of a list of 2 is undefined");
  malformed("{{ b + 1 }}", "line 1: expected numbers, strs or lists around +, got str and int");
  malformed("{% break %}", "line 1: expected break inside of a loop");
  malformed("{{ 1 // 0 }}", "line 1: division by zero");
  malformed("\xFF", "expected UTF-8");
}

TEST(Template, NamesWhatItDoesNotRun) {
  const auto unsupported = [](const std::string& source, const std::string& message) {
    expect_error(ErrorCode::unsupported_model, "t.jinja: line 1: " + message, [&] { (void)render(source, words); });
  };
  unsupported("{% include 'x' %}", "the statement include is not supported");
  unsupported("{% for x in l recursive %}{% endfor %}", "recursive loops are not supported");
  unsupported("{{ b | wordwrap }}", "filter wordwrap is not supported");
  unsupported("{{ b is upper }}", "test upper is not supported");
  unsupported("{{ l.append(1) }}", "method append of a list is not supported");
  unsupported("{{ b.format(1) }}", "method format of a str is not supported");
  unsupported("{{ 2 ** 70 }}", "powers (**) are not supported");
  unsupported("{{ {b: 2} }}", "keys of dicts that a message says are not supported");
  unsupported("{{ {1: 2} }}", "keys of dicts other than texts are not supported, got int");
  unsupported("{{ '\u00e9' | upper }}", "upper and lower case of letters beyond ASCII are not supported");
  unsupported("{% for x in l %}{% macro m() %}{% endmacro %}{% endfor %}",
              "a macro inside of a loop or another body is not supported");
  unsupported("{{ [namespace()] }}", "a namespace inside another value is not supported");
}

}  // namespace
}  // namespace oriel::jinja
