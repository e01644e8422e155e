"""Byte pair encodings with the structure, regexes and special tokens of the released tokenizers, learned from a corpus.

The merges are learned by code of this file, whose ties are settled, so that the same corpus gives the same file.
"""

from __future__ import annotations

import collections
import json
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPECIALS = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
).split()
TEKKEN_SPECIALS = (
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] "
    "[IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]"
).split()
TEKKEN_SPECIAL_COUNT = 1000
SPACE = "\u2581"
GEMMA_IMAGE_TOKENS = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
UNLIMITED = 1000000000000000019884624838656


@dataclass(frozen=True)
class FamilyTokenizer:
    tokenizer: Tokenizer
    config: dict  # tokenizer_config.json

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    def id(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        assert found is not None, token
        return found

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def save(self, directory) -> None:
        parsed = json.loads(self.tokenizer.to_str())
        text = json.dumps(parsed, ensure_ascii=False, separators=(",", ":"))
        (directory / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
        (directory / "tokenizer_config.json").write_text(json.dumps(self.config, indent=2) + "\n")


def learn_merges(words: collections.Counter[tuple[str, ...]], limit: int) -> list[tuple[str, str]]:
    """The most frequent pair, again and again, until every word is one piece or there are `limit` merges."""
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: collections.Counter[tuple[str, str]] = collections.Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        joined: collections.Counter[tuple[str, ...]] = collections.Counter()
        for word, count in words.items():
            out, i = [], 0
            while i < len(word):
                both = i + 1 < len(word) and word[i : i + 2] == best
                out.append(word[i] + word[i + 1] if both else word[i])
                i += 2 if both else 1
            joined[tuple(out)] += count
        words = joined
    return merges


def _byte_level(corpus: list[str], first_specials: list[str], last_specials: list[str], split: str, **bpe) -> Tokenizer:
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words = collections.Counter(tuple(piece) for line in corpus for piece, _ in splitter.pre_tokenize_str(line))
    merges = learn_merges(words, 600)
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces += sorted({a + b for a, b in merges} - set(pieces), key=[a + b for a, b in merges].index)
    vocab = {piece: i for i, piece in enumerate(first_specials + pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, **bpe))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in first_specials + last_specials])
    return tokenizer


def _bos_in_front(tokenizer: Tokenizer, bos: str) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


def qwen_tokenizer(corpus: list[str]) -> FamilyTokenizer:
    """Byte pieces first, special tokens behind them, no bos."""
    tokenizer = _byte_level(corpus, [], QWEN_SPECIALS, QWEN_SPLIT)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    config = {
        "add_prefix_space": False,
        "additional_special_tokens": QWEN_SPECIALS[1:],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "processor_class": "Qwen2VLProcessor",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    return FamilyTokenizer(tokenizer, config)


def tekken_tokenizer(corpus: list[str]) -> FamilyTokenizer:
    """A thousand special tokens first, then byte pieces; a piece of the vocabulary is taken whole."""
    unused = [f"<SPECIAL_{i}>" for i in range(len(TEKKEN_SPECIALS), TEKKEN_SPECIAL_COUNT)]
    tokenizer = _byte_level(corpus, TEKKEN_SPECIALS + unused, [], TEKKEN_SPLIT, ignore_merges=True)
    _bos_in_front(tokenizer, "<s>")
    config = {
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "model_max_length": UNLIMITED,
        "pad_token": "<pad>",
        "processor_class": "PixtralProcessor",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
    }
    return FamilyTokenizer(tokenizer, config)


def _gemma_words(line: str) -> list[str]:
    """Runs of letters with the blank before them; every other character alone, so that no merge crosses a word."""
    words: list[str] = []
    for letter in line.replace(" ", SPACE):
        joins = words and letter.isalpha() and (words[-1][-1].isalpha() or words[-1] == SPACE)
        words[-1:] = [words[-1] + letter] if joins else words[-1:] + [letter]
    return words


def gemma_tokenizer(corpus: list[str]) -> FamilyTokenizer:
    """Characters with bytes as a fallback; runs of blanks are added tokens; <image_soft_token> stands last."""
    words = collections.Counter(tuple(word) for line in corpus for word in _gemma_words(line))
    merges = learn_merges(words, 600)
    letters = sorted({letter for word in words for letter in word} | {SPACE} | {chr(code) for code in range(33, 127)})
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]", *(f"<unused{i}>" for i in range(99))]
    turns = ["<start_of_turn>", "<end_of_turn>"]
    newlines = ["\n" * n for n in range(1, 32)]
    blanks = [SPACE * n for n in range(2, 32)]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + letters
    pieces += sorted({a + b for a, b in merges} - set(pieces), key=[a + b for a, b in merges].index)
    vocab = {piece: i for i, piece in enumerate(first + turns + newlines + blanks + pieces)}
    # The runs are made by merges too, as in the released file, where they are added tokens all the same.
    runs = [(run[:-1], run[-1]) for run in newlines[1:] + blanks]
    bpe = models.BPE(vocab=vocab, merges=runs + merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in first[:5]])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in first[5:]])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in turns])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in newlines + blanks])
    images = list(GEMMA_IMAGE_TOKENS.values())
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in images])
    _bos_in_front(tokenizer, "<bos>")
    config = {
        **GEMMA_IMAGE_TOKENS,
        "bos_token": "<bos>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<eos>",
        "extra_special_tokens": GEMMA_IMAGE_TOKENS,
        "mask_token": "<mask>",
        "model_max_length": UNLIMITED,
        "pad_token": "<pad>",
        "processor_class": "Gemma3Processor",
        "spaces_between_special_tokens": False,
        "tokenizer_class": "GemmaTokenizer",
        "unk_token": "<unk>",
    }
    return FamilyTokenizer(tokenizer, config)
