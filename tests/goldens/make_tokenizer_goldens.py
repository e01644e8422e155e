#!/usr/bin/env python3
"""Writes tests/data/tokenizers: small tokenizers of every kind, texts, and what the `tokenizers` package makes of them.

usage: make_tokenizer_goldens.py [DIRECTORY]

Each kind is a folder with tokenizer.json (the structure and regexes of released files, a vocabulary of some hundred
tokens trained here) and goldens.json: for each text of texts.json

  ids       without what the post-processor adds
  plain     the same with no special token recognised; null if equal
  offsets   of ids, in bytes: a length where a token begins at the last one's end, else [begin, end]
  decoded   ids as text, special tokens kept; null if equal to the text
  skipped   the same without special tokens; null if equal to decoded

and "prefix" and "suffix", what the post-processor adds. Every run writes the same bytes.
"""

import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = QWEN_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|")
TEKKEN_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = """the picture shows a man in front of flag and image is an old portrait two images first temple second one
flower which larger answer few words there apple on table cat box describe this What It's we've DON'T they'll I'm
Straße über naïve café résumé Ελληνικά κόσμος Привет мир русский язык 你好世界 中文字符 日本語テキスト 한국어 문장 שלום עולם
مرحبا بالعالم नमस्ते दुनिया สวัสดีชาวโลก ქართული հայերեն x=1; return 0; int main() { } <div> </div> 12345 3.14159""".split()
CODE = """#include <vector>\n\nint main(int argc, char** argv) {\n\tstd::vector<int> v(10, 0);\n    return v[0] != 1;  // no\n}\n
def f(x):\r\n    return {k: v**2 for k, v in x.items()}\r\n\r\n\r\n"""
UNICODE_LATER = "\U00010570\U0001DF00\U00016D40\u1C89\uA7CB\uA7DA \U0001E5D0\U00011BC0\U000105C0\u0870\U00011F04 \U00011938\u0300"
COMPOSED = "e\u0301 e\u0323\u0302 A\u030a \u1100\u1161\u11a8 \uac00\u11a8 \u212b \u2126 \ufb1d \u0958 q\u0307\u0323 \u0f73 \u09c7\u09be"
SPECIALS = ["<s>", "</s>", "[INST]", "[IMG]", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<start_of_image>", "<bos>", "<pad>", "<unk>"]


def texts():
    """Fixed texts, then random mixtures of everything."""
    fixed = [
        "", " ", "  ", "a", "\n", "\0", "a\0b", "Hello, world!", " leading", "trailing ", "  two  spaces   three    four ",
        "\t\ttabs\t and\u00a0no-break\u3000ideographic\u2003em \u200b zero \ufeff width \u180e mongolian",
        "line\nline\r\nline\n\n\nline\n\n\n\n\n\n \n  \n x \r\r", " \n", "x  \n", "x \n y", "\n\n x", CODE,
        "It's WE'VE they'LL I'm 'Tis 'S '\u017f '\u017fx don't o'clock 'reality", "123 4567 89012345 \u0663\u0664\u0665 \u2167 \u00bd x\u00b2 \u3007",
        "\U0001F468\u200d\U0001F469\u200d\U0001F467\u200d\U0001F466 \U0001F1E9\U0001F1EA \u2764\ufe0f \U0001F44D\U0001F3FD \U0001FAE8!",
        "\x01\x02\x1b[31m\x7f\x80\x85\x9f \x1c\x1d\x1e\x1f end", "\u0378\U000E0080\U0010FFFF\uE000\uFFFE unassigned",
        UNICODE_LATER, COMPOSED, "a" + "\u0301\u0323\u0300\u0327" * 30, "\u1112\u1161\u11ab" * 10, "o\u0308\u0323\u0304 \u00f6\u0323",
        "\u0915\u094d\u0937\u093f \u0e01\u0e33 \u0627\u0644\u0644\u0651\u064e\u0647\u0650", "DžǅʰˈªºǈCamelCaseHTTPServer iPhone mRNA ΑΒΓαβγ",
        "a" * 300, "ab" * 200, "\u4f60" * 120, " " * 70, "\n" * 40, "\t" * 33, "=" * 90, "!?" * 40 + "\r\n/", "-" * 5 + "/\n//" * 5,
        "".join(SPECIALS), " ".join(SPECIALS), "a<s>b </s> c[INST]d", "<s><s>\n<s> \n x</s", "<|im_start|>user\nWhat?<|im_end|>\n",
        "<|im_start|<|im_start|>|> <<s>> [[IMG]] <start_of_image><start_of_image>\n\n\n", "[IMG [IMG]IMG] <S> <|IM_START|>",
        "x <mask> y<mask>z  <mask>\t\n<mask>", "word xword words word's _word word_ (word) \u00e9word word\u200d", "Lower lower LOWER lowerlower",
        "\u2581\u2581 a\u2581b \u2581", "<0x41><0xE4><0x0A>", "\u2028\u2029\u0085 x\u2028\u2028\n", "x" + "\u0300" * 5 + "\u0345" * 5,
    ]
    rng = random.Random(20)
    pieces = [*WORDS, *SPECIALS, " ", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", "   ", ".", ",", "!", "'s", "'", "\"", "(", ")", "1", "42", "\0",
              "\u0301", "\U0001F600", "\u200d", "\u00ad", "<mask>", "word", "\u2581", "\U0001DF00", "\ud7a3", "\u11a8"]
    mixed = ["".join(rng.choice(pieces) for _ in range(rng.randint(1, 40))) for _ in range(70)]
    anything = [
        "".join(chr(c) for c in (rng.randrange(0x110000) if rng.random() < 0.3 else rng.randrange(0x3000) for _ in range(20)) if not 0xD800 <= c < 0xE000)
        for _ in range(40)
    ]
    return fixed + mixed + anything


def training_texts():
    rng = random.Random(7)
    return [" ".join(rng.choice(WORDS) for _ in range(12)) for _ in range(400)] + [CODE] * 20


def special(*contents):
    return [AddedToken(content, special=True, normalized=False) for content in contents]


def train(tokenizer, size, specials, alphabet):
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False, limit_alphabet=400
    )
    tokenizer.train_from_iterator(training_texts(), trainer)
    return tokenizer


def byte_level(regex, size, specials, *, normalizer=None, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, size, specials, sorted(pre_tokenizers.ByteLevel.alphabet()))


def bos_template(tokenizer, bos):
    return processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])


def make_qwen():
    tokenizer = byte_level(QWEN_SPLIT, 700, [], normalizer=normalizers.NFC())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    names = "<|endoftext|> <|im_start|> <|im_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
    tokenizer.add_special_tokens(special(*names.split()))
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


def make_tekken():
    names = "<unk> <s> </s> [INST] [/INST] [IMG] <pad> [IMG_BREAK] [IMG_END]".split()
    tokenizer = byte_level(TEKKEN_SPLIT, 700, special(*names), ignore_merges=True)
    tokenizer.post_processor = bos_template(tokenizer, "<s>")
    return tokenizer


def make_llama3():
    tokenizer = byte_level(LLAMA3_SPLIT, 650, [], ignore_merges=True)
    tokenizer.add_special_tokens(special("<s>", "</s>", "<|im_start|>", "<|im_end|>"))
    template = bos_template(tokenizer, "<s>")
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    return tokenizer


def make_gpt2():
    """ByteLevel with its own regex and a space in front; an alphabet that lacks bytes, which is unknown then."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, 500, special("<unk>", "<pad>"), [])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def fallback_bytes():
    return [f"<0x{byte:02X}>" for byte in range(256)]


def character_model(tokenizer, specials, size):
    """Trains on words, then puts the 256 byte tokens into the vocabulary behind the special tokens, as in real files."""
    train(tokenizer, size, specials, [])
    model = json.loads(tokenizer.to_str())["model"]
    first = [str(token) for token in specials] + fallback_bytes()
    rest = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1]) if token not in first]
    vocab = {token: i for i, token in enumerate(first + rest)}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer.model = models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    tokenizer.add_special_tokens(specials)
    return tokenizer


def make_gemma():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\u2581?[^\u2581]+"), "isolated")
    character_model(tokenizer, special("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_image>"), 700)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    runs = [c * n for c in "\n\t\u2581" for n in range(2, 32)]
    tokenizer.add_tokens([AddedToken(run, special=False, normalized=False) for run in runs])
    tokenizer.add_special_tokens(special("<start_of_turn>", "<end_of_turn>", "<image_soft_token>"))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = bos_template(tokenizer, "<bos>")
    return tokenizer


LLAMA2_DECODER = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]


def make_llama2(metaspace):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    character_model(tokenizer, special("<unk>", "<s>", "</s>"), 600)
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.pre_tokenizer = None
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(LLAMA2_DECODER)
    tokenizer.post_processor = bos_template(tokenizer, "<s>")
    return tokenizer


def make_mixed(behavior, fuse):
    """What no released file has together: unknown tokens, every kind of added token, digits, a template with an end."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"[\t\r]+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=fuse),
            pre_tokenizers.Split(Regex(r"[.,!?]+|\n"), behavior),
            pre_tokenizers.Metaspace(prepend_scheme="always", split=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    train(tokenizer, 420, special("<unk>", "<s>", "</s>"), [])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=not fuse, special=True, normalized=False)])
    tokenizer.add_tokens(
        [
            AddedToken("word", single_word=True, normalized=False),
            AddedToken("lower", normalized=True),
            AddedToken("lower\tLOWER", normalized=True),
            AddedToken("\u00e9", normalized=True),
            AddedToken("[IMG]", rstrip=True, normalized=True),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))],
    )
    return tokenizer


KINDS = {
    "qwen": make_qwen,
    "tekken": make_tekken,
    "llama3": make_llama3,
    "gpt2": make_gpt2,
    "gemma": make_gemma,
    "llama2_prepend": lambda: make_llama2(metaspace=False),
    "llama2_metaspace": lambda: make_llama2(metaspace=True),
    "mixed_previous": lambda: make_mixed("merged_with_previous", fuse=True),
    "mixed_next": lambda: make_mixed("merged_with_next", fuse=False),
    "mixed_removed": lambda: make_mixed("removed", fuse=True),
    "mixed_contiguous": lambda: make_mixed("contiguous", fuse=True),
}


def with_old_merges(parsed):
    """The form that files had before tokens could hold spaces."""
    parsed["model"]["merges"] = [" ".join(pair) for pair in parsed["model"]["merges"]]
    return parsed


def byte_offsets(text, offsets):
    at = [0]
    for character in text:
        at.append(at[-1] + len(character.encode()))
    result, last = [], 0
    for begin, end in ((at[begin], at[end]) for begin, end in offsets):
        result.append(end - begin if begin == last else [begin, end])
        last = end
    return result


def goldens(tokenizer, every_text):
    rows = []
    for text in every_text:
        tokenizer.encode_special_tokens = False
        encoding = tokenizer.encode(text, add_special_tokens=False)
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        decoded = tokenizer.decode(encoding.ids, skip_special_tokens=False)
        skipped = tokenizer.decode(encoding.ids, skip_special_tokens=True)
        rows.append(
            {
                "ids": encoding.ids,
                "plain": None if plain == encoding.ids else plain,
                "offsets": byte_offsets(text, encoding.offsets),
                "decoded": None if decoded == text else decoded,
                "skipped": None if skipped == decoded else skipped,
            }
        )
    tokenizer.encode_special_tokens = False
    around = tokenizer.encode("a").ids
    inside = tokenizer.encode("a", add_special_tokens=False).ids
    begin = next(i for i in range(len(around)) if around[i : i + len(inside)] == inside)
    return {"prefix": around[:begin], "suffix": around[begin + len(inside) :], "texts": rows}


def dump(value, path):
    # Escaped, so that no editor or tool changes a character.
    path.write_text(json.dumps(value, separators=(",", ":")).replace('},{"ids"', '},\n{"ids"') + "\n")


def main():
    target = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1] / "data/tokenizers")
    every_text = texts()
    target.mkdir(parents=True, exist_ok=True)
    dump({"texts": every_text}, target / "texts.json")
    for kind, make in KINDS.items():
        folder = target / kind
        folder.mkdir(exist_ok=True)
        tokenizer = make()
        parsed = json.loads(tokenizer.to_str())
        if kind in ("llama2_prepend", "tekken"):
            parsed = with_old_merges(parsed)
        (folder / "tokenizer.json").write_text(json.dumps(parsed, ensure_ascii=False, separators=(",", ":")) + "\n")
        # The file is the truth, not the object that wrote it.
        dump(goldens(Tokenizer.from_file(str(folder / "tokenizer.json")), every_text), folder / "goldens.json")


if __name__ == "__main__":
    main()
