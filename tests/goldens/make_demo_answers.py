"""What transformers answers with the models of assets/demo, greedily in float32, about 200 scenes each.

    python tests/goldens/make_demo_answers.py build/examples/draw_scenes [FAMILY...]

Writes tests/data/demo/FAMILY.json with a line a scene: kind and number, from which `scenes::make_case` draws it again,
the Adler-32 of all its pixels, question, right answer, and transformers' with its log-probability. One prompt at a
time, so that no padding and no batch changes a rounding.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "demo_model"))

from evaluation import Answerer, is_right  # noqa: E402
from families import written_family  # noqa: E402

SEED = 77  # training and its own tests draw from other seeds
SCENES = 200


def cases(program: str, kind: str, boxes: bool, count: int, directory: Path) -> list[dict]:
    command = [program, "--seed", str(SEED), "--count", str(count), "--kind", kind, "--output", str(directory)]
    lines = subprocess.run(command + ["--boxes"] * boxes, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in lines.splitlines()]


def answers(family, kind: str, count: int, program: str, answerer: Answerer):
    with tempfile.TemporaryDirectory() as temporary:
        for number, case in enumerate(cases(program, kind, family.boxes, count, Path(temporary))):
            pixels = np.stack([np.asarray(Image.open(Path(temporary) / name)) for name in case["pictures"]])
            asked = [(pixels, case["question"], case["answer"])]
            ((said, logprob),) = answerer.answer_with_logprobs(asked, kind == "move")
            yield {
                "kind": kind,
                "number": number,
                "pixels": zlib.adler32(pixels.tobytes()),
                "question": case["question"],
                "answer": case["answer"],
                "transformers": said,
                "logprob": round(logprob, 6),
            }


def write(path: Path, boxes: bool, lines: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    head = json.dumps({"seed": SEED, "boxes": boxes}).removesuffix("}")
    path.write_text(head + ', "cases": [\n' + ",\n".join(map(json.dumps, lines)) + "\n]}\n")


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    program, *names = sys.argv[1:]
    for name in names or sorted(path.name for path in (ROOT / "assets" / "demo").iterdir() if path.is_dir()):
        family = written_family(name)
        answerer = Answerer(family, ROOT / "assets" / "demo" / name, torch.device("cpu"))
        kinds = ["describe", "count", "colour", "shape", "where", "read", "which"] + ["move"] * family.clips
        lines = []
        for i, kind in enumerate(kinds):
            count = SCENES * (i + 1) // len(kinds) - SCENES * i // len(kinds)
            lines += answers(family, kind, count, program, answerer)
            right = sum(is_right(family, line["kind"], line["transformers"], line["answer"]) for line in lines)
            print(f"{name} {kind}: {right} of {len(lines)} right so far", flush=True)
        write(ROOT / "tests" / "data" / "demo" / f"{name}.json", family.boxes, lines)


if __name__ == "__main__":
    main()
