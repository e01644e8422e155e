"""What transformers computes from prompts with and without pictures, for text models.

    python tests/goldens/make_text_goldens.py [--only NAME]

float32, eager attention, torchvision pixels, one fresh process a checkpoint: those of tests/data/text get a
golden.safetensors beside them, those of assets/tiny a <name>.safetensors in tests/data/text/tiny. A file holds
  image.i            uint8 [h, w, 3], and for Qwen video.frames uint8 [T, h, w, 3], at video.fps
and for each prompt c of "text", "one", "several" (pictures) and for Qwen "video":
  c.text             UTF-8 bytes of what the processor was given
  c.prompt_ids       int64 [n]: the processor's input_ids
  c.position_ids     int64 [1 or 3, n]
  c.logits           float32 [n, vocabulary]
  c.new_ids          int64 [m]: generate's greedy choice through the cache, no stop token
  c.new_logprobs     float32 [m]: log-softmax of the logits it was chosen from
  c.logits_bfloat16  float32 [n, vocabulary], of "several": what transformers computes in bfloat16
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from synthetic_pictures import picture

ROOT = Path(__file__).parents[2]
SIZES = [(37, 60), (50, 26)]
NEW_TOKENS = 64
FPS = 1.5
PLACEHOLDERS = {
    "llava": "[IMG]",
    "mistral3": "[IMG]",
    "qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "gemma3": "<start_of_image>",
}
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"


def prompts(model_type: str) -> dict[str, tuple[str, int]]:
    """Name -> text and number of pictures."""
    mark = PLACEHOLDERS[model_type]
    result = {
        "text": ("There is an apple on the table, and the cat is in the box.", 0),
        "one": (f"Describe {mark} in one sentence.", 1),
        "several": (f"{mark}\n{mark} Which is larger, the temple or the flower?", 2),
    }
    if model_type.startswith("qwen"):
        result["video"] = (f"What is in {VIDEO}? The picture {mark} shows it.", 1)
    return result


class TextTruth:
    def __init__(self, directory: Path):
        from tower_truth import TowerTruth

        self.truth = TowerTruth(directory)
        self.model_type = self.truth.model_type
        self.is_qwen = self.truth.is_qwen
        self.video = np.stack([picture(30, 41, 300 + i) for i in range(6)]) if self.is_qwen else None

    def inputs(self, text: str, pictures: list[np.ndarray]):
        import torch
        from PIL import Image

        options = {"images": [[Image.fromarray(p) for p in pictures]]} if pictures else {}
        if VIDEO in text:
            clip = torch.from_numpy(self.video).permute(0, 3, 1, 2)
            metadata = {"total_num_frames": len(clip), "fps": FPS, "frames_indices": list(range(len(clip)))}
            options |= {
                "videos": [clip],
                "video_metadata": [metadata],
                "do_sample_frames": False,
                "cap_pixels_per_frame": False,
            }
        return self.truth.processor(text=[text], return_tensors="pt", **options)

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
                output_logits=True, return_dict_in_generate=True,
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
        return {
            f"{name}.prompt_ids": inputs["input_ids"][0].numpy(),
            f"{name}.position_ids": self.positions(inputs),
            f"{name}.logits": logits.numpy(),
            f"{name}.new_ids": ids.numpy(),
            f"{name}.new_logprobs": logprobs.numpy(),
        }


def make_golden(directory: Path, path: Path) -> None:
    import torch
    import transformers
    from safetensors.numpy import save_file

    torch.set_num_threads(1)
    print(directory.name)
    truth = TextTruth(directory)
    pictures = [picture(h, w, 200 + i) for i, (h, w) in enumerate(SIZES)]
    tensors = {f"image.{i}": p for i, p in enumerate(pictures)}
    if truth.video is not None:
        tensors |= {"video.frames": truth.video, "video.fps": np.array([FPS])}
    model = truth.truth.model
    cases = prompts(truth.model_type)
    for name, (text, count) in cases.items():
        tensors[f"{name}.text"] = np.frombuffer(text.encode(), dtype=np.uint8)
        tensors |= truth.run(model, truth.inputs(text, pictures[:count]), name)
    text, count = cases["several"]
    rounded = model.to(torch.bfloat16)
    with torch.no_grad():
        logits = rounded(**truth.inputs(text, pictures[:count]).to(torch.bfloat16)).logits[0]
    tensors["several.logits_bfloat16"] = logits.float().numpy()
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
