"""What transformers computes from prompts with and without pictures, for text models.

    python tests/goldens/make_text_goldens.py [--only NAME]

float32, eager attention, torchvision pixels, one fresh process a checkpoint: those of tests/data/text get a
golden.safetensors beside them, those of assets/tiny a <name>.safetensors in tests/data/text/tiny. A file holds
  image.i            uint8 [h, w, 3], and for Qwen video.frames and video.1.frames uint8 [T, h, w, 3], at video.fps
and for each prompt c of "text", "one", "several" (pictures), "again" (another question about the picture of "one") and
for Qwen "video", "two_videos", "fast_video" (at 24 frames a second, where a step in time is shorter than a position):
  c.text             UTF-8 bytes of what the processor was given
  c.prompt_ids       int64 [n]: the processor's input_ids
  c.position_ids     int64 [1 or 3, n]
  c.logits           float32 [n, vocabulary]; not of "again" and the last two
  c.new_ids          int64 [m]: generate's greedy choice through the cache, no stop token, no penalty
  c.new_logprobs     float32 [m]: log-softmax of the logits it was chosen from
  c.logits_bfloat16  float32 [n, vocabulary], of "several": what transformers computes in bfloat16
  c.logits_float16   the same in float16
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from synthetic_pictures import picture

ROOT = Path(__file__).parents[2]
SIZES = [(37, 60), (50, 26)]
NEW_TOKENS = 64
FPS = 1.5
FAST = 24.0
WITHOUT_LOGITS = ("again", "two_videos", "fast_video")
PLACEHOLDERS = {
    "llava": "[IMG]",
    "mistral3": "[IMG]",
    "qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "gemma3": "<start_of_image>",
}
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"


class Prompt(NamedTuple):
    text: str
    pictures: int = 0
    videos: int = 0
    fps: float = FPS


def prompts(model_type: str) -> dict[str, Prompt]:
    mark = PLACEHOLDERS[model_type]
    result = {
        "text": Prompt("There is an apple on the table, and the cat is in the box."),
        "one": Prompt(f"Describe {mark} in one sentence.", 1),
        "several": Prompt(f"{mark}\n{mark} Which is larger, the temple or the flower?", 2),
        "again": Prompt(f"Describe {mark} in a few words, and say where it is.", 1),
    }
    if model_type.startswith("qwen"):
        result["video"] = Prompt(f"What is in {VIDEO}? The picture {mark} shows it.", 1, 1)
        result["two_videos"] = Prompt(f"Is {VIDEO} longer than {VIDEO}, or as long?", 0, 2)
        result["fast_video"] = Prompt(f"What happens in {VIDEO}?", 0, 1, FAST)
    return result


class TextTruth:
    def __init__(self, directory: Path):
        from tower_truth import TowerTruth

        self.truth = TowerTruth(directory)
        self.model_type = self.truth.model_type
        self.is_qwen = self.truth.is_qwen
        self.pictures = [picture(h, w, 200 + i) for i, (h, w) in enumerate(SIZES)]
        clips = [(30, 41, 6, 300), (44, 29, 3, 320)] if self.is_qwen else []  # an odd number is filled up
        self.videos = [np.stack([picture(h, w, seed + i) for i in range(n)]) for h, w, n, seed in clips]

    def inputs(self, prompt: Prompt):
        import torch
        from PIL import Image

        pictures = self.pictures[: prompt.pictures]
        options = {"images": [[Image.fromarray(p) for p in pictures]]} if pictures else {}
        if prompt.videos > 0:
            clips = [torch.from_numpy(video).permute(0, 3, 1, 2) for video in self.videos[: prompt.videos]]
            metadata = [{"total_num_frames": len(clip), "fps": prompt.fps, "frames_indices": list(range(len(clip)))}
                        for clip in clips]  # fmt: skip
            options |= {
                "videos": clips,
                "video_metadata": metadata,
                "do_sample_frames": False,
                "cap_pixels_per_frame": False,
            }
        return self.truth.processor(text=[prompt.text], return_tensors="pt", **options)

    def positions(self, inputs) -> np.ndarray:
        import torch

        count = inputs["input_ids"].shape[1]
        if not self.is_qwen:
            return np.arange(count, dtype=np.int64)[None]
        if "mm_token_type_ids" not in inputs or not (inputs["mm_token_type_ids"] > 0).any():
            return np.tile(np.arange(count, dtype=np.int64), (3, 1))
        keys = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        known = {key: torch.as_tensor(inputs[key]) for key in keys if key in inputs}
        if self.model_type == "qwen2_vl":
            known.pop("second_per_grid_ts", None)
        positions, _ = self.truth.model.model.get_rope_index(**known, attention_mask=inputs["attention_mask"])
        return positions[:, 0].numpy().astype(np.int64)

    def run(self, model, inputs, name: str) -> dict[str, np.ndarray]:
        import torch

        with torch.no_grad():
            logits = model(**inputs).logits[0].float()
            made = model.generate(
                **inputs, do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=None, pad_token_id=0,
                repetition_penalty=1.0, output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        count = inputs["input_ids"].shape[1]
        raw = torch.stack([step[0].float() for step in made.logits])  # [m, vocabulary]
        best = raw.topk(2).values
        gap = float((best[:, 0] - best[:, 1]).min() / raw.abs().max())
        if gap < 1e-5:
            raise RuntimeError(f"{name}: two tokens are too near to each other: {gap:.1e}")
        ids = made.sequences[0, count:]
        logprobs = raw.log_softmax(-1).gather(1, ids[:, None])[:, 0]
        print(f"  {name:8} {count:4} ids, smallest gap of two tokens {gap:.1e}, {len(set(ids.tolist()))} kinds of id")
        result = {
            f"{name}.prompt_ids": inputs["input_ids"][0].numpy(),
            f"{name}.position_ids": self.positions(inputs),
            f"{name}.new_ids": ids.numpy(),
            f"{name}.new_logprobs": logprobs.numpy(),
        }
        return result if name in WITHOUT_LOGITS else result | {f"{name}.logits": logits.numpy()}


def make_golden(directory: Path, path: Path) -> None:
    import torch
    import transformers
    from safetensors.numpy import save_file

    torch.set_num_threads(1)
    print(directory.name)
    truth = TextTruth(directory)
    tensors = {f"image.{i}": p for i, p in enumerate(truth.pictures)}
    if truth.videos:
        tensors |= {"video.frames": truth.videos[0], "video.1.frames": truth.videos[1], "video.fps": np.array([FPS])}
    cases = prompts(truth.model_type)
    for name, prompt in cases.items():
        tensors[f"{name}.text"] = np.frombuffer(prompt.text.encode(), dtype=np.uint8)
        tensors |= truth.run(truth.truth.model, truth.inputs(prompt), name)
    for dtype in (torch.bfloat16, torch.float16):
        rounded = copy.deepcopy(truth.truth.model).to(dtype)
        with torch.no_grad():
            logits = rounded(**truth.inputs(cases["several"]).to(dtype)).logits[0]
        tensors[f"several.logits_{str(dtype).removeprefix('torch.')}"] = logits.float().numpy()
    maker = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    path.parent.mkdir(exist_ok=True, parents=True)
    metadata = {"made_with": f"{maker}, float32, eager attention, torchvision pixels"}
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path, metadata=metadata)
    path.chmod(0o644)
    print(f"  {path.stat().st_size / 1000:.0f} kB", flush=True)


def places() -> dict[str, tuple[Path, Path]]:
    """Name -> checkpoint and golden."""
    data = ROOT / "tests" / "data" / "text"
    tiny = {f"tiny/{d.name}": (d, data / "tiny" / f"{d.name}.safetensors")
            for d in sorted((ROOT / "assets" / "tiny").iterdir()) if d.is_dir() and d.name != "siglip"}  # fmt: skip
    return tiny | {d.name: (d, d / "golden.safetensors") for d in sorted(data.iterdir()) if (d / "config.json").exists()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="the checkpoint to look at, in this process")
    arguments = parser.parse_args()
    if arguments.only:
        make_golden(*places()[arguments.only])
        return
    for name in places():
        subprocess.run([sys.executable, __file__, "--only", name], check=True)


if __name__ == "__main__":
    main()
