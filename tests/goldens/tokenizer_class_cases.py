"""Directories in which transformers takes a tokenizer class by name or by the model's type: released ones, and edited.

Qwen2Tokenizer, Qwen3_5Tokenizer, GPT2Tokenizer, GemmaTokenizer and LlamaTokenizer take vocabulary, merges, added tokens
and post-processor of tokenizer.json and build the rest themselves; other classes obey it, and so do some models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

QWEN = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
GEMMA = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>"}
LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
# Every part that the classes build themselves, as no released file has it.
BARE = {"normalizer": None, "pre_tokenizer": None, "decoder": None}
BYTES = {
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
    "model": {"ignore_merges": True},
}
STRICT = {"model": {"fuse_unk": False, "byte_fallback": False}}
IM_END = {"702": {"content": "<|im_end|>", "special": True}}


class Case(NamedTuple):
    kind: str  # a folder of tests/data/tokenizers
    model_type: str
    config: dict  # tokenizer_config.json
    edits: dict = {}  # parts of tokenizer.json; those of "model" go into it
    map: dict | None = None  # special_tokens_map.json


RELEASED = [
    Case("qwen", "qwen2_5_vl", QWEN),
    Case("tekken", "mistral3", {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}),
    Case("tekken", "mistral3", {**LLAMA, "add_bos_token": True, "add_eos_token": True}),
    Case("gemma", "gemma3", GEMMA),
    Case("llama2_prepend", "llava", LLAMA),
    Case("llama2_prepend", "llama", LLAMA),
    Case("llama2_prepend", "llama", {**LLAMA, "legacy": True, "add_bos_token": False}),
    Case("llama2_prepend", "llama", {**LLAMA, "add_prefix_space": False, "add_eos_token": True}),
]
EDITED = [
    Case("qwen", "qwen2_5_vl", QWEN, {"normalizer": None}),
    Case("qwen", "qwen2_vl", {}, BYTES),
    Case("qwen", "qwen2_5_vl", {**QWEN, "add_prefix_space": True}, BYTES),
    Case("qwen", "qwen2_5_vl", {**QWEN, "add_prefix_space": None}, {"post_processor": None}),
    Case("qwen", "qwen2_5_vl", {**QWEN, "added_tokens_decoder": IM_END}),
    Case("qwen", "qwen2_5_vl", {**QWEN, "tokenizer_class": "PreTrainedTokenizerFast"}, BYTES),
    Case("qwen", "qwen2_5_vl", {**QWEN, "tokenizer_class": "Qwen3_5Tokenizer"}),
    Case("qwen", "qwen3_5", {"eos_token": "<|im_end|>"}, {"normalizer": None}),
    Case("qwen", "qwen2_5_vl", {**QWEN, "tokenizer_class": "GPT2TokenizerFast"}),
    Case("gpt2", "qwen2_vl", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, {"normalizer": {"type": "NFC"}}),
    Case("qwen", "mistral3", QWEN, BYTES),
    Case("gemma", "gemma3", {}, {"normalizer": None}),
    Case("gemma", "gemma3", GEMMA, {"normalizer": {"type": "NFC"}, "pre_tokenizer": None}),
    Case("gemma", "gemma3", {**GEMMA, "unk_token": "<pad>"}, {**BARE, **STRICT}),
    Case("gemma", "gemma3", GEMMA, STRICT, map={"unk_token": {"content": "<eos>"}}),
    Case("gemma", "gemma3", {**GEMMA, "unk_token": None}, STRICT),
    Case("gemma", "qwen2_5_vl", {**GEMMA, "tokenizer_class": "GemmaTokenizerFast"}, BARE),
    Case("gemma", "llava", GEMMA, {"normalizer": None}),
    Case("gemma", "gemma3", {**GEMMA, "tokenizer_class": "PreTrainedTokenizerFast"}, {"pre_tokenizer": None}),
    Case("llama2_metaspace", "gemma3", LLAMA, BARE),
]  # fmt: skip


def write_directory(case: Case, data: Path, directory: Path) -> None:
    file = json.loads((data / case.kind / "tokenizer.json").read_bytes())
    for key, value in case.edits.items():
        file[key] = {**file[key], **value} if key == "model" else value
    files = {"tokenizer.json": file, "tokenizer_config.json": case.config, "config.json": {"model_type": case.model_type}}
    if case.map is not None:
        files["special_tokens_map.json"] = case.map
    for name, value in files.items():
        (directory / name).write_text(json.dumps(value))
