"""docs/options.md lists every member of every struct of options with the type and the default that the headers give it,
and the options of the build: check_options.py ROOT [DOCUMENT]"""

import re
import sys
from pathlib import Path

from documents import tables
from headers import Member, read_headers

IN_KEY = 3  # the column "in the key"


def main() -> None:
    root = Path(sys.argv[1])
    document = Path(sys.argv[2]) if len(sys.argv) > 2 else root / "docs" / "options.md"
    complaints = check_options(root, document)
    if complaints:
        sys.exit("\n".join(f"docs/options.md: {complaint}" for complaint in complaints))


def check_options(root: Path, document: Path) -> list[str]:
    found = tables(document)
    headers = read_headers(root / "include" / "oriel")
    wanted = {name: all_members for name, all_members in headers.structs.items()
              if re.search(r"(Options|Limits|Policy|View)$", name)}
    complaints = []
    for name, all_members in wanted.items():
        complaints += check_struct(name, all_members, found.get(name))
    for name, enumerators in headers.enums.items():
        short = name.split("::")[-1]
        outer = name.split("::")[0]
        used = any(re.search(rf"\b{short}\b", member.type) for struct, all_members in wanted.items()
                   for member in all_members if "::" not in name or struct == outer)
        listed = [plain(row[0]) for row in found.get(name, [])]
        if used and listed != enumerators:
            complaints.append(f"{name}: expected the values {enumerators}, found {listed}")
    return complaints + check_key(root, found) + check_build(root, found.get("Build"))


def check_struct(name: str, expected: list[Member], rows: list[list[str]] | None) -> list[str]:
    if rows is None:
        return [f"{name} has no section"]
    complaints = []
    listed = [plain(row[0]) for row in rows]
    if listed != [member.name for member in expected]:
        complaints.append(f"{name}: expected the members {[member.name for member in expected]}, found {listed}")
    by_name = {member.name: member for member in expected}
    for row in rows:
        member = by_name.get(plain(row[0]))
        if not member:
            continue
        for what, cell, value in (("type", row[1], member.type), ("default", row[2], member.default)):
            if first_code(cell) != value:
                complaints.append(f"{name}::{member.name}: expected the {what} `{value}`, found {cell or 'nothing'}")
        if len(row) != 5 or not all(row[3:]):
            complaints.append(f"{name}::{member.name}: expected five cells, found {row}")
    return complaints


def check_key(root: Path, found: dict[str, list[list[str]]]) -> list[str]:
    """The column says "yes" where EmbeddingCache really hashes an option."""
    source = (root / "src" / "embedding_cache.cpp").read_text()
    body = re.search(r"void add_options\(.*?\n\}", source, re.DOTALL)
    hashed = set(re.findall(r"\boptions\.(\w+)", body[0])) if body else set()
    if not hashed:
        return ["src/embedding_cache.cpp: add_options was not found, so the column of keys can't be compared"]
    complaints = []
    for name in ("EmbedOptions", "PreprocessOptions", "EncodeOptions"):
        for row in found.get(name, []):
            says = row[IN_KEY].split()[0].rstrip(",:;") if len(row) > IN_KEY and row[IN_KEY] else ""
            expected = "yes" if plain(row[0]) in hashed else "no"
            if says != expected:
                complaints.append(f"{name}::{plain(row[0])}: expected {expected!r} as place in the key, found {says!r}")
    return complaints


def check_build(root: Path, rows: list[list[str]] | None) -> list[str]:
    text = (root / "CMakeLists.txt").read_text()
    expected = dict(re.findall(r'^ *option\((\w+) "[^"]*" (\S+)\)', text, re.MULTILINE))
    expected |= {name: value.strip('"') for name, value in
                 re.findall(r'^ *set\((ORIEL_\w+) (\S+) CACHE STRING', text, re.MULTILINE)}
    expected = {name: value.replace("${PROJECT_IS_TOP_LEVEL}", "top level") for name, value in expected.items()}
    listed = {plain(row[0]): plain(row[1]).strip('"') for row in rows or []}
    return [f"Build: {name}: expected the default {expected.get(name, 'of no such option')!r}, "
            f"found {listed.get(name, 'no row')!r}"
            for name in sorted(expected.keys() | listed.keys()) if expected.get(name) != listed.get(name)]


def plain(cell: str) -> str:
    return cell.strip().strip("`")


def first_code(cell: str) -> str:
    """What the backticks say that a cell starts with; nothing if it does not start with any."""
    match = re.match(r"`([^`]*)`", cell)
    return " ".join(match[1].split()) if match else ""


if __name__ == "__main__":
    main()
