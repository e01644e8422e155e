#!/usr/bin/env python3
"""Checks that the layout of the source tree is what docs/architecture.md says.

usage: check_layers.py REPOSITORY

Prints one line a violation, "file:line: what is wrong", and exits with 1 if there is any.
"""

import pathlib
import re
import sys

# A floor may include itself and what stands before it: core <- image <- ops <- nn <- arch <- text <- tower, where tower
# is src/*.cpp and src/*.hpp, the public types. The languages of text files stand on core alone, and serve text and tower.
FLOORS = ["core", "image", "ops", "nn", "arch", "text", "tower"]
LANGUAGES = ["jinja", "tokenizer"]
LANGUAGE_USERS = ["text", "tower"]
LIBTORCH_FREE = ["core", "image", *LANGUAGES]
KERNEL_USERS = ["ops"]

LIBTORCH = re.compile(r"(ATen|c10|torch|cuda|caffe2)(/|[a-z_]*\.h|$)")
STANDARD_HEADER = re.compile(r"[a-z_]+$")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)
MODEL_NAME = re.compile(r"pixtral|qwen|gemma|siglip|mistral|llava", re.IGNORECASE)

# Comments, and string and character literals, which may hold what looks like a comment.
COMMENT_OR_LITERAL = re.compile(
    r"""//[^\n]*|/\*.*?\*/|R"(?P<fence>[^(\s]*)\(.*?\)(?P=fence)"|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])+'""", re.DOTALL
)

SOURCE_SUFFIXES = {".hpp", ".cpp", ".h", ".cu", ".cuh", ".inc"}


def without_comments(text):
    """The code alone; line numbers stay."""

    def blank(match):
        found = match.group()
        return re.sub(r"[^\n]", " ", found) if found.startswith(("//", "/*")) else found

    return COMMENT_OR_LITERAL.sub(blank, text)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def floor_of(relative):
    """The floor of a path below src/: its folder, or tower for a file directly in it."""
    return relative.parts[0] if len(relative.parts) > 1 else "tower"


def includes(code):
    """(line, quote, target) of each include."""
    for match in INCLUDE.finditer(code):
        yield line_of(code, match.start(2)), match.group(1), match.group(2)


def seen_by(floor):
    """The floors whose headers `floor` may include."""
    if floor in LANGUAGES:
        return ["core", floor]
    below = FLOORS[: FLOORS.index(floor) + 1]
    return [*LANGUAGES, *below] if floor in LANGUAGE_USERS else below


def check_source(repository, path, code):
    """Violations of one file below src/."""
    relative = path.relative_to(repository / "src")
    floor = floor_of(relative)
    if floor not in FLOORS + LANGUAGES:
        yield 1, f"src/{floor} is not a floor of the house: {', '.join(FLOORS + LANGUAGES)}"
        return
    for line, _, target in includes(code):
        folder = target.split("/")[0] if "/" in target else None
        is_tower_header = (repository / "src" / target).is_file() and folder is None
        included_floor = "tower" if is_tower_header else folder
        if included_floor in FLOORS + LANGUAGES and included_floor not in seen_by(floor):
            yield line, f"{floor} must not include {target}: it may see {', '.join(seen_by(floor))}"
        if floor in LIBTORCH_FREE and LIBTORCH.match(target):
            yield line, f"{floor} must not include {target}: it knows neither libtorch nor CUDA"
        if pathlib.PurePosixPath(target).name == "kernels.h" and floor not in KERNEL_USERS:
            yield line, f"{floor} must not include {target}: only src/ops calls kernels"
    if floor != "arch":
        yield from check_model_names(code)


def check_model_names(code):
    for match in MODEL_NAME.finditer(code):
        yield line_of(code, match.start()), f"'{match.group()}' is a model's name: only src/arch knows models"


def check_public_header(repository, path, code):
    """Violations of one file below include/: it may include the standard library and other public headers."""
    for line, quote, target in includes(code):
        if quote == "<" and STANDARD_HEADER.match(target):
            continue
        if quote == "<" and target.startswith("oriel/") and (repository / "include" / target).is_file():
            continue
        if path.name == "torch.hpp" and quote == "<" and target.startswith("ATen/"):
            continue
        yield line, f"a public header must not include {target}: only <standard> and <oriel/...> headers"
    yield from check_model_names(code)


def check_kernel(repository, path, code):
    """Violations of one file below kernels/: it builds with the CUDA toolkit alone."""
    for line, _, target in includes(code):
        if re.match(r"(ATen|c10|torch|caffe2)/", target) or target.split("/")[0] in FLOORS + LANGUAGES + ["oriel", "fmt"]:
            yield line, f"a kernel must not include {target}: kernels need the CUDA toolkit alone"


def violations(repository):
    checks = {"src": check_source, "include": check_public_header, "kernels": check_kernel}
    for folder, check in checks.items():
        for path in sorted((repository / folder).rglob("*")):
            if path.suffix not in SOURCE_SUFFIXES:
                continue
            code = without_comments(path.read_text(encoding="utf-8"))
            for line, message in check(repository, path, code):
                yield f"{path.relative_to(repository)}:{line}: {message}"


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    repository = pathlib.Path(sys.argv[1]).resolve()
    if not (repository / "src" / "core").is_dir():
        print(f"{repository}: expected oriel's repository, found no src/core", file=sys.stderr)
        return 2
    found = list(violations(repository))
    print("\n".join(found) if found else "the layout is as docs/architecture.md says")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
