"""How far transformers' own rows in 16 bits are from its float32 rows, as distances.json beside the checkpoints.

    python tests/goldens/make_tower_distances.py [DIRECTORY] [--device cuda]

For each checkpoint of tests/data/towers, norm over norm of the difference, all pictures' values together:
  {"checkpoint": {"bfloat16": distance, "float16": distance}}
The truth is embeddings.i of its golden.safetensors (make_tower_goldens.py). What is measured is transformers in that
dtype on a GPU, where the tests compare, over the same pictures: the farthest of its own ways, with sdpa and with eager
attention, all pictures in one call and each in a call of its own. Of so few values one way alone is a draw: on a CPU,
eager attention is 1.16 times as far as sdpa for mistral3_defaults_merge_3 in bfloat16.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file

from checkpoint_writer import write_json
from make_tower_goldens import TOWERS, checkpoints
from tower_truth import TowerTruth

DTYPES = ("bfloat16", "float16")


def numbered(golden: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    """name.0, name.1, ..."""
    count = sum(key.startswith(f"{name}.") for key in golden)
    return [golden[f"{name}.{i}"] for i in range(count)]


def distance(rows: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """Norm over norm."""
    if [row.shape for row in rows] != [row.shape for row in truth]:
        raise RuntimeError(f"{[row.shape for row in rows]} rows, the golden has {[row.shape for row in truth]}")
    found, expected = (np.concatenate([row.ravel() for row in of]).astype(np.float64) for of in (rows, truth))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def distances(directory: Path, device: str) -> dict[str, float]:
    golden = load_file(directory / "golden.safetensors")
    images = [Image.fromarray(pixels) for pixels in numbered(golden, "image")]
    truth = numbered(golden, "embeddings")
    found = {}
    for name in DTYPES:
        ways = []
        for attention in ("sdpa", "eager"):
            tower = TowerTruth(directory, dtype=getattr(torch, name), attention=attention, device=device)
            ways.append(tower.embed(images).rows)
            ways.append([row for image in images for row in tower.embed([image]).rows])
        found[name] = float(f"{max(distance(rows, truth) for rows in ways):.6e}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", nargs="?", type=Path, default=TOWERS)
    parser.add_argument("--device", default="cuda", help="where transformers computes (default: cuda)")
    arguments = parser.parse_args()
    directory = arguments.directory
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    found = {}
    for folder in checkpoints(directory):
        found[folder.name] = distances(folder, arguments.device)
        print(f"{folder.name:40}" + "".join(f"  {name} {value:.3e}" for name, value in found[folder.name].items()))
    write_json(directory / "distances.json", found)


if __name__ == "__main__":
    main()
