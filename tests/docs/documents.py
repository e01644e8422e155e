"""Reads the C++ blocks of a document, and what it says they print.

A document is a row of sections, one for each "## " heading. A section's blocks, one after the other, are one program;
blocks before the first heading open the program of every section. What follows the language in a fence says what a
block is:

    ```cpp                 statements
    ```cpp file            declarations, at file scope
    ```cpp throws CODE     statements that must throw an oriel::Error of that code; its message is what they print
    ```cpp compile         statements that are compiled and never run
    ```text output         what the block above prints, word for word
    ```text output any     the same, where builds differ: one of these lines

#include lines may stand in any of them. A block without output prints nothing.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

KINDS = ("", "file", "throws", "compile")


class DocumentError(Exception):
    """A document that can't be read; the message says where."""


@dataclass
class Block:
    kind: str
    code: str  # of throws
    line: int  # of the first line of text
    text: str
    output: str = ""
    output_line: int = 0  # of the first line of output; 0 if there is none
    any_line: bool = False

    def accepts(self, printed: str) -> bool:
        if self.any_line:
            return printed in self.output.splitlines()
        return printed == self.output


@dataclass
class Section:
    title: str
    line: int
    blocks: list[Block] = field(default_factory=list)


@dataclass
class Document:
    path: Path
    opening: Section
    sections: list[Section]


def read_document(path: Path) -> Document:
    opening = Section("", 1)
    sections: list[Section] = []
    last: Block | None = None
    for line, kind, content in fences_and_headings(path):
        here = sections[-1] if sections else opening
        if kind == "heading":
            if any(section.title == content for section in sections):
                raise DocumentError(f"{path}:{line}: two sections are named {content!r}")
            sections.append(Section(content, line))
            last = None
        elif kind.split()[:1] == ["cpp"]:
            last = make_block(path, line, kind.split()[1:], content)
            here.blocks.append(last)
        elif kind in ("text output", "text output any"):
            if last is None or last.output_line:
                raise DocumentError(f"{path}:{line}: output without a block of its own above it")
            if not sections or last.kind in ("file", "compile"):
                raise DocumentError(f"{path}:{line}: output of a block that does not run by itself")
            last.output, last.output_line, last.any_line = content, line, kind.endswith("any")
        elif kind.startswith("text output"):
            raise DocumentError(f"{path}:{line - 1}: expected 'text output' or 'text output any', got {kind!r}")
    return Document(path, opening, [section for section in sections if section.blocks])


def make_block(path: Path, line: int, words: list[str], text: str) -> Block:
    kind = words[0] if words else ""
    if kind not in KINDS or len(words) != {"": 0, "throws": 2}.get(kind, 1):
        raise DocumentError(f"{path}:{line - 1}: expected cpp, cpp file, cpp throws CODE or cpp compile, "
                            f"got 'cpp {' '.join(words)}'")
    return Block(kind, words[1] if kind == "throws" else "", line, text)


def fences_and_headings(path: Path):
    """(line, "heading", title) and (first line of the content, info string, content), in order."""
    lines = path.read_text().splitlines()
    number = 0
    while number < len(lines):
        text = lines[number]
        number += 1
        if text.startswith("## "):
            yield number, "heading", text[3:].strip()
        elif text.lstrip().startswith("```"):
            if not text.startswith("```") or text.startswith("````"):
                raise DocumentError(f"{path}:{number}: expected a fence of three backticks without indentation")
            begin = number
            while number < len(lines) and lines[number] != "```":
                number += 1
            if number == len(lines):
                raise DocumentError(f"{path}:{begin}: this block is not closed")
            yield begin + 1, " ".join(text[3:].split()), "\n".join(lines[begin:number])
            number += 1


def tables(path: Path) -> dict[str, list[list[str]]]:
    """The rows of the tables under each "## " heading, without header rows and rules, as cells."""
    found: dict[str, list[list[str]]] = {}
    title = ""
    rows_above = 0
    for line in path.read_text().splitlines():
        if line.startswith("## "):
            title = line[3:].strip()
            found.setdefault(title, [])
        if not line.startswith("|"):
            rows_above = 0
            continue
        rows_above += 1
        if rows_above > 2:
            found.setdefault(title, []).append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found
