"""Runs a document's programs and compares what they print: run_snippets.py PROGRAM ROOT NAME [--update]

Every section runs in a process and an empty folder of its own, in which only assets/ can be seen. --update writes what
was printed into the document instead: look at the difference before you commit it.
"""

import argparse
import difflib
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from documents import Block, Section, read_document

# One section shows what happens when memory runs out; more address space than this is never needed.
ADDRESS_SPACE = 1 << 38


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("name", help="of the document, such as docs/tutorial.md")
    parser.add_argument("--update", action="store_true")
    arguments = parser.parse_args()
    path = arguments.root / arguments.name
    if arguments.update:
        update(arguments.program, arguments.root, arguments.name, path)
        return
    complaints = check_document(arguments.program, arguments.root, arguments.name, path)
    if complaints:
        sys.exit("\n".join(complaints))


def check_document(program: Path, root: Path, name: str, path: Path, only: str = "") -> list[str]:
    """What is wrong with the document at `path`, whose programs were compiled under `name`; `only` in one section."""
    complaints = []
    for section in read_document(path).sections:
        if only not in ("", section.title):
            continue
        printed, failure = run_section(program, root, name, section)
        complaints += [describe(name, block, printed.get(block.line, "")) for block in section.blocks
                       if not block.accepts(printed.get(block.line, ""))]
        if failure:
            complaints.append(f"{name}:{section.line}: {section.title}: {failure}")
    return complaints


def run_section(program: Path, root: Path, name: str, section: Section) -> tuple[dict[int, str], str]:
    """What each block printed, by line; and why the program failed, if it did."""
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(root.resolve() / "assets", Path(folder) / "assets")
        result = subprocess.run(
            [str(program.resolve()), name, section.title], cwd=folder, timeout=300, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            # Messages about devices must not depend on the machine.
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "LC_ALL": "C"},
            preexec_fn=limit_addresses)
    pieces = re.split(r"\x1e(\d+)\n", result.stdout.decode(errors="replace"))
    printed = {int(line): text.rstrip("\n") for line, text in zip(pieces[1::2], pieces[2::2])}
    runs = [block.line for block in section.blocks if block.kind in ("", "throws")]
    if result.returncode != 0:
        return printed, f"exit status {result.returncode}\n{pieces[-1]}"
    if list(printed) != runs:
        return printed, f"expected the blocks of lines {runs} to run, got {list(printed)}"
    return printed, f"printed before its first block: {pieces[0]}" if pieces[0] else ""


def limit_addresses() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY or most > ADDRESS_SPACE:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, most))


def describe(name: str, block: Block, printed: str) -> str:
    place = f"{name}:{block.output_line or block.line}"
    if block.any_line:
        return f"{place}: expected one of\n{block.output}\ngot\n{printed}"
    difference = difflib.unified_diff(block.output.splitlines(), printed.splitlines(), "in the document", "printed",
                                      lineterm="")
    return f"{place}: the block prints something else\n" + "\n".join(difference)


def update(program: Path, root: Path, name: str, path: Path) -> None:
    lines = path.read_text().splitlines()
    document = read_document(path)
    for section in reversed(document.sections):
        printed, failure = run_section(program, root, name, section)
        if failure:
            sys.exit(f"{name}:{section.line}: {section.title}: {failure}")
        for block in reversed(section.blocks):
            text = printed.get(block.line, "")
            if block.accepts(text):
                continue
            if block.output_line:
                begin = block.output_line - 1
                lines[begin:begin + len(block.output.splitlines())] = text.splitlines()
            else:
                end = block.line - 1 + len(block.text.splitlines()) + 1
                lines[end:end] = ["```text output", *text.splitlines(), "```"]
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
