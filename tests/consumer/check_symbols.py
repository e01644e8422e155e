#!/usr/bin/env python3
"""Checks the names that a library shows to whoever links it.

usage: check_symbols.py LIBRARY

liboriel.so: every exported symbol is oriel's and public; and those are there by which exceptions travel.
liboriel.a: every strong symbol is oriel's, so that no name can be defined twice in a program with other libraries.
"""

import pathlib
import re
import subprocess
import sys

# Namespaces below src/ and what stands behind public classes are nobody's business outside.
OF_ORIEL = re.compile(r"((typeinfo|typeinfo name|vtable) for )?oriel::")
INTERNAL = re.compile(OF_ORIEL.pattern + r"((core|image|ops|nn|arch|text|kernels|\(anonymous namespace\))::|\w+::Impl)")
NEEDED = [
    "typeinfo for oriel::Error",
    "typeinfo name for oriel::Error",
    "vtable for oriel::Error",
    "oriel::version()",
    "oriel::to_torch(oriel::Tensor const&)",
    "oriel::from_torch(at::Tensor const&)",
]


def symbols(library, *options):
    """(type, demangled name) of each defined symbol."""
    listing = subprocess.run(
        ["nm", "--demangle", "--defined-only", "--format=posix", *options, library],
        check=True, text=True, stdout=subprocess.PIPE,
    ).stdout  # fmt: skip
    for line in listing.splitlines():
        match = re.fullmatch(r"(.+) ([A-Za-z]) [0-9a-f]+( [0-9a-f]*)?", line)
        if match:
            yield match.group(2), match.group(1)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    library = pathlib.Path(sys.argv[1])
    shared = ".so" in library.name
    if shared:
        shown = [name for _, name in symbols(library, "--dynamic")]
    else:
        shown = [name for kind, name in symbols(library) if kind in "TDBRSG"]
    problems = [f"{name}: not oriel's" for name in shown if not OF_ORIEL.match(name)]
    if shared:
        problems += [f"{name}: exported, but internal" for name in shown if INTERNAL.match(name)]
        problems += [f"{name}: not exported" for name in NEEDED if name not in shown]
    if not any(name.startswith("oriel::VisionTower::load(") for name in shown):
        problems.append("oriel::VisionTower::load: not found; was nothing read?")
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(shown)} symbols, all of them oriel's")


if __name__ == "__main__":
    main()
