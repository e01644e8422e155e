"""What Jinja itself, set up as transformers does, makes of small templates: tests/data/jinja/cases.json.

    python tests/goldens/make_template_goldens.py

Each case is a template over one set of variables, and what it writes; null where Jinja raises.
"""

from __future__ import annotations

import json
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template

VARIABLES = {
    "name": "Anna",
    "text": "  héllo, wörld\u00a0\u3000 ",
    "empty": "",
    "number": 7,
    "negative": -7,
    "half": 0.5,
    "yes": True,
    "nothing": None,
    "list": ["a", "b", "c"],
    "numbers": [3, 1, 2, 0],
    "dict": {"k": "v", "items": [1, "x\n'\""], "n": None, "t": True, "f": 1.5},
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What <b>is</b> it? "}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
    ],
}

EXPRESSIONS = """
1 + 2 * 3 - 4
-7 // 2
-7 % 3
7 / 2
4 / 2
7 % -3
2 * 3 ~ "x" ~ 1.0
half * 4
1 < 2 < 3
1 < 3 < 2
1 == 1.0
true == 1
true + 1
"a" < "b"
"a" + "b" * 3
3 * "ab"
"a" "b" 'c'
'it\\'s \\x41\\u00e9\\n\\101\\q\\\\'
none
true
undefined_thing
undefined_thing is defined
not undefined_thing
undefined_thing == other_undefined
undefined_thing + 1
undefined_thing.x
name.x
name.x.y
dict.k
dict['k']
dict['items']
dict.n
dict.get('k')
dict.get('zz')
dict.get('zz', 3)
dict.keys() | list
dict.values() | list
dict | items | list
dict
list
numbers + [9]
(1, 2)
(1,)
()
[]
{}
{'a': 1, "b": [true, none, 'x']}
{'a': 1, 'b': 2, 'a': 3}
list[0]
list[-1]
list[3]
list[-4]
list[1:]
list[:-1]
list[::-1]
list[::2]
list[5:1]
text[2]
text[-1]
text[2:7]
text[::-1]
text[7:2:-2]
text | length
text | trim
text.strip()
text.lstrip() ~ "|"
text.rstrip() ~ "|"
"xxaxx".strip("x")
"xxaxx" | trim("x")
"a b  c ".split()
"a b  c ".split(" ")
"a,b,c".split(",", 1)
" a b c ".split(none, 1)
"a,b,c".rsplit(",", 1)
"a</think>b".split("</think>")[-1]
"abc".startswith("ab")
"abc".startswith(("x", "a"))
"abc".endswith("bc")
"abcabc".find("c")
"abcabc".find("z")
"abcabc".replace("b", "xx")
"abcabc".replace("b", "xx", 1)
"abcabc" | replace("a", "")
"hello wORLD" | title
"hello wORLD" | capitalize
"hello wORLD" | upper
"hello wORLD".lower()
list | join
list | join(", ")
numbers | join("-")
messages[1].content | map(attribute="type") | join(",")
list | map("upper") | list
numbers | first
numbers | last
empty | first
list | reverse | list
"abc" | reverse
messages | selectattr("role", "equalto", "user") | list | length
messages | selectattr("role", "in", ["user", "system"]) | map(attribute="role") | list
messages | rejectattr("role", "==", "user") | map(attribute="role") | list
numbers | select("odd") | list
numbers | reject("odd") | list
numbers | select | list
undefined_thing | default("d")
empty | default("d")
empty | default("d", true)
nothing | d("x")
nothing | string
nothing ~ ""
undefined_thing ~ "|"
undefined_thing | length
undefined_thing | join
number | string | length
"12" | int
"x" | int
"x" | int(5)
2.9 | int
dict | tojson
dict | tojson(indent=2)
text | tojson
"<&'\\"\\t\\u0001\\u007f" | tojson
list | tojson
[] | tojson(indent=4)
{} | tojson
undefined_thing | tojson
none | tojson
"a" in "abc"
"a" in list
"z" not in list
"k" in dict
1 in numbers
0 in [0]
[0] == [0]
"a" in undefined_thing
1 in "abc"
not 1 in numbers
1 is odd
2 is even
6 is divisibleby 3
6 is divisibleby(4)
name is string
dict is mapping
list is sequence
dict is iterable
number is number
number is integer
true is integer
half is float
true is boolean
true is true
nothing is none
nothing is not none
name is defined and name is not none
name is string and list is not string
list is iterable and list is not mapping
1 is eq 1
name is in ["Anna"]
1 if true else 2
1 if false
"x" if false else "y" if false else "z"
(1 if yes else 2) + 1
true and "x"
false or ""
not true or true
not (true and false)
1 and 0 or 3
range(3) | list
range(1, 10, 4) | list
range(3, 0, -1) | list
namespace(a=1).a
dict(a=1, b=2)
1.5 + 1
1 / 0
1 // 0
"a" + 1
[1] + "a"
name()
name.upper()
messages[0]["role"]
messages[0].role == "system"
messages[1]["content"][1].text
messages[1].content[0] == {"type": "image"}
messages[5].role
list.append(1)
"%"
"{{ }}"
1, 2
-number
- number | string
--number
+number
list.0
"é" < "f"
""".strip("\n").split("\n")

STATEMENTS = [
    "a\n{% if yes %}\nb\n{% endif %}\nc\n",
    "a\n   {% if yes %}   \n  b\n  {%- endif %}\nc\n\n",
    "  {{ name }}\n{{ name }}\n\n",
    "  {{- name -}}  \n x",
    "x  {%+ if yes %}\ny{%+ endif +%}\nz",
    "{# a #}\nb{#- c -#}  d\n  {# e #}\n f",
    "{#-#}x",
    "\t{% set x = 1 %}\t\n\t{{ x }}",
    "a {% if yes %} b {% endif %} c",
    "{{ '{%' }} {{ \"}}\" }} {{ {'a': {'b': 1}}['a']['b'] }}",
    "{% raw %}\n {{ x }} {% endraw %}\ny",
    "a  {%- raw -%}  {{ x }}  {%- endraw -%}  y",
    "a\r\nb\rc\n",
    "a\n\n",
    "{% if number == 1 %}1{% elif number == 7 %}7{% elif yes %}y{% else %}0{% endif %}",
    "{% if not number %}1{% else %}0{% endif %}",
    "{% for x in list %}{{ x }}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}"
    "{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }},{% endfor %}",
    "{% for x in list if x != 'b' %}{{ x }}{{ loop.length }}{% else %}none{% endfor %}",
    "{% for x in [] %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in undefined_thing %}{{ x }}{% else %}none{% endfor %}",
    "{% for k, v in dict.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in dict %}{{ k }};{% endfor %}",
    "{% for c in 'héy' %}{{ c }};{% endfor %}",
    "{% for x in numbers %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 0 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in list %}{% for y in numbers %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }}{% endfor %}{% endfor %}",
    "{% for x in list %}{{ loop.cycle('o', 'e') }}{% endfor %}",
    "{% set x = 1 %}{% for y in list %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
    "{% set ns = namespace(n=0, s='') %}{% for y in list %}{% set ns.n = ns.n + 1 %}{% set ns.s = ns.s ~ y %}{% endfor %}"
    "{{ ns.n }}{{ ns.s }}{{ ns.zz }}",
    "{% if yes %}{% set x = 1 %}{% endif %}{{ x }}",
    "{% set a, b = [1, 2] %}{{ a }}{{ b }}",
    "{% set a = 1, 2 %}{{ a }}",
    "{% set x %}in {{ name }}\n{% endset %}[{{ x }}]{{ x | length }}",
    "{% macro m(a, b='B') %}[{{ a }}{{ b }}{{ name }}]{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}{{ m() }}{{ m(b=1, a=2) }}",
    "{% macro m(n) %}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(5) }}",
    "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}",
    "{% macro m() %}{% set name = 'B' %}{{ name }}{% endmacro %}{{ m() }}{{ name }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}  {{ a }}  {% endmacro %}[{{ m('x') | trim }}]",
    "{% generation %}x{{ name }}{% endgeneration %}\ny",
    "{{ raise_exception('no') }}",
    "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{{ m.role }}:{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' or 'image' in c %}<img>{% elif 'text' in c %}{{ c.text | trim }}{% endif %}{% endfor %}"
    "{% endif %}\n{% endfor %}",
    "{%- for m in messages -%}\n  {%- if (m.role == 'user') != (loop.index0 % 2 == 1) -%}\n"
    "    {{ raise_exception('alternate') }}\n  {%- endif -%}\n  {{ m.role }}\n{%- endfor -%}",
    "{% break %}",
    "{% if %}",
    "{% for x in list %}",
    "{% endif %}",
    "{{ 1",
    "{{ 'a }}",
    "{{ (1] }}",
    "{{ 1 2 }}",
    "{# a",
    "{% foo %}",
    "{% if yes %}{% else %}{% elif yes %}{% endif %}",
    "{{ a is }}",
    "{{ $ }}",
    "{% for x in list recursiv %}{% endfor %}",
    "plain { text } % and # signs }} %}",
    "",
    "\n",
]


def run(template: str) -> str | None:
    try:
        return _compile_jinja_template(template).render(**json.loads(json.dumps(VARIABLES)))
    except Exception:
        return None


def main() -> None:
    templates = ["{{ " + expression + " }}" for expression in EXPRESSIONS] + STATEMENTS
    cases = [{"template": template, "expected": run(template)} for template in templates]
    path = Path(__file__).parents[1] / "data" / "jinja" / "cases.json"
    path.parent.mkdir(exist_ok=True)
    document = {"variables": VARIABLES, "cases": cases}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(cases)} cases, of which {sum(case['expected'] is None for case in cases)} raise")


if __name__ == "__main__":
    main()
