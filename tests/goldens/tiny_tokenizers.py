"""Tokenizers of a few hundred tokens, built like the released ones: same kind of model, same special tokens.

A tokenizer here is (tokenizer.json, tokenizer_config.json, ids of the special tokens that config.json names).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

# What the merges are learned from. Any text does; it only has to be the same every time.
_CORPUS = [
    "What is in this picture? Describe the image in one sentence.",
    "The picture shows a man in front of a flag, and the image is an old portrait.",
    "Two images: the first is the temple, the second one is the flower. Which is larger?",
    "Answer in a few words. There is an apple on the table and the cat is in the box.",
]

_PIXTRAL_SPECIALS = (
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] "
    "[IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]"
).split()
_QWEN_SPECIALS = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
).split()
_GEMMA_FIRST = "<pad> <eos> <bos> <unk> <mask> <start_of_turn> <end_of_turn> <start_of_image> <end_of_image>".split()

_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class TinyTokenizer:
    tokenizer: Tokenizer
    config: dict  # tokenizer_config.json
    ids: dict[str, int]  # special token -> id

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    def save(self, directory) -> None:
        # Without indentation: the file is a large part of a tiny checkpoint.
        parsed = json.loads(self.tokenizer.to_str())
        (directory / "tokenizer.json").write_text(json.dumps(parsed, ensure_ascii=False, separators=(",", ":")) + "\n")
        (directory / "tokenizer_config.json").write_text(json.dumps(self.config, indent=2) + "\n")


def _merges(words: list[tuple[str, ...]], count: int) -> list[tuple[str, str]]:
    """Byte pair encoding: the `count` most frequent pairs, one after the other; ties go to the smaller pair."""
    merges = []
    for _ in range(count):
        pairs: dict[tuple[str, str], int] = {}
        for word in words:
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        joined = []
        for word in words:
            out, i = [], 0
            while i < len(word):
                both = i + 1 < len(word) and (word[i], word[i + 1]) == best
                out.append(word[i] + word[i + 1] if both else word[i])
                i += 2 if both else 1
            joined.append(tuple(out))
        words = joined
    return merges


def _byte_level(first_specials: list[str], last_specials: list[str], split: str, merge_count: int) -> Tokenizer:
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words = [tuple(piece) for line in _CORPUS for piece, _ in splitter.pre_tokenize_str(line)]
    merges = _merges(words, merge_count)
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + [a + b for a, b in merges]
    vocab = {piece: i for i, piece in enumerate(first_specials + pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in first_specials + last_specials])
    return tokenizer


def _ids(tokenizer: Tokenizer, specials: list[str]) -> dict[str, int]:
    return {token: tokenizer.token_to_id(token) for token in specials}


def pixtral_tokenizer() -> TinyTokenizer:
    """Tekken's shape: the special tokens stand in front, [IMG] is 10, [IMG_BREAK] 12, [IMG_END] 13."""
    tokenizer = _byte_level(_PIXTRAL_SPECIALS, [], _TEKKEN_SPLIT, 40)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1000000000000000019884624838656,
        "processor_class": "PixtralProcessor",
    }
    return TinyTokenizer(tokenizer, config, _ids(tokenizer, _PIXTRAL_SPECIALS))


def qwen_tokenizer(processor_class: str) -> TinyTokenizer:
    """Qwen2's shape: byte pieces first, the special tokens added behind them."""
    tokenizer = _byte_level([], _QWEN_SPECIALS, _QWEN_SPLIT, 40)
    tokenizer.normalizer = normalizers.NFC()
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "additional_special_tokens": _QWEN_SPECIALS[1:],
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": 32768,
        "processor_class": processor_class,
    }
    return TinyTokenizer(tokenizer, config, _ids(tokenizer, _QWEN_SPECIALS))


def gemma_tokenizer() -> TinyTokenizer:
    """Gemma's shape: pieces with U+2581 for a space, bytes as a fallback, <image_soft_token> behind everything."""
    words = [tuple(word) for line in _CORPUS for word in line.replace(" ", " \u2581").split(" ")]
    merges = _merges(words, 30)
    letters = sorted({letter for word in words for letter in word})
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + ["\n", "\n\n"] + letters + [a + b for a, b in merges]
    vocab = {piece: i for i, piece in enumerate(_GEMMA_FIRST + pieces)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab, merges=[("\n", "\n"), *merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    specials = [*_GEMMA_FIRST, "<image_soft_token>"]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in specials])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    image_tokens = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    config = {
        "tokenizer_class": "GemmaTokenizer",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
        **image_tokens,
        "extra_special_tokens": image_tokens,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1000000000000000019884624838656,
        "processor_class": "Gemma3Processor",
    }
    return TinyTokenizer(tokenizer, config, _ids(tokenizer, specials))
