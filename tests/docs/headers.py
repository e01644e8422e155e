"""Reads structs and enumerations out of oriel's public headers, as far as the documents need them."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Member:
    type: str
    name: str
    default: str  # as written, without the "="; empty if there is none


@dataclass
class Headers:
    structs: dict[str, list[Member]]
    enums: dict[str, list[str]]  # nested ones as Outer::Inner


MEMBER = re.compile(r"(?P<type>[A-Za-z_][\w:<>, *]*?[\w>*])\s+(?P<name>\w+)\s*(?:=\s*(?P<value>.+)|(?P<braces>\{.*\}))?")


def read_headers(folder: Path) -> Headers:
    headers = Headers({}, {})
    for path in sorted(folder.glob("*.hpp")):
        text = re.sub(r"//[^\n]*", "", path.read_text())
        for match in re.finditer(r"\bstruct\s+(?:ORIEL_API\s+)?(\w+)\s*\{", text):
            headers.structs[match[1]] = members(body_at(text, match.end()), match[1], headers)
        for match in re.finditer(r"^enum class (\w+)[^{;]*\{", text, re.MULTILINE):
            headers.enums[match[1]] = enumerators(body_at(text, match.end()))
    if not headers.structs or not headers.enums:
        raise SystemExit(f"{folder}: found no structs or no enumerations; has the style of the headers changed?")
    return headers


def body_at(text: str, begin: int) -> str:
    """What stands between the brace that ends in front of `begin` and the one that closes it."""
    depth = 1
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place]
    raise SystemExit("a brace in a header is not closed")


def enumerators(body: str) -> list[str]:
    return [entry.split("=")[0].strip() for entry in body.split(",") if entry.strip()]


def members(body: str, struct: str, headers: Headers) -> list[Member]:
    found = []
    for statement in statements(body):
        if match := re.match(r"enum class (\w+)[^{]*\{(.*)\}$", statement):
            headers.enums[f"{struct}::{match[1]}"] = enumerators(match[2])
            continue
        if re.match(r"(\[\[|static\b|friend\b|explicit\b|using\b|struct\b|class\b)", statement):
            continue
        match = MEMBER.fullmatch(statement)
        if not match:
            raise SystemExit(f"{struct}: can't read {statement!r}; has the style of the headers changed?")
        found.append(Member(match["type"], match["name"], (match["value"] or match["braces"] or "").strip()))
    return found


def statements(body: str):
    """The declarations of a struct: up to a semicolon, or up to the end of a function's body."""
    depth, text = 0, ""
    for character in body:
        depth += {"{": 1, "}": -1, "(": 1, ")": -1}.get(character, 0)
        is_end = depth == 0 and (character == ";" or (character == "}" and "(" in text))
        if not is_end:
            text += character
            continue
        text = " ".join(text.split())
        if text and text != ";":
            yield text
        text = ""
