"""Rules for all pages: C++ stands only where it is compiled, links lead somewhere, no page is longer than 400
lines, no line of C++ wider than 120 characters.
check_documents.py ROOT COMPILED..."""

import re
import sys
from pathlib import Path

from documents import fences_and_headings

LONGEST = 400
WIDEST = 120


def main() -> None:
    root = Path(sys.argv[1])
    complaints = []
    for path in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        complaints += [f"{path.relative_to(root)}: {complaint}" for complaint in check_page(path, sys.argv[2:])]
    if complaints:
        sys.exit("\n".join(complaints))


def check_page(path: Path, compiled: list[str]) -> list[str]:
    complaints = []
    # The README's program is examples/quickstart.cpp, which a lint test compares.
    if path.stem not in compiled and path.name != "README.md":
        complaints += [f"line {line}: C++ of a page that tests/docs does not compile"
                       for line, kind, _ in fences_and_headings(path) if kind.split()[:1] in (["cpp"], ["c++"])]
    complaints += [f"line {line}: this C++ is wider than {WIDEST} characters"
                   for line, kind, content in fences_and_headings(path)
                   if kind.startswith("cpp") and max(map(len, content.splitlines()), default=0) > WIDEST]
    text = path.read_text()
    if len(text.splitlines()) > LONGEST:
        complaints.append(f"expected at most {LONGEST} lines, got {len(text.splitlines())}")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if "://" not in target and not (path.parent / target).exists():
            complaints.append(f"a link to {target}, which does not exist")
    return complaints


if __name__ == "__main__":
    main()
