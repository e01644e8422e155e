#!/usr/bin/env python3
"""tokenize_text against the `tokenizers` package and transformers on random texts, for every kind of tokenizer.

usage: live_tokenizer.py --program PATH [--seed N] [--texts N] [--kinds NAME...]

Texts are drawn from blocks of all of Unicode, words, special tokens, blanks and code; ids are compared with and without
what the post-processor adds and as plain text, then decoded. The directories of tokenizer_class_cases.py are loaded by
transformers' AutoTokenizer too.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "goldens"))
from tokenizer_class_cases import EDITED, RELEASED, Case, write_directory  # noqa: E402

DATA = Path(__file__).resolve().parents[1] / "data" / "tokenizers"
BLOCKS = [
    (0x20, 0x7F), (0x00, 0x20), (0x80, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE80),
    (0x1100, 0x1200), (0x1E00, 0x2070), (0x2070, 0x2E00), (0x3000, 0x3100), (0x4E00, 0x5000), (0xA640, 0xAB70),
    (0xAC00, 0xAD00), (0xE000, 0xE010), (0xFB00, 0xFFFE), (0x10000, 0x12000), (0x16D00, 0x17000), (0x1D100, 0x1D200),
    (0x1DF00, 0x1E200), (0x1F000, 0x1FB00), (0xE0000, 0xE0200), (0, 0x110000),
]  # fmt: skip
PIECES = """the picture What's DON'T they'll <s> </s> <|im_start|> <|im_end|> <bos> <unk> [IMG] [INST] <mask> word lower \u2581
<start_of_image> e\u0301 \u212b int x=1; // \u4f60\u597d 12345 \u0663 \U0001F468\u200d\U0001F469 <0x41> \u00e9 ' "s""".split()
BLANKS = [" ", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", " " * 9, "\n" * 7]


def random_text(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.randint(0, 25)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(PIECES))
        elif kind < 0.65:
            parts.append(rng.choice(BLANKS))
        else:
            low, high = rng.choice(BLOCKS)
            characters = (chr(rng.randrange(low, high)) for _ in range(rng.randint(1, 6)))
            parts.append("".join(c for c in characters if not 0xD800 <= ord(c) < 0xE000))
    return "".join(parts)


class Program:
    def __init__(self, executable: Path):
        self._executable = executable

    def __call__(self, directory: Path, values: list, *options: str) -> list:
        # Escaped and raw lines take turns.
        lines = "".join(json.dumps(value, ensure_ascii=i % 2 == 0) + "\n" for i, value in enumerate(values))
        command = [str(self._executable), "--model", str(directory), *options]
        done = subprocess.run(command, input=lines.encode(), capture_output=True, timeout=300)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.decode()}")
        return [json.loads(line) for line in done.stdout.decode().split("\n") if line]


class Differences:
    def __init__(self) -> None:
        self.compared = self.found = 0

    def compare(self, what: str, inputs: list, got: list, expected: list) -> None:
        if len(got) != len(expected):
            raise SystemExit(f"{what}: expected {len(expected)} lines, got {len(got)}")
        for given, mine, theirs in zip(inputs, got, expected):
            self.compared += 1
            if mine != theirs:
                self.found += 1
                if self.found <= 10:
                    print(f"{what}: {ascii(given)}\n  expected {ascii(theirs)}\n  got      {ascii(mine)}")


def compare_kind(program: Program, kind: str, texts: list[str], differences: Differences) -> None:
    directory = DATA / kind
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    differences.compare(f"{kind}, ids", texts, program(directory, texts, "--no-special-tokens"), ids)
    decoded = [tokenizer.decode(row, skip_special_tokens=False) for row in ids]
    differences.compare(f"{kind}, decoded", ids, program(directory, ids, "--decode"), decoded)
    skipped = [tokenizer.decode(row) for row in ids]
    differences.compare(f"{kind}, skipped", ids, program(directory, ids, "--decode", "--no-special-tokens"), skipped)
    tokenizer.encode_special_tokens = True
    plain = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    differences.compare(f"{kind}, plain", texts, program(directory, texts, "--plain", "--no-special-tokens"), plain)


def compare_class(program: Program, case: Case, texts: list[str], differences: Differences) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        write_directory(case, DATA, directory)
        tokenizer = AutoTokenizer.from_pretrained(directory)
        name = f"{type(tokenizer).__name__}, {case}"
        differences.compare(name, texts, program(directory, texts), [tokenizer(text).input_ids for text in texts])
        plain = [tokenizer(text, split_special_tokens=True).input_ids for text in texts]
        differences.compare(f"{name}, plain", texts, program(directory, texts, "--plain"), plain)
        ids = [tokenizer(text).input_ids for text in texts]
        decoded = [tokenizer.decode(row) for row in ids]
        differences.compare(f"{name}, decoded", ids, program(directory, ids, "--decode"), decoded)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--kinds", nargs="+", default=sorted(path.name for path in DATA.iterdir() if path.is_dir()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)

    program, differences = Program(arguments.program), Differences()
    for kind in arguments.kinds:
        rng = random.Random(f"{arguments.seed} {kind}")
        texts = [random_text(rng) for _ in range(arguments.texts)]
        compare_kind(program, kind, texts, differences)
        for case in RELEASED + EDITED:
            if case.kind == kind:
                compare_class(program, case, texts[: arguments.texts // 8], differences)
        print(f"{kind}: {differences.compared} compared, {differences.found} differences so far", flush=True)
    return 1 if differences.found else 0


if __name__ == "__main__":
    sys.exit(main())
