#!/usr/bin/env python3
"""Writes src/tokenizer/unicode_tables.cpp: what tokenizers need to know of Unicode.

usage: python -m pip install unicodedata2==16.0.0 && scripts/make_unicode_tables.py > src/tokenizer/unicode_tables.cpp

Categories are those of Unicode 16, which the `tokenizers` package's regexes use; composition is that of Unicode 9, which
its NFC uses. Decompositions and combining classes never change once they are given, so Unicode 9's are those of Unicode
16 for the characters that Unicode 9 knew. Perl (5.24 or newer) says which those are.
"""

import subprocess
import sys

import unicodedata2 as unicode

CATEGORIES = "Cn Cc Cf Co Cs Ll Lm Lo Lt Lu Mc Me Mn Nd Nl No Pc Pd Pe Pf Pi Po Ps Sc Sk Sm So Zl Zp Zs".split()
HANGUL = range(0xAC00, 0xD7A4)  # composed by arithmetic
PERL = r'for (0..0x10ffff) { print "$_\n" if chr($_) =~ /\p{Present_In: 9.0}/ && ($_ < 0xd800 || $_ > 0xdfff) }'


def runs(values):
    """(first, value) wherever the value changes."""
    last = None
    for code_point, value in enumerate(values):
        if value != last:
            yield code_point, value
        last = value


def rows(entries, per_row):
    for i in range(0, len(entries), per_row):
        yield "    " + " ".join(entries[i : i + per_row])


def table(declaration, entries, per_row):
    return "\n".join([f"const {declaration}[] = {{", *rows(entries, per_row), "};"])


def decomposition(code_point):
    text = unicode.decomposition(chr(code_point))
    return [] if not text or text.startswith("<") else [int(part, 16) for part in text.split()]


def main():
    if unicode.unidata_version != "16.0.0":
        sys.exit(f"expected unicodedata2 of Unicode 16.0.0, found {unicode.unidata_version}")
    known = set(map(int, subprocess.run(["perl", "-e", PERL], capture_output=True, check=True).stdout.split()))
    every = range(0x110000)

    categories = [
        f"0x{code_point << 5 | CATEGORIES.index(category):x},"
        for code_point, category in runs(unicode.category(chr(c)) for c in every)
    ]
    classes = [
        f"{{0x{code_point:x}, {value}}},"
        for code_point, value in runs(unicode.combining(chr(c)) if c in known else 0 for c in every)
    ]
    decompositions = []
    for code_point in every:
        parts = decomposition(code_point)
        if not parts or code_point in HANGUL or code_point not in known:
            continue
        composes = len(parts) == 2 and unicode.normalize("NFC", chr(code_point)) == chr(code_point)
        first, second = (parts + [0])[:2]
        decompositions.append(f"{{0x{code_point:x}, 0x{first:x}, 0x{second:x}, {'true' if composes else 'false'}}},")

    print("// Written by scripts/make_unicode_tables.py.")
    print('#include "tokenizer/unicode_tables.hpp"\n\nnamespace oriel::tokenizer {\nnamespace {\n')
    print("// clang-format off")
    print(table("uint32_t category_run_data", categories, 12))
    print(table("CombiningRun combining_run_data", classes, 8))
    print(table("Decomposition decomposition_data", decompositions, 4))
    print("// clang-format on\n\n}  // namespace\n")
    print("const std::span<const uint32_t> category_runs = category_run_data;")
    print("const std::span<const CombiningRun> combining_runs = combining_run_data;")
    print("const std::span<const Decomposition> decompositions = decomposition_data;\n")
    print("}  // namespace oriel::tokenizer")


if __name__ == "__main__":
    main()
