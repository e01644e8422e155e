"""Makes tests/data/pixels/: what torchvision, Pillow and transformers' image processors make of small pictures.

    python tests/goldens/make_pixel_goldens.py

Needs torch 2.11, torchvision 0.26, Pillow 13.0, transformers 5.17, numpy, safetensors. Every backend runs in a process of
its own. The sources are not stored: recipes that tests/image/pixel_recipes.hpp repeats make them from a kind, a seed and a
size. resize.safetensors lists its cases as JSON in the metadata: each has a hash of the result, small ones the result
itself as a tensor. patches.safetensors holds rows of patches.
"""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

OUT = Path(__file__).resolve().parent.parent / "data" / "pixels"
MULTIPLIER = 6364136223846793005
INCREMENT = 1442695040888963407
SMALL = 1500  # bytes of a result that is stored itself

# (width, height) to (width, height)
SIZES = [
    [(37, 23), (14, 28)],  # shrink one axis, grow the other
    [(23, 37), (28, 14)],
    [(64, 48), (20, 15)],
    [(20, 15), (64, 48)],
    [(100, 75), (99, 74)],  # by one pixel
    [(99, 74), (100, 75)],
    [(50, 40), (50, 13)],  # the width stays
    [(50, 40), (13, 40)],  # the height stays
    [(50, 13), (50, 40)],
    [(33, 21), (33, 21)],  # nothing changes
    [(1, 1), (9, 7)],
    [(9, 7), (1, 1)],
    [(1, 50), (7, 20)],
    [(50, 1), (20, 7)],
    [(2, 2), (5, 3)],
    [(3, 200), (60, 6)],  # extreme aspects
    [(200, 3), (6, 60)],
    [(400, 5), (3, 5)],
    [(40, 300), (28, 28)],  # Pillow 13 goes vertically first
    [(30, 90), (31, 45)],
    [(90, 90), (45, 44)],
    [(61, 200), (60, 100)],
    [(17, 19), (16, 18)],
    [(128, 128), (32, 32)],  # exactly four to one
    [(127, 129), (18, 13)],
    [(224, 160), (56, 84)],
    [(500, 333), (84, 56)],
    [(333, 500), (56, 84)],
    [(640, 427), (336, 224)],
    [(427, 640), (252, 364)],
    [(640, 480), (896, 896)],
    [(1280, 1707), (300, 301)],
    [(16, 1000), (5, 11)],
    [(1000, 16), (11, 5)],
]
KINDS = ["noise", "smooth", "edges"]
FILTERS = {
    "torchvision": ["bilinear", "bicubic", "lanczos"],
    "pillow": ["box", "bilinear", "hamming", "bicubic", "lanczos"],
    "pillow12": ["box", "bilinear", "hamming", "bicubic", "lanczos"],
}


def noise(width, height, seed):
    """Byte i is the top byte of state i + 1 of a 64-bit linear congruential generator that starts at `seed`."""
    count = 3 * width * height
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(count, MULTIPLIER, np.uint64))
        sums = np.cumsum(np.concatenate([np.ones(1, np.uint64), powers[:-1]]))
        states = powers * np.uint64(seed) + np.uint64(INCREMENT) * sums
    return (states >> np.uint64(56)).astype(np.uint8).reshape(height, width, 3)


def smooth(width, height, seed):
    x = np.arange(width)[None, :] * 255 // max(width - 1, 1) + np.zeros((height, 1), np.int64)
    y = np.arange(height)[:, None] * 255 // max(height - 1, 1) + np.zeros((1, width), np.int64)
    return np.stack([x, y, (x + y + seed) // 2 % 256], axis=2).astype(np.uint8)


def edges(width, height, seed):
    x, y = np.arange(width)[None, :, None], np.arange(height)[:, None, None]
    channel = np.arange(3)[None, None, :]
    return ((((x + channel) // 3 + y // 2 + seed) % 2) * 255).astype(np.uint8)


RECIPES = {"noise": noise, "smooth": smooth, "edges": edges}


def polynomial_hash(values):
    """h = h * MULTIPLIER + byte + 1 modulo 2^64, starting at 0."""
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).astype(np.uint64) + np.uint64(1)
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(data.size, MULTIPLIER, np.uint64))
        powers = np.concatenate([np.ones(1, np.uint64), powers[:-1]])[::-1]
        return int((data * powers).sum(dtype=np.uint64))


# An implementation of its own of spec/resize.md: the oracle for Pillow 12, whose package can't be installed beside Pillow
# 13, and for lanczos, which this torchvision has for PIL pictures only. It is checked below wherever a package answers.


def filter_weight(name, x):
    if name == "box":
        return 1.0 if -0.5 < x <= 0.5 else 0.0
    if name == "lanczos":
        sinc = lambda v: 1.0 if v == 0.0 else math.sin(v * math.pi) / (v * math.pi)
        return sinc(x) * sinc(x / 3) if -3.0 <= x < 3.0 else 0.0
    x = abs(x)
    if name == "bilinear":
        return 1.0 - x if x < 1.0 else 0.0
    if name == "hamming":
        if x == 0.0:
            return 1.0
        if x >= 1.0:
            return 0.0
        x *= math.pi
        return math.sin(x) / x * (float(np.float32(0.54)) + float(np.float32(0.46)) * math.cos(x))
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0


def axis_matrix(n_in, n_out, name, torchvision):
    """Integer weights [n_out, n_in] and the bits after the point."""
    support = {"box": 0.5, "bilinear": 1, "hamming": 1, "bicubic": 2, "lanczos": 3}[name]
    scale = n_in / n_out
    stretch = max(scale, 1.0)
    real = np.zeros((n_out, n_in))
    for i in range(n_out):
        center = (i + 0.5) * scale
        low = max(0, int(center - support * stretch + 0.5))
        high = min(n_in, int(center + support * stretch + 0.5))
        taps = [filter_weight(name, (j - center + 0.5) * (1.0 / stretch)) for j in range(low, high)]
        total = 0.0
        for tap in taps:
            total += tap
        real[i, low:high] = [tap / total for tap in taps] if total != 0.0 else taps
    bits = 22
    if torchvision:
        bits = 0
        while bits < 22 and int(0.5 + max(real.max(), 0.0) * 2.0 ** (bits + 1)) < 2**15:
            bits += 1
    return np.trunc(real * 2.0**bits + np.where(real < 0, -0.5, 0.5)).astype(np.int64), bits


def numpy_resize(pixels, size, name, torchvision=False, vertical_first=False):
    width, height = size

    def horizontal(image):
        if image.shape[1] == width:
            return image
        matrix, bits = axis_matrix(image.shape[1], width, name, torchvision)
        sums = np.einsum("oi,hic->hoc", matrix, image.astype(np.int64), optimize=True)
        return np.clip((sums + (1 << (bits - 1))) >> bits, 0, 255).astype(np.uint8)

    def vertical(image):
        if image.shape[0] == height:
            return image
        return horizontal_of_transposed(image)

    def horizontal_of_transposed(image):
        matrix, bits = axis_matrix(image.shape[0], height, name, torchvision)
        sums = np.einsum("oi,iwc->owc", matrix, image.astype(np.int64), optimize=True)
        return np.clip((sums + (1 << (bits - 1))) >> bits, 0, 255).astype(np.uint8)

    return horizontal(vertical(pixels)) if vertical_first else vertical(horizontal(pixels))


def goes_vertical_first(source, target):
    rows, columns = source[1] - target[1], source[0] - target[0]
    return rows > 0 and rows > 2 * columns


def resize_torchvision(pixels, source, target, name):
    import torch
    from torchvision.transforms.v2 import functional as F
    from torchvision.transforms.v2 import InterpolationMode

    own = numpy_resize(pixels, target, name, torchvision=True)
    if name == "lanczos":
        return own
    modes = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    try:
        result = F.resize(tensor, [target[1], target[0]], interpolation=modes[name], antialias=True)
    except RuntimeError as error:
        # Of a single pixel torch 2.11 can take planes for interleaved pixels, and then stops by itself.
        assert target == (1, 1) and "INTERNAL ASSERT" in str(error), (error, source, target)
        print(f"torchvision refuses {source} to {target}: the numpy version stands in")
        return own
    result = result.permute(1, 2, 0).contiguous().numpy()
    assert np.array_equal(own, result), ("numpy differs from torchvision", source, target, name)
    return result


def resize_pillow(pixels, source, target, name):
    from PIL import Image

    codes = {"lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
    result = np.asarray(Image.fromarray(pixels).resize(target, Image.Resampling(codes[name])))
    own = numpy_resize(pixels, target, name, vertical_first=goes_vertical_first(source, target))
    assert np.array_equal(own, result), ("numpy differs from Pillow", source, target, name)
    return result


def resize_pillow12(pixels, source, target, name):
    result = numpy_resize(pixels, target, name)
    if not goes_vertical_first(source, target):
        newer = resize_pillow(pixels, source, target, name)
        assert np.array_equal(result, newer), ("horizontal first differs from Pillow 13", source, target, name)
    return result


RESIZERS = {"torchvision": resize_torchvision, "pillow": resize_pillow, "pillow12": resize_pillow12}


def make_resizes(backend, tensors, cases):
    for i, (source, target) in enumerate(SIZES):
        if backend == "pillow12" and not goes_vertical_first(source, target):
            continue  # the same as pillow
        large = source[0] * source[1] > 100_000
        for name in FILTERS[backend]:
            # Every kind of picture at the small sizes, one of them at the large ones.
            for kind in [KINDS[i % 2]] if large else KINDS:
                seed = 1000 * i + len(cases)
                result = RESIZERS[backend](RECIPES[kind](*source, seed), source, target, name)
                case = {"arithmetic": backend, "filter": name, "kind": kind, "seed": seed, "source": source}
                case |= {"target": target, "hash": f"{polynomial_hash(result):016x}"}
                if result.size <= SMALL and kind == "noise":
                    case["tensor"] = f"{backend}.{len(cases)}"
                    tensors[case["tensor"]] = np.ascontiguousarray(result)
                cases.append(case)


CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
# name, processor, its arguments, what PixelSpec needs to know beside them
PROCESSORS = [
    ("qwen2_vl", "Qwen2VLImageProcessor", {"patch_size": 14, "min_pixels": 3136, "max_pixels": 6272}, {"temporal": 2, "merge": 2}),
    ("qwen3_vl", "Qwen2VLImageProcessor", {"patch_size": 16, "min_pixels": 1024, "max_pixels": 4096, **HALF}, {"temporal": 2, "merge": 2}),
    ("qwen_unnormalized", "Qwen2VLImageProcessor", {"patch_size": 14, "min_pixels": 784, "max_pixels": 3136, "do_normalize": False}, {"temporal": 2, "merge": 2}),
    ("qwen_unscaled", "Qwen2VLImageProcessor", {"patch_size": 14, "min_pixels": 784, "max_pixels": 3136, "do_rescale": False}, {"temporal": 2, "merge": 2}),
    ("pixtral", "PixtralImageProcessor", {"size": {"longest_edge": 64}, "patch_size": {"height": 16, "width": 16}}, {}),
    ("siglip", "SiglipImageProcessor", {"size": {"height": 56, "width": 56}, "resample": 3}, {}),
    ("siglip_remainder", "SiglipImageProcessor", {"size": {"height": 40, "width": 40}, "resample": 3}, {}),
    ("gemma3", "Gemma3ImageProcessor", {"size": {"height": 56, "width": 56}, "resample": 2, "do_pan_and_scan": False}, {}),
]
PICTURES = [("noise", 7, (70, 50)), ("smooth", 8, (41, 97))]


def patch_rows(values, patch):
    """[3, H, W] to rows (channel, y, x) in raster order; what is right of and below the last whole patch falls away."""
    rows, columns = values.shape[1] // patch, values.shape[2] // patch
    values = values[:, : rows * patch, : columns * patch]
    values = values.reshape(3, rows, patch, columns, patch).transpose(1, 3, 0, 2, 4)
    return np.ascontiguousarray(values.reshape(rows * columns, 3 * patch * patch))


def make_patches(backend, tensors, cases):
    import transformers
    from PIL import Image

    for name, class_name, arguments, extra in PROCESSORS:
        processor = getattr(transformers, class_name + ("Pil" if backend == "pillow" else ""))(**arguments)
        patch = arguments.get("patch_size", 14)
        patch = patch if isinstance(patch, int) else patch["height"]
        for kind, seed, size in PICTURES:
            picture = Image.fromarray(RECIPES[kind](*size, seed))
            output = processor(images=[picture], return_tensors="np")
            values = np.asarray(output["pixel_values"], dtype=np.float32)
            if "image_grid_thw" in output:
                grid = [int(v) for v in np.asarray(output["image_grid_thw"]).reshape(-1)]
                target = (grid[2] * patch, grid[1] * patch)
            else:
                target = (values.shape[3], values.shape[2])
                values = patch_rows(values[0], patch)
            case = {"processor": name, "arithmetic": backend, "kind": kind, "seed": seed, "source": size}
            case |= {"target": target, "patch": patch, "temporal": extra.get("temporal", 1), "merge": extra.get("merge", 1)}
            case |= {"filter": {2: "bilinear", 3: "bicubic"}[int(processor.resample)]}
            case |= {"do_rescale": processor.do_rescale, "rescale_factor": processor.rescale_factor}
            case |= {"do_normalize": processor.do_normalize, "hash": f"{polynomial_hash(values):016x}"}
            case |= {"mean": list(processor.image_mean), "std": list(processor.image_std)}
            if kind == "noise" and name in ("qwen2_vl", "siglip_remainder"):
                case["tensor"] = f"{backend}.{name}"
                tensors[case["tensor"]] = values
            cases.append(case)


PARTS = {"resize": (make_resizes, ["torchvision", "pillow", "pillow12"]), "patches": (make_patches, ["torchvision", "pillow"])}


def make_part(part, backend, path):
    tensors, cases = {}, []
    PARTS[part][0](backend, tensors, cases)
    save_file(tensors | {"empty": np.zeros(1, np.uint8)}, path)
    Path(path).with_suffix(".json").write_text(json.dumps(cases))


def main():
    if len(sys.argv) == 4:
        return make_part(*sys.argv[1:])
    OUT.mkdir(parents=True, exist_ok=True)
    for part, (_, backends) in PARTS.items():
        tensors, cases = {}, []
        with tempfile.TemporaryDirectory() as folder:
            for backend in backends:
                path = Path(folder) / f"{backend}.safetensors"
                subprocess.run([sys.executable, __file__, part, backend, str(path)], check=True)
                made = load_file(path)
                del made["empty"]
                tensors |= made
                cases += json.loads(path.with_suffix(".json").read_text())
        save_file(tensors, OUT / f"{part}.safetensors", metadata={"cases": json.dumps(cases)})
        print(f"{part}: {len(cases)} cases, {len(tensors)} stored, {(OUT / f'{part}.safetensors').stat().st_size} bytes")


if __name__ == "__main__":
    main()
