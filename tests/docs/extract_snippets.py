"""Makes C++ of a document's blocks: extract_snippets.py DOCUMENT NAME OUT.cpp OUT_TORCH.cpp

NAME stands for the document in compiler messages and in the program's arguments. Sections that include
<oriel/torch.hpp> go to the second file, so that the others compile quickly.
"""

import sys
from pathlib import Path

from documents import Block, Document, DocumentError, Section, read_document

TORCH = "#include <oriel/torch.hpp>"


def main() -> None:
    path, name, plain, torch = sys.argv[1:]
    document = read_document(Path(path))
    if not document.sections:
        raise DocumentError(f"{path}: no C++ block was found")
    parts: dict[bool, list[Section]] = {False: [], True: []}
    for section in document.sections:
        parts[any(TORCH in block.text for block in section.blocks)].append(section)
    for out, with_torch in ((plain, False), (torch, True)):
        Path(out).write_text(translation_unit(document, name, parts[with_torch]))


def translation_unit(document: Document, name: str, sections: list[Section]) -> str:
    text = '#include "docs/snippets.hpp"\n'
    if not sections:
        return text
    for block in document.opening.blocks + [block for section in sections for block in section.blocks]:
        for offset, line in enumerate(block.text.splitlines()):
            if line.startswith("#include"):
                text += f'#line {block.line + offset} "{name}"\n{line}\n'
    for section in sections:
        text += program(document, name, section)
    return text


def program(document: Document, name: str, section: Section) -> str:
    scope = f"oriel_docs_line_{section.line}"
    file_blocks = "".join(source(name, block) for block in section.blocks if block.kind == "file")
    opening = "".join(source(name, block) for block in document.opening.blocks)
    body = "".join(statements(name, block) for block in section.blocks if block.kind != "file")
    return (f"namespace {scope} {{\nnamespace {{\n{file_blocks}\nvoid run() {{\n{opening}{body}}}\n"
            f'const docs::Program program("{name}", {quoted(section.title)}, run);\n}}\n}}\n')


def statements(name: str, block: Block) -> str:
    mark = f"docs::begin_block({block.line});\n"
    if block.kind == "throws":
        return f'{mark}docs::expect_error("{block.code}", [&] {{\n{source(name, block)}}});\n'
    if block.kind == "compile":
        return f"if (docs::never()) {{\n{source(name, block)}}}\n"
    return mark + source(name, block)


def source(name: str, block: Block) -> str:
    lines = ["" if line.startswith("#include") else line for line in block.text.splitlines()]
    return f'#line {block.line} "{name}"\n' + "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


if __name__ == "__main__":
    try:
        main()
    except DocumentError as error:
        sys.exit(str(error))
