#!/usr/bin/env python3
"""Writes tests/data/tokenizers/classes.json: ids and texts of transformers' AutoTokenizer in directories of many kinds.

usage: make_tokenizer_class_goldens.py [FILE]

For each case of tokenizer_class_cases.py its directory's files and "edits" (see there), and for each of "texts" the ids,
the ids with no special token recognised, and the ids decoded again.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile

from tokenizer_class_cases import EDITED, RELEASED, write_directory
from transformers import AutoTokenizer

DATA = pathlib.Path(__file__).parents[1] / "data/tokenizers"
# Composed and not, blanks in all places, digits, special tokens, a mark behind a letter, what no vocabulary has.
TEXTS = [
    "", "a", " the picture", "e\u0301 e\u0323\u0302 \u212b", "What's  this?\n\n It's 12345 x", "the picture the  word \u2581x",
    "<|im_start|>user\nthe<|im_end|> <|image_pad|>a", "a b<eos> c<bos> <start_of_image>", "</s> a b<s>c [IMG]",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0915\u094d\u0937", "\U0001F468\u200d\U0001F469 \u4f60\u597d", " lower\tword  \r\n ", "<unk><pad>",
]  # fmt: skip


def rows(case) -> list[list]:
    with tempfile.TemporaryDirectory() as scratch:
        write_directory(case, DATA, pathlib.Path(scratch))
        tokenizer = AutoTokenizer.from_pretrained(scratch)
    ids = [tokenizer(text).input_ids for text in TEXTS]
    plain = [tokenizer(text, split_special_tokens=True).input_ids for text in TEXTS]
    return [[*row, tokenizer.decode(row[0])] for row in zip(ids, plain)]


def main() -> None:
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "classes.json"
    cases = []
    for case in RELEASED + EDITED:
        fields = {key: value for key, value in case._asdict().items() if value is not None}
        cases.append(json.dumps({**fields, "rows": rows(case)}, separators=(",", ":")))
    target.write_text('{"texts":' + json.dumps(TEXTS) + ',\n"cases":[\n' + ",\n".join(cases) + "\n]}\n")


if __name__ == "__main__":
    main()
