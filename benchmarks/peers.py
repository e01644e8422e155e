"""The peers' side of the measurements, in a process of its own: run.py starts it and writes one JSON request a line.

    python benchmarks/peers.py preprocess [--keep-memory]
    python benchmarks/peers.py tower --model DIR --picture FILE --threads N --loads K

Every answer is one JSON line; a failed request answers {"error": text}.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import os
import resource
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "goldens"))
from checkpoint_writer import model_class

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """What bench_preprocess --keep-memory does: the first run's page faults are the only ones."""
    libc = ctypes.CDLL(None)
    if not (libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1)):
        raise RuntimeError("mallopt refused")


def settle_memory(work, most: int = 30) -> None:
    """Runs until no new pages are touched, as bench_preprocess --keep-memory does."""
    quiet = 0
    for _ in range(most):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        work()
        quiet = quiet + 1 if resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 200 else 0
        if quiet == 2:
            return


def timed_runs(work, repeats: int) -> list[float]:
    """Milliseconds of each run; results are released outside the measured time."""
    milliseconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = work()
        milliseconds.append(1000 * (time.perf_counter() - begin))
        del result
    return milliseconds


# --- processors ---

# hf-processors-rs does not know Gemma 3 by name; SigLIP's processor with Gemma's settings makes the same pixels.
RUST_NAMES = {"Gemma3ImageProcessor": "SiglipImageProcessor"}


@functools.cache
def decoded(path: str) -> Image.Image:
    return Image.open(path).convert("RGB")


@functools.cache
def processor(peer: str, model: str):
    """A function (picture, threads) -> pixel_values; transformers takes torch's number of threads, set before."""
    if peer == "hf-processors-rs":
        import hf_processors_rs

        config = json.loads((Path(model) / "preprocessor_config.json").read_text())
        kind = RUST_NAMES.get(config["image_processor_type"])
        native = hf_processors_rs.AutoImageProcessor.from_dict(config, processor_type=kind)
        return lambda picture, threads: native.preprocess(picture, num_threads=threads)["pixel_values"]
    process = transformers.AutoImageProcessor.from_pretrained(model, backend=peer)
    return lambda picture, threads: process(images=picture, return_tensors="pt")["pixel_values"]


def raster_rows(pixels: np.ndarray, patch: int) -> np.ndarray:
    """[1, 3, height, width] -> [patches, 3 * patch * patch], as oriel hands them over; what is rows already stays."""
    if pixels.ndim == 2:
        return pixels
    rows, columns = pixels.shape[2] // patch, pixels.shape[3] // patch
    blocks = pixels[0, :, : rows * patch, : columns * patch].reshape(3, rows, patch, columns, patch)
    return blocks.transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1)


def patch_size(model: str) -> int:
    config = json.loads((Path(model) / "config.json").read_text())
    return config.get("vision_config", config)["patch_size"]


def answer_preprocess(request: dict, settled: set | None = None) -> dict:
    """`settled`: kept memory is wanted, and these cases have got theirs already."""
    torch.set_num_threads(request["threads"])
    process = processor(request["peer"], request["model"])
    picture = decoded(request["picture"])
    if request["peer"] == "hf-processors-rs":  # it takes arrays; the others PIL images
        picture = np.asarray(picture)
    work = functools.partial(process, picture, threads=request["threads"])
    if request.get("dump"):
        np.save(request["dump"], raster_rows(np.asarray(work()), patch_size(request["model"])))
    case = (request["peer"], request["model"], request["picture"], request["threads"])
    if settled is not None and case not in settled:
        settle_memory(work)
        settled.add(case)
    return {"ms": timed_runs(work, request["repeats"])}


# --- towers ---


class Tower:
    def __init__(self, model: str, picture: str):
        config = transformers.AutoConfig.from_pretrained(model)
        self.kind = model_class(config.model_type)
        self.directory, self.picture, self.model = model, picture, None

    def load(self) -> None:
        self.model = self.kind.from_pretrained(self.directory, dtype=torch.float32, attn_implementation="sdpa").eval()

    def prepare(self) -> None:
        process = transformers.AutoImageProcessor.from_pretrained(self.directory)
        self.inputs = dict(process(images=[decoded(self.picture)], return_tensors="pt"))

    def features(self) -> torch.Tensor:
        with torch.inference_mode():
            if not hasattr(self.model, "get_image_features"):  # a plain tower
                return self.model(**self.inputs).last_hidden_state
            return self.model.get_image_features(**self.inputs).pooler_output

    def rows(self) -> np.ndarray:
        """[tokens, hidden] of the only picture: some families give a list of pictures, others a batch."""
        return self.features()[0].numpy()


def status_kib(field: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in status if line.startswith(field + ":")), 0)


def set_up_tower(arguments: argparse.Namespace) -> tuple[Tower, dict]:
    torch.set_num_threads(arguments.threads)
    tower = Tower(arguments.model, arguments.picture)
    start_kib, load_ms, peak_kib = status_kib("VmHWM"), [], 0
    for _ in range(arguments.loads):
        tower.model = None
        load_ms += timed_runs(tower.load, 1)
        peak_kib = peak_kib or status_kib("VmHWM")  # later loads find memory of earlier ones
    tower.prepare()
    facts = {"load_ms": load_ms, "start_kib": start_kib, "load_peak_kib": peak_kib, "resident_kib": status_kib("VmRSS")}
    return tower, facts


def answer_tower(tower: Tower, request: dict) -> dict:
    tower.model.set_attn_implementation(request["peer"])
    if request.get("dump"):  # these runs count too: towers take seconds
        begin = time.perf_counter()
        rows = tower.rows()
        milliseconds = 1000 * (time.perf_counter() - begin)
        np.save(request["dump"], rows)
        return {"ms": [milliseconds]}
    return {"ms": timed_runs(tower.features, request["repeats"])}


# --- the conversation ---


def versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("transformers", "torch", "torchvision", "pillow", "hf-processors-rs"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def say(line: dict) -> None:
    print(json.dumps(line), flush=True)


def answer_requests(answer) -> None:
    for line in sys.stdin:
        try:
            say(answer(json.loads(line)))
        except Exception as error:  # whatever a peer raises is its answer
            say({"error": f"{type(error).__name__}: {error}"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["preprocess", "tower"])
    parser.add_argument("--keep-memory", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--picture")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--loads", type=int, default=1)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if arguments.part == "preprocess":
        if arguments.keep_memory:
            keep_freed_memory()
        settled = set() if arguments.keep_memory else None
        say({"versions": versions()})
        answer_requests(functools.partial(answer_preprocess, settled=settled))
    else:
        tower, facts = set_up_tower(arguments)
        say({**facts, "versions": versions()})
        answer_requests(functools.partial(answer_tower, tower))


if __name__ == "__main__":
    main()
