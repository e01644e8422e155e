"""What is measured: picture processors and towers in their released sizes, with random weights, and pictures.

Run as a program it writes one checkpoint: python benchmarks/cases.py NAME DIRECTORY
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEED = 1

# Released sizes of the towers. The text side is as small as its config allows, because neither side runs it.
PIXTRAL = dict(width=1024, heads=16, layers=24, mlp=4096, patch=16, text_width=5120, longest_edge=1024)
MISTRAL3 = dict(width=1024, heads=16, layers=24, mlp=4096, patch=14, text_width=5120, longest_edge=1540,
                vision={"image_size": 1540})  # fmt: skip
QWEN = dict(width=1280, heads=16, layers=32, patch=14, text_width=3584, min_pixels=3136, top={"num_hidden_layers": 0})
QWEN2_5 = dict(mlp=3420, window=112, full_layers=[7, 15, 23, 31])
SO400M = dict(width=1152, heads=16, layers=27, mlp=4304, patch=14)
GEMMA3 = dict(**SO400M, image=896, tokens=256, text_width=2560)
WITHOUT_HEAD = {"vision_use_head": False}  # oriel does not compute the pooling head; the peer shall not either

MEGA12_8, MEGA1_0 = 12_845_056, 1_003_520

# name -> (function of tests/goldens/family_configs.py, its arguments)
CHECKPOINTS = {
    "siglip": ("siglip_vision", dict(**SO400M, image=384, vision=WITHOUT_HEAD)),
    "siglip_896": ("siglip_vision", dict(**SO400M, image=896, vision=WITHOUT_HEAD)),
    "gemma3": ("gemma3", GEMMA3),
    "pixtral": ("pixtral", PIXTRAL),
    "mistral3": ("mistral3", MISTRAL3),
    "qwen2_vl": ("qwen2_vl", dict(**QWEN, mlp_ratio=4, max_pixels=MEGA12_8)),
    "qwen2_vl_1mpx": ("qwen2_vl", dict(**QWEN, mlp_ratio=4, max_pixels=MEGA1_0)),
    "qwen2_5_vl": ("qwen2_5_vl", dict(**QWEN, **QWEN2_5, max_pixels=MEGA12_8)),
}


@dataclass(frozen=True)
class ProcessorCase:
    checkpoint: str
    title: str
    large: bool = False  # the store of the result decides, so that is what to measure against


@dataclass(frozen=True)
class TowerCase:
    title: str
    size: tuple[int, int]  # width, height of the picture
    goal: float = 1.1  # times as fast as the peer


PROCESSORS = (
    ProcessorCase("qwen2_vl", "Qwen2-VL, max 12.8 Mpx", large=True),
    ProcessorCase("qwen2_vl_1mpx", "Qwen2-VL, max 1.0 Mpx"),
    ProcessorCase("gemma3", "Gemma 3, 896 bilinear"),
    ProcessorCase("siglip_896", "SigLIP, 896 bicubic"),
)
PROCESSOR_PICTURES = ((1920, 1080), (4000, 3000))

TOWERS = {
    "siglip": TowerCase("SigLIP so400m, 384 / 14", (384, 384), goal=1.2),
    "gemma3": TowerCase("Gemma 3, 896 / 14", (896, 896), goal=1.2),
    "pixtral": TowerCase("Pixtral-12B", (512, 512)),
    "mistral3": TowerCase("Mistral-Small-3.1", (560, 560)),
    "qwen2_vl": TowerCase("Qwen2-VL-7B", (504, 504)),
    "qwen2_5_vl": TowerCase("Qwen2.5-VL-7B", (504, 504)),
}
DEFAULT_TOWERS = ("siglip", "pixtral", "qwen2_vl", "qwen2_5_vl")
QUICK_LAYERS = 2


def checkpoint(name: str, quick: bool):
    """(config, processor files, tokenizer) of one of CHECKPOINTS; `quick` leaves all but a few blocks out."""
    sys.path.insert(0, str(ROOT / "tests" / "goldens"))
    import family_configs

    family, arguments = CHECKPOINTS[name]
    if quick:
        arguments = {**arguments, "layers": QUICK_LAYERS}
        if "full_layers" in arguments:
            arguments["full_layers"] = [QUICK_LAYERS - 1]
    return getattr(family_configs, family)(**arguments)


def write_settings(name: str, directory: Path) -> None:
    """config.json and the processor's files alone: all that preprocessing needs."""
    config, files, _ = checkpoint(name, quick=False)
    from checkpoint_writer import write_json

    directory.mkdir(parents=True, exist_ok=True)
    for file, content in {"config.json": config, **files}.items():
        write_json(directory / file, content)


def write_weights(name: str, directory: Path, quick: bool) -> None:
    settings = checkpoint(name, quick)
    from checkpoint_writer import Checkpoint, write_checkpoint

    write_checkpoint(Checkpoint(*settings), directory, SEED)


def write_picture(size: tuple[int, int], path: Path) -> None:
    """A photograph, stretched to width x height, with noise so that no two pixels agree by chance."""
    import numpy as np
    from PIL import Image

    photo = Image.open(ROOT / "assets" / "photos" / "flower.jpg").convert("RGB").resize(size, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(SEED).integers(-8, 9, (size[1], size[0], 3), dtype=np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)).save(path)


if __name__ == "__main__":
    write_weights(sys.argv[1], Path(sys.argv[2]), quick="--quick" in sys.argv[3:])
