#!/usr/bin/env python3
"""Times oriel's tokenizer against the `tokenizers` package, on one thread, on 10 MB of mixed text in documents.

    python benchmarks/tokenizer.py [--build DIR] [--no-build] [--megabytes N] [--rounds N] [--vocabulary N]

The text is a third source code (Python's own library), a third English prose made of its words, and a third other
scripts; it is cut into documents of 16 kB, one call each. For each kind a tokenizer is trained on it once, of 32,000
tokens unless told otherwise. Ids are compared before anything is timed. Loading is the median of as many loads.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "goldens"))
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import make_tokenizer_goldens as kinds  # noqa: E402
import numpy as np  # noqa: E402
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402

SCRIPTS = [(0x430, 0x450), (0x3B1, 0x3CA), (0x4E00, 0x5600), (0x3041, 0x3097), (0xAC00, 0xAF00), (0x627, 0x64B),
           (0x905, 0x93A), (0xE01, 0xE31), (0xDF, 0x17F), (0x1F600, 0x1F650)]  # fmt: skip
DOCUMENT = 1 << 14


def make_text(size: int) -> str:
    rng = random.Random(1)
    code = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        code.append(path.read_text(encoding="utf-8", errors="ignore"))
        if sum(map(len, code)) > size // 3:
            break
    words = sorted({word for word in "".join(code).split() if word.isalpha()})
    prose = " ".join(rng.choice(words) + rng.choice(["", "", "", ",", ".", "\n"]) for _ in range(size // 24))
    others = []
    for low, high in SCRIPTS:
        letters = [chr(c) for c in range(low, high)]
        lexicon = ["".join(rng.choice(letters) for _ in range(rng.randint(1, 9))) for _ in range(3000)]
        share = size // 3 // len(SCRIPTS) // (6 * len(letters[0].encode()))
        others.append(" ".join(lexicon[min(int(rng.expovariate(1 / 300)), 2999)] for _ in range(share)))
    return "".join(code)[: size // 3] + prose + "\n".join(others)


def documents_of(text: bytes, size: int) -> list[str]:
    """As bench_tokenizer cuts them."""
    documents, begin = [], 0
    while begin < len(text):
        line = text.find(b"\n", begin + size) if size < len(text) - begin else -1
        end = len(text) if line < 0 else line + 1
        documents.append(text[begin:end].decode())
        begin = end
    return documents


def train(kind: str, text: str, vocabulary: int) -> Tokenizer:
    lines = text.splitlines(keepends=True)
    if kind in ("qwen", "tekken", "llama3"):
        regex = {"qwen": kinds.QWEN_SPLIT, "tekken": kinds.TEKKEN_SPLIT, "llama3": kinds.LLAMA3_SPLIT}[kind]
        tokenizer = Tokenizer(models.BPE(ignore_merges=kind != "qwen"))
        if kind == "qwen":
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(kinds.Regex(regex), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(lines, trainer)
        return tokenizer
    # One word for a whole text, as in Gemma's files: the vocabulary is trained on words.
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(kinds.Regex("\u2581?[^\u2581\n]+|\n"), "isolated")
    specials = kinds.special("<pad>", "<eos>", "<bos>", "<unk>")
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=specials, limit_alphabet=8000, show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    first = [str(token) for token in specials] + kinds.fallback_bytes()
    vocab = {token: i for i, token in enumerate(dict.fromkeys(first + list(model["vocab"])))}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer.model = models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def milliseconds(work) -> float:
    begin = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begin)


def measure(kind: str, directory: Path, program: Path, rounds: int, vocabulary: int) -> str:
    text_file = directory / "text.txt"
    model, dump = directory / f"{kind}_{vocabulary}", directory / "ids.bin"
    if not (model / "tokenizer.json").exists():
        model.mkdir(exist_ok=True)
        train(kind, text_file.read_bytes().decode(), vocabulary).save(str(model / "tokenizer.json"))
    theirs = Tokenizer.from_file(str(model / "tokenizer.json"))
    load = statistics.median(
        milliseconds(lambda: Tokenizer.from_file(str(model / "tokenizer.json"))) for _ in range(rounds)
    )
    documents = documents_of(text_file.read_bytes(), DOCUMENT)
    rows = [theirs.encode(document, add_special_tokens=False).ids for document in documents]
    expected = np.array([token for row in rows for token in row], dtype=np.int64)

    command = [str(program), "--model", str(model), "--text", str(text_file), "--dump", str(dump), "--serve"]
    command += ["--document", str(DOCUMENT), "--loads", str(rounds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        facts = json.loads(server.stdout.readline())
        if not np.array_equal(np.fromfile(dump, dtype=np.int64), expected):
            raise SystemExit(f"{kind}: the ids differ")
        mine, back, peer, peer_back = [], [], [], []
        for _ in range(rounds):
            server.stdin.write("1\n")
            server.stdin.flush()
            answer = json.loads(server.stdout.readline())
            mine += answer["ms"]
            back += answer["decode_ms"]
            peer.append(milliseconds(lambda: [theirs.encode(text, add_special_tokens=False) for text in documents]))
            peer_back.append(milliseconds(lambda: [theirs.decode(row) for row in rows]))
        server.stdin.close()
    speed = [facts["bytes"] / 1e3 / statistics.median(ms) for ms in (mine, peer, back, peer_back)]
    return (f"| {kind} | {facts['ids']:,} | {speed[0]:.1f} | {speed[1]:.1f} | {speed[0] / speed[1]:.1f} | "
            f"{speed[2]:.0f} | {speed[3]:.0f} | {statistics.median(facts['load_ms']):.0f} | {load:.0f} |")  # fmt: skip


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--build", type=Path, default=ROOT / "build-bench", metavar="DIR")
    parser.add_argument("--no-build", action="store_true", help="take the program as it is")
    parser.add_argument("--megabytes", type=int, default=10, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--vocabulary", type=int, default=32000, metavar="N", help="tokens of what is trained")
    parser.add_argument("--kinds", nargs="+", default=["qwen", "tekken", "llama3", "gemma"])
    arguments = parser.parse_args()
    if not arguments.no_build:
        configure = ["cmake", "-S", ROOT, "-B", arguments.build, "-DORIEL_BUILD_BENCHMARKS=ON"]
        if not (arguments.build / "CMakeCache.txt").exists():
            configure += ["-DCMAKE_BUILD_TYPE=Release", "-DORIEL_BUILD_TESTS=OFF", "-DORIEL_BUILD_EXAMPLES=OFF"]
        for command in (configure, ["cmake", "--build", arguments.build, "--target", "bench_tokenizer"]):
            subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    directory = arguments.build / "tokenizers"
    directory.mkdir(parents=True, exist_ok=True)
    # As bytes, so that line ends stay.
    (directory / "text.txt").write_bytes(make_text(arguments.megabytes * 1_000_000).encode())
    print("| kind | ids | MB/s | tokenizers | ratio | decoding MB/s | tokenizers | load ms | tokenizers |")
    print("| --- | --: | --: | --: | --: | --: | --: | --: | --: |")
    for kind in arguments.kinds:
        program = arguments.build / "benchmarks" / "bench_tokenizer"
        print(measure(kind, directory, program, arguments.rounds, arguments.vocabulary), flush=True)


if __name__ == "__main__":
    main()
