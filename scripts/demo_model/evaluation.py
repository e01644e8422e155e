"""Greedy answers of the written model, by transformers alone, on scenes of another seed."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

from families import Family
from scene_stream import KINDS, Renderer, Request

BOX = re.compile(r"<\|box_start\|>\((\d+),(\d+)\),\((\d+),(\d+)\)<\|box_end\|>")
SAME_SIZE = 4  # scenes of one size
LEAST_OVERLAP = 0.5
TEST_SIDES = (112, 336)


def box_overlap(said: str, right: str) -> float:
    """Intersection over union of the first box of each, or 0."""
    boxes = [BOX.search(text) for text in (said, right)]
    if not all(boxes):
        return 0.0
    a, b = ([int(value) for value in box.groups()] for box in boxes)
    across = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [max(0, box[2] - box[0]) * max(0, box[3] - box[1]) for box in (a, b)]
    return across * down / max(1, sum(areas) - across * down)


def is_right(family: Family, kind: str, said: str, answer: str) -> bool:
    if kind == "where" and family.boxes:
        return box_overlap(said, answer) >= LEAST_OVERLAP
    return said == answer


def test_cases(family: Family, renderer: Renderer, kind: str, count: int, seed: int):
    """(pictures, question, answer, width, height) of `count` scenes in many sizes."""
    rng = random.Random(f"{seed} {kind}")
    clip, several = kind == "move", kind == "which"
    cases = []
    while len(cases) < count:
        width, height = rng.randint(*TEST_SIDES), rng.randint(*TEST_SIDES)
        if max(width, height) > 2.5 * min(width, height):
            continue
        pictures = rng.choice([4, 6]) if clip else rng.choice([2, 3]) if several else 1
        request = Request(
            seed=rng.getrandbits(62), scenes=SAME_SIZE, pictures=pictures, width=width, height=height, questions=1,
            weights=[int(kind == other) for other in KINDS], clip=clip, boxes=family.boxes,
        )  # fmt: skip
        scenes = renderer.draw(request)
        for pixels, turns in zip(scenes.pixels, scenes.turns):
            if turns and len(cases) < count:
                cases.append((pixels, *turns[0][1:]))
    return cases


def conversation(pixels: np.ndarray, question: str, clip: bool) -> list[dict]:
    if clip:
        pictures = [{"type": "video", "video": torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2)}]
    else:
        pictures = [{"type": "image", "image": Image.fromarray(picture)} for picture in pixels]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": question}]}]


class Answerer:
    def __init__(self, family: Family, directory: Path, device: torch.device):
        self.family, self.device = family, device
        self.processor = transformers.AutoProcessor.from_pretrained(directory)
        self.processor.tokenizer.padding_side = "left"
        model = getattr(transformers, family.model_class).from_pretrained(directory, dtype=torch.float32)
        self.model = model.to(device).eval()

    def inputs(self, cases, clip: bool):
        conversations = [conversation(pixels, question, clip) for pixels, question, _ in cases]
        extra = {"do_sample_frames": False} if clip else {}
        return self.processor.apply_chat_template(
            conversations, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            processor_kwargs={"padding": True, **extra},
        ).to(self.device)  # fmt: skip

    def answer(self, cases, clip: bool = False) -> list[str]:
        return [text for text, _ in self.answer_with_logprobs(cases, clip)]

    @torch.inference_mode()
    def answer_with_logprobs(self, cases, clip: bool = False) -> list[tuple[str, float]]:
        """Each answer, and how probable the model holds it: the logarithm, without the token that ends it."""
        inputs = self.inputs(cases, clip)
        out = self.model.generate(
            **inputs, do_sample=False, max_new_tokens=64, temperature=None, top_k=None, top_p=None,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        ids = out.sequences[:, inputs["input_ids"].shape[1] :]
        keep_boxes = self.family.boxes
        texts = self.processor.tokenizer.batch_decode(ids, skip_special_tokens=not keep_boxes)
        stop = self.family.prompt.after_answer
        texts = [text.split(stop)[0].split("<|endoftext|>")[0] for text in texts]
        logprobs = torch.stack(out.logits, 1).log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        ends = torch.tensor(self.model.generation_config.eos_token_id, device=ids.device)
        before_end = torch.isin(ids, ends).cumsum(1) == 0
        return list(zip(texts, (logprobs * before_end).sum(1).tolist()))


def evaluate(family: Family, directory: Path, renderer: Renderer, count: int, seed: int, device, print_line) -> dict:
    """Shares of right answers by kind; where boxes are answered, also their mean overlap."""
    answerer = Answerer(family, directory, device)
    report: dict[str, float] = {}
    for kind in KINDS:
        if kind == "move" and not family.clips:
            continue
        cases = test_cases(family, renderer, kind, count, seed)
        said: list[str] = []
        for i in range(0, len(cases), 50):
            said += answerer.answer(cases[i : i + 50], kind == "move")
        right = [is_right(family, kind, a, case[2]) for a, case in zip(said, cases)]
        extra = ""
        if kind == "where" and family.boxes:
            overlaps = [box_overlap(a, case[2]) for a, case in zip(said, cases)]
            report["mean_overlap"] = sum(overlaps) / len(overlaps)
            extra = f", mean overlap {report['mean_overlap']:.3f}"
        report[kind] = sum(right) / len(right)
        print_line(f"{kind:9} {100 * report[kind]:5.1f} % of {len(right)}{extra}")
        wrong = [(case[1], case[2], a) for case, a, ok in zip(cases, said, right) if not ok]
        for question, answer, a in wrong[:3]:
            print_line(f"    {question} {answer!r} but said {a[:100]!r}")
    return report
