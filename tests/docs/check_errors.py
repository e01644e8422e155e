"""docs/errors.md has a section for every ErrorCode, in order, with examples that throw it and advice:
check_errors.py ROOT [DOCUMENT]"""

import sys
from pathlib import Path

from documents import read_document
from headers import read_headers

# A defect can't be provoked, or it would have been mended.
WITHOUT_EXAMPLE = {"internal"}
ADVICE = "**What to do.**"


def main() -> None:
    root = Path(sys.argv[1])
    document = Path(sys.argv[2]) if len(sys.argv) > 2 else root / "docs" / "errors.md"
    complaints = check_errors(root, document)
    if complaints:
        sys.exit("\n".join(f"docs/errors.md: {complaint}" for complaint in complaints))


def check_errors(root: Path, path: Path) -> list[str]:
    codes = read_headers(root / "include" / "oriel").enums["ErrorCode"]
    texts = {}
    for part in path.read_text().split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        texts[title.strip()] = text
    listed = [title for title in texts if title in codes]
    complaints = []
    if listed != codes:
        complaints.append(f"expected a section for each of {codes}, found {listed}")
    complaints += [f"{code}: expected a paragraph that begins with {ADVICE}" for code in listed
                   if ADVICE not in texts[code]]
    examples = {section.title: [block for block in section.blocks if block.kind == "throws"]
                for section in read_document(path).sections}
    for code in listed:
        own = examples.get(code, [])
        if not own and code not in WITHOUT_EXAMPLE:
            complaints.append(f"{code}: expected an example that throws it, found none")
        complaints += [f"{code}: the example in line {block.line} throws {block.code}" for block in own
                       if block.code != code]
        complaints += [f"{code}: the example in line {block.line} shows no message" for block in own
                       if not block.output]
    return complaints


if __name__ == "__main__":
    main()
