// Templates that mean harm: each ends in an Error, and soon.
#include <gtest/gtest.h>

#include "core/expect_error.hpp"
#include "jinja/template.hpp"

namespace oriel::jinja {
namespace {

std::string render(const std::string& source) {
  return Template::parse(source, "t.jinja").render([](Run&) { return Template::Variables(); }).bytes();
}

std::string repeated(const std::string& text, size_t count) {
  std::string all;
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}

void expect_limit(const std::string& source, const std::string& message) {
  SCOPED_TRACE(source.substr(0, 100));
  expect_error(ErrorCode::limit_exceeded, "t.jinja: " + message, [&] { (void)render(source); });
}

constexpr const char* too_long = "line 1: expected a template that ends within 4000000 steps";
constexpr const char* too_much = "line 1: expected a template that builds at most 256 MiB";
constexpr const char* too_deep = "line 1: expected at most 200 levels of nesting";
constexpr const char* too_nested = "line 1: expected at most 100 expressions inside each other";

TEST(TemplateLimits, NestingInTheSource) {
  const std::pair<const char*, const char*> brackets[] = {
      {"(", ")"}, {"[", "]"}, {"{'a':", "}"}, {"a[", "]"}, {"f(", ")"}, {"not ", ""}, {"-", ""}, {"x if y else ", ""}};
  for (const auto& [open, close] : brackets)
    expect_limit("{{ " + repeated(open, 50000) + "1" + repeated(close, 50000) + " }}", too_deep);
  expect_limit(repeated("{% if a %}", 100000), too_deep);
  expect_limit(repeated("{% for a in b %}", 50000), too_deep);
  expect_limit("{% if a %}" + repeated("{% elif a %}", 80000), too_deep);
  expect_limit(repeated("{% set a %}", 90000), too_deep);
}

TEST(TemplateLimits, ChainsThatNestToTheLeft) {
  for (const char* link : {"+1", "|trim", ".a", "[0]", "()", " and 1", " or 1", "*1", " if 1 else 1"}) {
    const std::string source = "{{ 1" + repeated(link, 50000) + " }}";
    SCOPED_TRACE(link);
    const bool nests_right = std::string(link) == " if 1 else 1";
    expect_limit(source, nests_right ? too_deep : too_nested);
  }
}

TEST(TemplateLimits, ChainsThatDoNotNestAreFine) {
  EXPECT_EQ(render("{{ 1" + repeated("~1", 50000) + " }}").size(), 50001U);
  EXPECT_EQ(render("{{ 1" + repeated(" == 1", 50000) + " }}"), "True");
  EXPECT_EQ(render("{{ ''" + repeated(" 'a'", 50000) + " }}").size(), 50000U);
}

TEST(TemplateLimits, MacrosThatCallThemselves) {
  expect_limit("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", too_deep);
  expect_limit("{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}", too_deep);
  expect_limit("{% macro m(x=m()) %}{% endmacro %}{{ m() }}", too_deep);
}

TEST(TemplateLimits, LoopsWithoutEnd) {
  expect_limit("{% for x in range(1000000000) %}{% endfor %}", too_much);
  expect_limit("{{ range(0, 9223372036854775807, 1) | length }}", too_much);
  expect_limit("{% set r = range(3000) %}{% for x in r %}{% for y in r %}{% endfor %}{% endfor %}", too_long);
  std::string source = "x";
  for (int i = 0; i < 20; ++i) source = "{% for a in range(10) %}" + source + "{% endfor %}";
  expect_limit(source, too_long);
}

TEST(TemplateLimits, TextsWithoutEnd) {
  expect_limit("{{ 'abc' * 1000000000 }}", too_much);
  expect_limit("{{ 'abc' * 9223372036854775807 }}", too_much);
  expect_limit("{{ ('abc' * 1000000) * 1000000 }}", too_much);
  expect_limit("{% set n = namespace(s='abcdefgh') %}{% for x in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
               too_much);
  expect_limit("{% for x in range(1000) %}{{ 'x' * 1000000 }}{% endfor %}", too_much);
  expect_limit("{{ ('a' * 10000) | replace('a', 'b' * 100000) | length }}", too_much);
  expect_limit("{{ range(100000) | join('x' * 100000) | length }}", too_much);
  expect_limit("{% set s = 'a' * 9000000 %}{{ s | list | length }}", too_much);
  expect_limit("{% set n = namespace(s=[1]) %}{% for x in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}", too_much);
}

TEST(TemplateLimits, WorkThatIsQuadratic) {
  expect_limit("{% set s = 'a' * 1000000 %}{{ (s ~ s) in (s * 4 ~ 'b') }}{{ (s ~ 'b') in (s * 9) }}", too_much);
  expect_limit("{% set s = 'a' * 1000000 %}{% for x in range(1000000) %}{% if s[999999] %}{% endif %}{% endfor %}",
               too_much);
  expect_limit("{% set s = range(20000) | list %}{% for x in s %}{% if x in s %}{% endif %}{% endfor %}", too_long);
}

TEST(TemplateLimits, ListsThatAreGoneThroughAgainAndAgain) {
  const std::string loop =
      "{% set r = range(100000) | list %}{% set l = r | map(attribute='x') | list %}{% for x in range(100000) %}";
  expect_limit(loop + "{{ l | select('defined') | length }}{% endfor %}", too_long);
  expect_limit(loop + "{{ r | selectattr('y') | length }}{% endfor %}", too_long);
  expect_limit(loop + "{{ l | join }}{% endfor %}", too_long);
  expect_limit(
      "{% set n = namespace(s=('b',)) %}"
      "{% for x in range(17) %}{% set n.s = n.s + n.s %}{% endfor %}"
      "{% for x in range(1000000) %}{% if ''.startswith(n.s) %}{% endif %}{% endfor %}",
      too_long);
}

TEST(TemplateLimits, KeysThatAreLongAndAlike) {
  std::string source = "{% set s = 'a' * 1000000 %}{% set k = s ~ 'z' %}{% set d = {";
  for (char c = 'a'; c < 'k'; ++c) source += std::string("s ~ '") + c + "': 1, ";
  expect_limit(source + "} %}{% for x in range(1000000) %}{% if k in d %}{% endif %}{% endfor %}", too_much);
}

Template::Variables one_of_a_message(Run&) { return {{"a", Value(Text("m", /*foreign=*/true))}}; }

TEST(TemplateLimits, StretchesOfAMessage) {
  const auto expect_much = [](const std::string& source) {
    SCOPED_TRACE(source);
    expect_error(ErrorCode::limit_exceeded, std::string("t.jinja: ") + too_much,
                 [&] { (void)Template::parse(source, "t.jinja").render(one_of_a_message); });
  };
  expect_much("{{ ((a ~ 'x') * 3000000) | length }}");
  const std::string million = "{% set s = (a ~ 'x') * 1000000 %}";
  for (const char* copy :
       {"{{ s }}{{ s }}", "{% set t = s ~ s %}", "{% set t = s + s %}", "{% set t = s[1:] ~ '' %}",
        "{% set t = s | trim | trim %}", "{% set t = s | upper %}", "{% set t = s.split('y')[0].split('y') %}",
        "{% set t = s.rsplit('y')[0].rsplit('y') %}", "{% set t = s.split()[0].split() %}",
        "{% set t = 'bb' | replace('b', s) %}", "{% set t = ['', '', ''] | join(s) %}"})
    expect_much(million + copy);
}

TEST(TemplateLimits, ValuesInsideEachOther) {
  expect_limit("{% set n = namespace(v=1) %}{% for x in range(100000) %}{% set n.v = [n.v] %}{% endfor %}",
               "line 1: expected at most 50 lists and dicts inside each other");
  expect_limit("{% set n = namespace(v=1) %}{% for x in range(100000) %}{% set n.v = {'a': n.v} %}{% endfor %}",
               "line 1: expected at most 50 lists and dicts inside each other");
  // A value of 2^40 parts, all of them one list.
  expect_limit("{% set n = namespace(v=1) %}{% for x in range(40) %}{% set n.v = [n.v, n.v] %}{% endfor %}{{ n.v }}",
               too_long);
  expect_limit(
      "{% set n = namespace(v=1, w=1) %}{% for x in range(40) %}{% set n.v = [n.v, n.v] %}"
      "{% set n.w = [n.w, n.w] %}{% endfor %}{{ n.v == n.w }}",
      too_long);
}

TEST(TemplateLimits, Numbers) {
  const std::string overflow = "line 1: expected numbers of 64 bits";
  expect_limit("{{ 9223372036854775807 + 1 }}", overflow);
  expect_limit("{{ 9223372036854775807 * 2 }}", overflow);
  expect_limit("{{ (-9223372036854775807 - 1) // -1 }}", overflow);
  expect_limit("{{ -(-9223372036854775807 - 1) }}", overflow);
  EXPECT_EQ(render("{{ (-9223372036854775807 - 1) % -1 }}"), "0");
  EXPECT_EQ(render("{{ 'abc'[-9223372036854775807 - 1:9223372036854775807] }}"), "abc");
  EXPECT_EQ(render("{{ 'abc'[::9223372036854775807] }}{{ 'abc'[::-9223372036854775807] }}"), "ac");
  EXPECT_EQ(render("{{ 'abc'[9223372036854775807] }}{{ [1][-9223372036854775807] }}"), "");
  EXPECT_EQ(render("{{ range(9223372036854775806, 9223372036854775807, 5) | list }}"), "[9223372036854775806]");
}

TEST(TemplateLimits, Dates) {
  EXPECT_EQ(render("{{ strftime_now('%Y') }}").size(), 4U);
  expect_limit("{{ strftime_now('%c' * 1000) }}",
               "line 1: strftime_now: expected a format of at most 200 bytes, got 2000");
}

TEST(TemplateLimits, SizeOfTheSource) {
  EXPECT_EQ(render(std::string(Template::most_source_bytes, 'a')).size(), Template::most_source_bytes);
  expect_limit(std::string(Template::most_source_bytes + 1, 'a'),
               "expected a template of at most 1048576 bytes, got 1048577");
}

TEST(TemplateLimits, UnfinishedSources) {
  // Every beginning of a template with all there is in it parses or is refused.
  const std::string whole =
      "{# c #}{% raw %}{{ {% endraw %}{%- set a, b = (1, [2.5, {'k': 'v\\n\\x41\\u00e9'}]) -%}\n{% macro m(x, y=1) %}"
      "{% for i in range(3) if i is not odd %}{{ loop.index ~ x[1:][::-1] | default('d', true) }}{% continue %}"
      "{% else %}{% endfor %}{% endmacro %}{% if a == 1 and not b or m('abc') in 'x' %}{{ -a if b else +a }}"
      "{% elif a.b[0].c() %}{% else %}{% set n %}x{% endset %}{% endif %}{% generation %}{% endgeneration %}";
  for (size_t size = 0; size <= whole.size(); ++size) {
    try {
      (void)render(whole.substr(0, size));
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::malformed_model || error.code() == ErrorCode::unsupported_model)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace oriel::jinja
