#!/usr/bin/env python3
"""Trains one of the small models of assets/demo and tests what it answers.

    scripts/train_demo_model.py --family qwen2_vl|mistral3|gemma3 [--minutes 8] [--output DIR]

Draws scenes with examples/scenes (compiled here with g++ unless --renderer names the program), learns byte pairs from
the questions and answers, trains with torch on one GPU, writes a checkpoint in the released models' file format, loads
it again with transformers and counts right answers on scenes of another seed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BEGAN = time.time()
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).resolve().parent / "demo_model"))

import torch  # noqa: E402

from comparison import difference_to_transformers  # noqa: E402
from evaluation import evaluate  # noqa: E402
from families import FAMILIES, Family, write_json  # noqa: E402
from scene_stream import KINDS, Feeder, Plan, Renderer, Request  # noqa: E402
from training import Settings, Trainer, load_weights, save_weights  # noqa: E402

LARGEST_MODEL = 6_000_000  # bytes of all files
TEST_SEED = 20_000  # training seeds are those below


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--minutes", type=float, default=8, help="until training ends, start and compiler included")
    parser.add_argument("--steps", type=int, default=0, help="this many steps instead of --minutes")
    parser.add_argument("--output", type=Path, help="default: assets/demo/FAMILY")
    parser.add_argument("--renderer", help="a compiled stream_scenes")
    parser.add_argument("--resume", type=Path, help="begin with the weights of this directory")
    parser.add_argument("--rate", type=float, default=1.0, help="scales the learning rates")
    parser.add_argument(
        "--seed", type=int, default=1,
        help="of weights and scenes; runs with one seed make similar models, not the same: the order of a GPU's sums "
        "and how far ahead scenes are drawn differ",
    )  # fmt: skip
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=4, help="that draw")
    parser.add_argument("--tokens", type=int, default=40_000, help="in a batch, about")
    parser.add_argument("--budget", type=int, default=0, help="tokens of a conversation (default: by family)")
    parser.add_argument("--test-scenes", type=int, default=200, help="for each kind of question")
    parser.add_argument("--test-only", action="store_true", help="test the model that is there")
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--no-compile", action="store_true")
    return parser.parse_args()


def print_line(text: str) -> None:
    print(text, flush=True)


def compile_renderer(directory: str) -> str:
    program = str(Path(directory) / "stream_scenes")
    sources = sorted(map(str, (ROOT / "examples" / "scenes").glob("*.cpp")))
    subprocess.run(["g++", "-O3", "-std=c++20", "-o", program, *sources], check=True)
    return program


def corpus(renderer: Renderer, seed: int) -> list[str]:
    """Questions and answers of every kind, in both ways of saying where."""
    rng = random.Random(seed)
    lines: list[str] = []
    for pictures, clip, boxes in [(1, False, False), (1, False, True), (2, False, False), (4, True, False)] * 3:
        request = Request(
            seed=rng.getrandbits(62), scenes=400, pictures=pictures, width=64, height=64, questions=8,
            weights=[1] * len(KINDS), clip=clip, boxes=boxes,
        )  # fmt: skip
        for turns in renderer.draw(request).turns:
            for _, question, answer in turns:
                lines += [question, answer]
    return lines


def make_family(name: str, renderer: Renderer) -> Family:
    lines = corpus(renderer, 1)
    if name != "qwen2_vl":
        lines = [line for line in lines if "<|box" not in line]
    specials = ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>")
    for special in specials:
        lines = [piece for line in lines for piece in line.split(special)]
    return FAMILIES[name](lines)


def settings_of(options: argparse.Namespace) -> Settings:
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    return Settings(
        minutes=options.minutes,
        steps=options.steps,
        seed=options.seed,
        device=device,
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        compiled=on_gpu and not options.no_compile,
        log_every=options.log_every,
        rate=options.rate,
    )


def train(options: argparse.Namespace, family: Family, trainer: Trainer, program: str) -> None:
    plan = Plan(tokens=options.tokens, budget=options.budget or (176 if family.boxes else 128))
    feeder = Feeder(program, family, plan, options.threads, options.seed, trainer.settings.device.type == "cuda")
    sys.setswitchinterval(0.001)  # threads that make batches must not hold up the one that feeds the GPU
    trainer.run(feeder, BEGAN, print_line)
    feeder.stop()


def main() -> None:
    options = arguments()
    torch.manual_seed(options.seed)
    torch.backends.cudnn.allow_tf32 = False  # transformers' patch embedding would be off by 4e-4
    directory = options.output or ROOT / "assets" / "demo" / options.family
    with tempfile.TemporaryDirectory() as temporary:
        program = options.renderer or compile_renderer(temporary)
        renderer = Renderer(program)
        family = make_family(options.family, renderer)
        family.write(directory)
        trainer = Trainer(family, directory, settings_of(options))
        print_line(f"{family.name}: {trainer.weight_count():,} weights, {len(family.tokenizer)} tokens")
        if not options.test_only:
            if options.resume:
                load_weights(family, trainer.parameters, options.resume)
            train(options, family, trainer, program)
            save_weights(family, trainer.parameters, directory)
        size = sum(file.stat().st_size for file in directory.iterdir())
        print_line(f"wrote {directory}: {size:,} bytes (at most {LARGEST_MODEL:,})")
        distance = difference_to_transformers(family, directory, renderer, trainer.settings.device)
        print_line(f"logits differ from transformers' by {distance:.1e} of their scale in float32")
        report = evaluate(
            family, directory, renderer, options.test_scenes, TEST_SEED, trainer.settings.device, print_line
        )
        print_line(json.dumps({"family": family.name, "bytes": size, **report}))
        renderer.close()


if __name__ == "__main__":
    main()
