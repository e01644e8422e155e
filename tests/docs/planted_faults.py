"""The tests of the documents fail where a document is wrong: planted_faults.py PROGRAM ROOT"""

import sys
import tempfile
from pathlib import Path

from check_errors import check_errors
from check_options import check_options
from documents import DocumentError, read_document
from run_snippets import check_document

# Where, what is replaced (its first occurrence), by what, and what the complaint must contain. PRINTED says the document
# and the section in front.
PRINTED = [
    ("tutorial", "One picture", "rows [345, 48] of float32", "rows [345, 49] of float32", "+rows [345, 48] of float32"),
    ("tutorial", "One picture", "```text output\nrows", "```text shown\nrows", "+rows [345, 48] of float32"),
    ("going_further", "Save and load", "```cpp\n#include <array>", "```cpp compile\n#include <array>",
     "expected the blocks of lines"),
    ("errors", "cancelled", "the call was cancelled", "the call was canceled", "+the call was cancelled"),
    ("errors", "unavailable", "device cuda:7: ", "device cuda:8: ", "expected one of"),
]
OPTIONS = [
    ("`0`: as many as the hardware has", "`1`: one", "LoadOptions::threads: expected the default `0`"),
    ("| `threads` | `int`", "| `threads` | `long`", "LoadOptions::threads: expected the type `int`"),
    ("| `max_side` |", "| `max_edge` |", "ImageLimits: expected the members"),
    ("## CacheOptions", "## Caches", "CacheOptions has no section"),
    ("| `pillow12` |", "| `pillow13` |", "ResizeBackend: expected the values"),
    ("| `{}`: no limit | no |", "| `{}`: no limit | yes |", "PreprocessOptions::max_tokens: expected 'no'"),
    ("| `ORIEL_CUDA` | `OFF`", "| `ORIEL_CUDA` | `ON`", "ORIEL_CUDA: expected the default 'OFF'"),
]
ERRORS = [
    ("## file_error", "## file errors", "expected a section for each of"),
    ("**What to do.**", "**Cure.**", "invalid_argument: expected a paragraph that begins with"),
    ("throws cancelled", "throws internal", "cancelled: the example in line"),
    ("```cpp throws cancelled", "```cpp", "cancelled: expected an example that throws it"),
]
UNREADABLE = [
    ("```cpp\nint i;\n", "is not closed"),
    ("## a\n```cpp throw\n```\n", "expected cpp, cpp file"),
    ("## a\n```cpp throws\n```\n", "expected cpp, cpp file"),
    ("## a\n```text output\n```\n", "output without a block"),
    ("## a\n```cpp compile\n```\n```text output\n```\n", "does not run by itself"),
    ("## a\n```cpp\n```\n```text output once\n```\n", "expected 'text output'"),
    ("## a\n```cpp\n```\n## a\n", "two sections"),
    ("## a\n  ```cpp\n  ```\n", "without indentation"),
]


def main() -> None:
    program, root = Path(sys.argv[1]), Path(sys.argv[2])
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "planted.md"

        def plant(document: str, before: str, after: str) -> None:
            text = (root / "docs" / f"{document}.md").read_text()
            if before not in text:
                sys.exit(f"docs/{document}.md has no {before!r} any more; plant the fault elsewhere")
            path.write_text(text.replace(before, after, 1))

        def expect(what: str, complaints: list[str], wanted: str) -> None:
            if not any(wanted in complaint for complaint in complaints):
                missed.append(f"{what}: expected a complaint with {wanted!r}, got {complaints}")

        for document, section, before, after, wanted in PRINTED:
            plant(document, before, after)
            expect(after, check_document(program, root, f"docs/{document}.md", path, section), wanted)
        for before, after, wanted in OPTIONS:
            plant("options", before, after)
            expect(after, check_options(root, path), wanted)
        for before, after, wanted in ERRORS:
            plant("errors", before, after)
            expect(after, check_errors(root, path), wanted)
        for text, wanted in UNREADABLE:
            path.write_text(text)
            try:
                read_document(path)
                expect(text, [], wanted)
            except DocumentError as error:
                expect(text, [str(error)], wanted)
    if missed:
        sys.exit("\n".join(missed))


if __name__ == "__main__":
    main()
