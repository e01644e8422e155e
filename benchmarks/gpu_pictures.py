"""Files of pictures to rows on a GPU: one JPEG of 1080p and one of 12 megapixels, and a stream of mixed ones."""

from __future__ import annotations

import io
import json
import random
import statistics
import subprocess
import time
from pathlib import Path

import cases

SINGLE = {"1080p": (1920, 1080), "12 Mpx": (4000, 3000)}
STREAM = [(1920, 1080), (1024, 768), (640, 480), (800, 1200), (1280, 720), (512, 512), (2048, 1536), (300, 400)]


def write_jpegs(directory: Path, count: int) -> dict[str, list[Path]]:
    """call -> files; the stream's pictures have sizes of STREAM, drawn from a seed, and no two are alike."""
    from PIL import Image

    directory.mkdir(parents=True, exist_ok=True)
    draw = random.Random(cases.SEED)
    wanted = {name: [size] for name, size in SINGLE.items()}
    wanted[f"stream of {count}"] = [draw.choice(STREAM) for _ in range(count)]
    photo = Image.open(cases.ROOT / "assets" / "photos" / "flower.jpg").convert("RGB")
    files: dict[str, list[Path]] = {}
    for name, sizes in wanted.items():
        for i, size in enumerate(sizes):
            path = directory / f"{name.replace(' ', '_')}_{i}.jpg"
            if not path.exists():
                turned = photo.rotate(draw.uniform(-8, 8), Image.Resampling.BICUBIC)
                turned.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
            files.setdefault(name, []).append(path)
    return files


def measure_ours(build: Path, model: Path, files: list[Path], decoders: int, repeats: int) -> dict:
    command = [build / "benchmarks" / "bench_stream_gpu", "--model", model, "--decoders", decoders]
    command += ["--repeats", repeats]
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

    result = {}
    for kind, options in {"pixels on the CPU": {}, "pixels on the GPU": {"device": "cuda"}}.items():
        try:
            embed(contents[0], **options)
            ms = []
            for _ in range(repeats):
                begin = time.perf_counter()
                for content in contents:
                    embed(content, **options)
                ms.append(1000 * (time.perf_counter() - begin))
            result[kind] = ms
        except Exception as error:  # whatever the peer raises
            result[kind + ", failed"] = str(error).splitlines()[0]
    return result


def table(results: list[dict]) -> str:
    lines = []
    for line in results:
        ours, count = line["oriel"], line["oriel"]["pictures"]
        median = {key: statistics.median(ours[f"{key}_ms"]) / count for key in ("decode", "one_by_one", "stream")}
        peers = "; ".join(f"transformers, {kind}: {statistics.median(ms) / count:.1f}"
                          for kind, ms in line["peer"].items() if isinstance(ms, list))  # fmt: skip
        lines.append(f"{line['tower']:12s} {line['call']:14s} ms a picture: {median['one_by_one']:.2f} one by one "
                     f"(decoding {median['decode']:.2f}), {median['stream']:.2f} with {ours['decoders']} decoding ahead; {peers}")  # fmt: skip
    return "\n".join(lines)
