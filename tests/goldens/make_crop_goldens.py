"""What transformers' Gemma 3 processor makes of pictures with do_pan_and_scan=True: tests/data/crops/gemma3.json.

    python tests/goldens/make_crop_goldens.py

  plans     size and options of a picture, and its crops [x, y, width, height]; null where transformers raises, since a
            crop would be empty.
  pictures  of a recipe that tests/image/pixel_recipes.hpp repeats: for each view, whole first, its size and the hash of
            its patches (float32, in raster order; channel, y, x). Such large pictures that the defaults cut them.
  prompts   the processor's text= over those pictures, what it hands to its tokenizer, and its input_ids.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor

from make_chat_goldens import texts_given_to
from make_pixel_goldens import RECIPES, polynomial_hash
from tower_truth import _raster_rows

ROOT = Path(__file__).parents[2]
DEFAULTS = {"min_ratio": 1.2, "min_side": 256, "max_crops": 4}
PLANS = [
    *[(size, {}) for size in [(640, 427), (427, 640), (512, 512), (513, 512), (600, 500), (599, 500), (500, 600), (511, 256),
                              (512, 256), (256, 512), (640, 256), (1280, 256), (256, 1279), (1281, 256), (4000, 300),
                              (300, 4000), (1000, 255), (3840, 2160), (2160, 3840), (1023, 400), (9, 1), (1025, 410),
                              (769, 300), (2000000000, 1000000001), (2000000000, 256), (1, 1)]],
    *[(size, {"min_side": 16}) for size in [(640, 427), (100, 40), (99, 40), (101, 40), (40, 101), (33, 16), (47, 16), (90, 15)]],
    *[(size, {"min_side": 1, "max_crops": 100}) for size in [(100, 3), (7, 2), (2, 7), (5, 2), (50, 49), (9, 1), (97, 13)]],
    *[((9, 1), {"min_side": 1, "max_crops": count}) for count in range(1, 10)],
    *[((1000, 400), {"min_side": 64, "min_ratio": ratio}) for ratio in (1.0, 2.0, 2.4999, 2.5, 2.5001, 3.0)],
    *[((1000, 400), {"min_side": 64, "max_crops": count}) for count in (1, 2, 3)],
]
PICTURES = [("noise", (600, 270), 3), ("smooth", (260, 1100), 4), ("edges", (300, 280), 5)]
PROMPTS = [
    ("<start_of_image>What is this?", [0]),
    ("<bos>Look: <start_of_image> and\n<start_of_image><start_of_image> which?", [1, 2, 0]),
    ("<start_of_image>", [2]),
]


class Processor:
    def __init__(self):
        self.processor = AutoProcessor.from_pretrained(ROOT / "assets" / "tiny" / "gemma3")

    def plan(self, size: tuple[int, int], options: dict) -> list[list[int]] | None:
        options = {**DEFAULTS, **options}
        width, height = size
        picture = torch.empty((1, 1, height, width), device="meta")
        crops = self.processor.image_processor.pan_and_scan_batched(
            picture, options["min_side"], options["max_crops"], options["min_ratio"]
        )
        places = [
            [c.storage_offset() % width, c.storage_offset() // width, c.shape[-1], c.shape[-2]] if c.numel() else None
            for c in crops
        ]
        return None if None in places else places

    def prompt(self, text: str, pictures: list[Image.Image]) -> tuple[str, list[int], torch.Tensor]:
        with texts_given_to(self.processor.tokenizer) as seen:
            found = self.processor(text=[text], images=[pictures], do_pan_and_scan=True, return_tensors="pt")
        assert len(seen) == 1, seen
        return seen[0], found["input_ids"][0].tolist(), found["pixel_values"]


def views_of(processor: Processor, picture: Image.Image) -> list[dict]:
    _, _, pixels = processor.prompt("<start_of_image>", [picture])
    sizes = [list(picture.size)] + [crop[2:] for crop in processor.plan(picture.size, {})]
    assert len(sizes) == len(pixels)
    patch = 14
    # As text: JSON numbers of 64 bits lose their last ones in other readers.
    return [
        {"size": size, "patches": f"{polynomial_hash(_raster_rows(view, patch)[0]):016x}"}
        for size, view in zip(sizes, pixels)
    ]


def main() -> None:
    processor = Processor()
    pictures = [Image.fromarray(RECIPES[kind](*size, seed)) for kind, size, seed in PICTURES]
    document = {
        "plans": [{"size": size, "options": {**DEFAULTS, **options}, "crops": processor.plan(size, options)} for size, options in PLANS],
        "pictures": [
            {"kind": kind, "size": size, "seed": seed, "views": views_of(processor, picture)}
            for (kind, size, seed), picture in zip(PICTURES, pictures)
        ],
        "prompts": [],
    }
    for text, used in PROMPTS:
        prompt, ids, _ = processor.prompt(text, [pictures[i] for i in used])
        document["prompts"].append({"text": text, "pictures": used, "prompt": prompt, "input_ids": ids})
    path = ROOT / "tests" / "data" / "crops" / "gemma3.json"
    path.parent.mkdir(exist_ok=True)
    lines = ",\n".join(
        f" {json.dumps(key)}: [\n" + ",\n".join("  " + json.dumps(value, separators=(",", ":")) for value in values) + "\n ]"
        for key, values in document.items()
    )
    path.write_text("{\n" + lines + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
