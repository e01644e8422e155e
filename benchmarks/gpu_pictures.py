"""Files of pictures to rows on a GPU: JPEGs of 1080p, of 12 megapixels, and a stream of many sizes.

Both sides see the same pictures equally often before they are timed: a first pass, whose time is told as cold, and
WARM_UP more.
"""

from __future__ import annotations

import io
import json
import os
import random
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cases

SAME = {"1080p": (1920, 1080), "12 Mpx": (4000, 3000)}
SAME_COUNT = 16
DIFFERENT = 64  # sizes of the stream
WARM_UP = 1


def stream_sizes(count: int) -> list[tuple[int, int]]:
    """Of DIFFERENT sizes, each at least once if `count` allows, in the order of a seed."""
    draw = random.Random(cases.SEED)
    sizes: list[tuple[int, int]] = []
    while len(sizes) < DIFFERENT:
        long = draw.randrange(320, 2049)
        short = round(long * draw.uniform(0.5, 1))
        size = (long, short) if draw.random() < 0.5 else (short, long)
        if size not in sizes:
            sizes.append(size)
    chosen = sizes[:count] + [draw.choice(sizes) for _ in range(count - len(sizes))]
    draw.shuffle(chosen)
    return chosen


def write_jpegs(directory: Path, count: int) -> dict[str, list[Path]]:
    """call -> files, no two of which are alike."""
    from PIL import Image

    directory.mkdir(parents=True, exist_ok=True)
    wanted = {f"{SAME_COUNT} of {name}": [size] * SAME_COUNT for name, size in SAME.items()}
    wanted[f"stream of {count}"] = stream_sizes(count)
    photo = Image.open(cases.ROOT / "assets" / "photos" / "flower.jpg").convert("RGB")
    draw = random.Random(cases.SEED)

    def write(path: Path, size: tuple[int, int], angle: float) -> None:
        turned = photo.rotate(angle, Image.Resampling.BICUBIC)
        turned.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)

    files: dict[str, list[Path]] = {}
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        written = []
        for name, sizes in wanted.items():
            for i, size in enumerate(sizes):
                path = directory / f"{name.replace(' ', '_')}_{i}_{size[0]}x{size[1]}.jpg"
                angle = draw.uniform(-8, 8)
                if not path.exists():
                    written.append(pool.submit(write, path, size, angle))
                files.setdefault(name, []).append(path)
        for one in written:
            one.result()
    return files


def measure_ours(build: Path, model: Path, files: list[Path], decoders: int, repeats: int) -> dict:
    command = [build / "benchmarks" / "bench_stream_gpu", "--model", model, "--decoders", decoders]
    command += ["--warm-up", WARM_UP, "--repeats", repeats]
    for file in files:
        command += ["--picture", file]
    output = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output)


def measure_peer(peer, files: list[Path], repeats: int) -> dict:
    """transformers' processor and tower, pictures one by one; pixels on the CPU, and on the GPU where it can."""
    import transformers
    from PIL import Image

    torch = peer.torch
    process = transformers.AutoImageProcessor.from_pretrained(peer.directory)
    contents = [file.read_bytes() for file in files]

    def embed(content: bytes, **options) -> None:
        inputs = process(images=[Image.open(io.BytesIO(content)).convert("RGB")], return_tensors="pt", **options)
        inputs = {key: value.cuda() for key, value in inputs.items() if hasattr(value, "cuda")}
        inputs["pixel_values"] = inputs["pixel_values"].to(peer.dtype)
        peer.features(inputs)
        torch.cuda.synchronize()

    def one_pass(options: dict) -> float:
        begin = time.perf_counter()
        for content in contents:
            embed(content, **options)
        return 1000 * (time.perf_counter() - begin)

    result = {}
    for kind, options in {"pixels on the CPU": {}, "pixels on the GPU": {"device": "cuda"}}.items():
        try:
            cold = one_pass(options)
            for _ in range(WARM_UP):
                one_pass(options)
            result[kind] = {"cold_ms": cold, "ms": [one_pass(options) for _ in range(repeats)]}
        except Exception as error:  # whatever the peer raises
            result[kind] = {"reason": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
    return result


def peer_cell(peer: dict, count: int) -> str:
    if "reason" in peer:
        return peer["reason"]
    return f"{statistics.median(peer['ms']) / count:.1f} (first pass {peer['cold_ms'] / count:.1f})"


def table(results: list[dict]) -> str:
    lines = []
    for line in results:
        ours, count = line["oriel"], line["oriel"]["pictures"]
        mean = {key: statistics.median(ours[f"{key}_ms"]) / count for key in ("decode", "one_by_one", "stream", "cold")}
        peers = [f"transformers, {kind}: {peer_cell(peer, count)}" for kind, peer in line["peer"].items()]
        told = [f"{mean['one_by_one']:.2f} one by one (decoding {mean['decode']:.2f}, first pass {mean['cold']:.2f})",
                f"{mean['stream']:.2f} with {ours['decoders']} decoding ahead", *peers]  # fmt: skip
        lines.append(f"{line['tower']:12s} {line['call']:14s} ms a picture: {'; '.join(told)}")
    return "\n".join(lines)
