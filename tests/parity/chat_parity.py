"""chat_image and chat_video against transformers' processor and generate, on the checkpoints of assets/tiny and pictures
that are made anew on every run.

    python tests/parity/chat_parity.py --programs build/examples [--seed N] [--family NAME]

Prints a line for each prompt, then every disagreement; the exit code is 1 if there is any.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "goldens"))
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file

from make_text_goldens import FPS, PLACEHOLDERS, VIDEO, Prompt, TextTruth
from synthetic_pictures import picture

# Of the largest logit: sums of float32 products in another order.
TOLERANCE = 1e-4
FAMILIES = ["gemma3", "mistral3", "pixtral", "qwen2_5_vl", "qwen2_vl"]


class Parity:
    def __init__(self, programs: Path, family: str, seed: int, scratch: Path):
        self.programs, self.family, self.scratch = programs, family, scratch
        self.directory = ROOT / "assets" / "tiny" / family
        self.truth = TextTruth(self.directory)
        self.random = random.Random(f"{seed} {family}")
        self.problems: list[str] = []
        sizes = [(self.random.randint(20, 90), self.random.randint(20, 90)) for _ in range(2)]
        self.pictures = [picture(h, w, self.random.randrange(1000)) for h, w in sizes]
        self.truth.pictures = self.pictures
        for i, pixels in enumerate(self.pictures):
            Image.fromarray(pixels).save(scratch / f"picture{i}.png")
        if self.truth.videos:
            (scratch / "frames").mkdir()
            for i, frame in enumerate(self.truth.videos[0]):
                Image.fromarray(frame).save(scratch / "frames" / f"{i:03}.png")

    def run(self, *arguments: str, video: bool = False) -> tuple[dict[str, np.ndarray], str]:
        program = self.programs / ("chat_video" if video else "chat_image")
        dump = self.scratch / "dump.safetensors"
        command = [program, "--model", self.directory, "--dump", dump, "--max-new-tokens", "64", "--threads", "1"]
        chunk = str(self.random.choice([1, 5, 30, 4096]))
        result = subprocess.run([*map(str, command), "--prefill-chunk", chunk, *arguments], capture_output=True)
        if result.returncode:
            raise RuntimeError(result.stderr.decode())
        return load_file(dump), result.stdout.decode()  # strictly: whole characters

    def compare(self, what: str, found: dict[str, np.ndarray], printed: str, inputs, stops: bool) -> None:
        expected = {key.split(".")[1]: value for key, value in self.truth.run(self.truth.truth.model, inputs, what).items()}
        if stops:
            ends = self.truth.truth.model.generation_config.eos_token_id
            ends = set(ends if isinstance(ends, list) else [ends])
            first = next((i for i, token in enumerate(expected["new_ids"].tolist()) if token in ends), 64)
            expected["new_ids"], expected["new_logprobs"] = expected["new_ids"][:first], expected["new_logprobs"][:first]
        for name in ("prompt_ids", "position_ids", "new_ids"):
            if not np.array_equal(found[name], expected[name]):
                self.problems.append(f"{what}: {name}: {found[name].tolist()} and not {expected[name].tolist()}")
        for name in ("logits", "new_logprobs"):
            if found[name].shape != expected[name].shape:
                self.problems.append(f"{what}: {name}: shape {found[name].shape} and not {expected[name].shape}")
            elif found[name].size:
                error = np.abs(found[name] - expected[name]).max() / np.abs(expected["logits"]).max()
                if not error <= TOLERANCE:
                    self.problems.append(f"{what}: {name}: {error:.1e} of the largest logit")
        text = self.truth.truth.processor.tokenizer.decode(expected["new_ids"], skip_special_tokens=True)
        if printed != text:
            self.problems.append(f"{what}: printed {printed!r} and not {text!r}")

    def texts(self) -> None:
        mark = PLACEHOLDERS[self.truth.model_type]
        bos = self.truth.truth.processor.tokenizer.bos_token or ""
        cases = {
            "no picture": ("What is a cat? \u00dcber caf\u00e9s, \U0001f600.", 0),
            "one": (f"{bos}Look at {mark} and say what it is.", 1),
            "two": (f"{mark} and\n\n{mark}: which?", 2),
            "side by side": (f" {mark}\n{mark}", 2),
        }
        if self.family == "gemma3":
            cases["rows of no picture"] = ("See <image_soft_token><image_soft_token> there.", 0)
        if self.family.startswith("qwen"):
            bare = "<|image_pad|>"
            cases["bare"] = (f"Look at {bare} and say what it is.", 1)
            cases["opened, not closed, and bare"] = (f"<|vision_start|>{bare} or {bare}<|vision_end|>?", 2)
        for name, (text, count) in cases.items():
            images = [word for i in range(count) for word in ("--image", str(self.scratch / f"picture{i}.png"))]
            self.compare(
                f"{self.family}, text, {name}", *self.run("--text", text, "--ignore-eos", *images),
                self.truth.inputs(Prompt(text, count)), stops=False,
            )  # fmt: skip
        if self.truth.videos:
            text = f"What happens in {VIDEO} here?"
            frames = ("--frames", str(self.scratch / "frames"), "--fps", str(FPS))
            found = self.run("--text", text, "--ignore-eos", *frames, video=True)
            self.compare(f"{self.family}, text, video", *found, self.truth.inputs(Prompt(text, videos=1)), stops=False)

    def questions(self) -> None:
        processor = self.truth.truth.processor
        for count in range(3):
            question = " What do you see? "
            content = [{"type": "image"}] * count + [{"type": "text", "text": question}]
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            images = [word for i in range(count) for word in ("--image", str(self.scratch / f"picture{i}.png"))]
            # As apply_chat_template(tokenize=True) does: no second bos in front of the template's own.
            inputs = self.inputs_without_second_bos(text, count)
            self.compare(
                f"{self.family}, question, {count} pictures", *self.run("--question", question, *images), inputs, stops=True
            )

    def template_arguments(self) -> None:
        """What the family's template can be told: its pictures and videos by number."""
        if not self.family.startswith("qwen"):
            return
        processor = self.truth.truth.processor
        question, told = "Which?", ("--template-argument", "add_vision_id=true")
        for count in (1, 2):
            content = [{"type": "image"}] * count + [{"type": "text", "text": question}]
            text = processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, add_vision_id=True
            )
            assert f"Picture {count}: " in text
            images = [word for i in range(count) for word in ("--image", str(self.scratch / f"picture{i}.png"))]
            self.compare(
                f"{self.family}, {count} pictures by number", *self.run("--question", question, *told, *images),
                self.inputs_without_second_bos(text, count), stops=True,
            )  # fmt: skip
        content = [{"type": "video"}, {"type": "text", "text": question}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, add_vision_id=True
        )
        assert "Video 1: " in text
        frames = ("--frames", str(self.scratch / "frames"), "--fps", str(FPS))
        found = self.run("--question", question, *told, *frames, video=True)
        self.compare(f"{self.family}, video by number", *found, self.truth.inputs(Prompt(text, videos=1)), stops=True)

    def crops(self) -> None:
        """Long pictures as a whole and in crops, where the processor is told to; what a file says does not matter."""
        if self.family != "gemma3":
            return
        mark = PLACEHOLDERS[self.truth.model_type]
        sizes = [(270, self.random.randint(520, 1200)), (self.random.randint(520, 1100), 260), (300, 300)]
        self.pictures = [picture(h, w, self.random.randrange(1000)) for h, w in sizes]
        self.truth.pictures = self.pictures
        for i, pixels in enumerate(self.pictures):
            Image.fromarray(pixels).save(self.scratch / f"long{i}.png")
        images = [word for i in range(3) for word in ("--image", str(self.scratch / f"long{i}.png"))]
        text = f"{mark} Compare\n{mark} with {mark}."
        told = self.inputs_without_second_bos(text, 3, do_pan_and_scan=True)
        assert len(told["pixel_values"]) > 6
        self.compare("gemma3, crops", *self.run("--text", text, "--crops", "--ignore-eos", *images), told, stops=False)

        directory = self.scratch / "told by its file"
        shutil.copytree(self.directory, directory)
        name = directory / "preprocessor_config.json"
        file = json.loads(name.read_text())
        file |= {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16, "pan_and_scan_max_num_crops": 4,
                 "pan_and_scan_min_ratio_to_activate": 1.1}  # fmt: skip
        name.write_text(json.dumps(file))
        self.directory, self.truth = directory, TextTruth(directory)
        assert self.truth.truth.processor.image_processor.do_pan_and_scan
        untold = self.inputs_without_second_bos(text, 3)
        self.compare("gemma3, crops by file", *self.run("--text", text, "--ignore-eos", *images), untold, stops=False)

    def inputs_without_second_bos(self, text: str, count: int, **options):
        bos = self.truth.truth.processor.tokenizer.bos_token
        call = self.truth.truth.processor
        images = {"images": [[Image.fromarray(p) for p in self.pictures[:count]]], **options} if count else {}
        adds = not (bos and text.startswith(bos))
        return call(text=[text], return_tensors="pt", add_special_tokens=adds, **images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--family", choices=FAMILIES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"seed {arguments.seed}")
    problems = []
    for family in [arguments.family] if arguments.family else FAMILIES:
        with tempfile.TemporaryDirectory() as scratch:
            parity = Parity(arguments.programs, family, arguments.seed, Path(scratch))
            parity.texts()
            parity.questions()
            parity.template_arguments()
            parity.crops()
            problems += parity.problems
    print("\n".join(problems) if problems else "every prompt, position, logit and answer agrees")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
