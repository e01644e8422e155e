"""What transformers computes from the checkpoints of tests/data/towers, as golden.safetensors beside each.

    python tests/goldens/make_tower_goldens.py [DIRECTORY] [--only NAME]

float32, eager attention, torchvision pixels, one fresh process a checkpoint. A file holds, for picture i:
  image.i       uint8 [h, w, 3]
  pixels.i      float32 [patches, row]: one row a patch in the processor's order, (channel, [frame,] y, x)
  grid.i        int64 [3]: frames, rows, columns of patches before merging
  token_ids.i   int64: what stands for the picture in the prompt; absent for a plain SigLIP tower
  embeddings.i  float32 [tokens, hidden], all pictures in one call
  hidden.k      float32 [patches of all pictures, width]: transformers' hidden_states[k]
and for Qwen video.0.frames uint8 [T, h, w, 3], video.0.{pixels, grid, token_ids, embeddings}, video.1.* the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from synthetic_pictures import picture

# (height, width) of the pictures. The sizes of a family are chosen with the limits of its checkpoints in mind: at least
# one exceeds longest_edge or max_pixels, one is enlarged, none is a multiple of the patch.
SIZES = {
    "llava": [(37, 75), (150, 53), (9, 30)],
    "mistral3": [(45, 100), (131, 40), (20, 33)],
    "qwen2_vl": [(34, 61), (5, 39), (150, 47)],
    "qwen2_5_vl": [(62, 90), (8, 40), (27, 120)],
    "gemma3": [(90, 47), (31, 130)],
    "siglip": [(90, 47), (31, 130)],
    "siglip_vision_model": [(90, 47), (31, 130)],
}
# (frames, height, width), an odd number of frames too.
VIDEOS = {"qwen2_vl_flat": [(3, 30, 45), (4, 25, 24)], "qwen2_5_vl_uneven_windows": [(3, 40, 57), (2, 25, 24)]}
TOWERS = Path(__file__).parents[1] / "data" / "towers"


def checkpoints(directory: Path) -> list[Path]:
    return sorted(folder for folder in directory.iterdir() if (folder / "config.json").exists())


def make_golden(directory: Path) -> None:
    import torch
    import transformers
    from PIL import Image
    from safetensors.numpy import save_file

    from tower_truth import TowerTruth

    torch.set_num_threads(1)
    truth = TowerTruth(directory)
    pictures = [picture(h, w, i) for i, (h, w) in enumerate(SIZES[truth.model_type])]
    images = [Image.fromarray(p) for p in pictures]
    tensors: dict[str, np.ndarray] = {}
    for i, image in enumerate(images):
        processed = truth.process(image)
        tensors[f"image.{i}"] = pictures[i]
        tensors[f"pixels.{i}"] = processed.pixels
        tensors[f"grid.{i}"] = processed.grid
        if len(processed.token_ids):
            tensors[f"token_ids.{i}"] = processed.token_ids
    # Videos first: the hooks that record hidden states stay on the model.
    for i, (frames, h, w) in enumerate(VIDEOS.get(directory.name, [])):
        video = np.stack([picture(h, w, 100 + frame) for frame in range(frames)])
        processed = truth.process_video(video)
        tensors |= {
            f"video.{i}.frames": video,
            f"video.{i}.pixels": processed.pixels,
            f"video.{i}.grid": processed.grid,
            f"video.{i}.token_ids": processed.token_ids,
            f"video.{i}.embeddings": truth.embed_video(video),
        }
    embedded = truth.embed(images, record_hidden=True)
    tensors |= {f"embeddings.{i}": rows for i, rows in enumerate(embedded.rows)}
    tensors |= {f"hidden.{k}": state for k, state in enumerate(embedded.hidden)}
    # One entry: the file format does not keep the order of several, and the same call should give the same bytes.
    maker = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    metadata = {"made_with": f"{maker}, float32, eager attention, torchvision pixels"}
    path = directory / "golden.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path, metadata=metadata)
    path.chmod(0o644)
    scales = [f"{np.abs(rows).max():.2f}" for rows in embedded.rows]
    tokens = [len(rows) for rows in embedded.rows]
    print(f"{directory.name:40} {path.stat().st_size / 1000:6.0f} kB  tokens {tokens}  largest {scales}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", nargs="?", type=Path, default=TOWERS)
    parser.add_argument("--only", help="the folder to make, in this process")
    arguments = parser.parse_args()
    if arguments.only:
        make_golden(arguments.directory / arguments.only)
        return
    for folder in checkpoints(arguments.directory):
        command = [sys.executable, __file__, str(arguments.directory), "--only", folder.name]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
