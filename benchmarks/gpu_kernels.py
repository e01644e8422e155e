"""What a call of a tower on a GPU is made of: its kernels by themselves, and what the card allows.

The ceiling of a call is what its products (activations inside for nothing) and its attention take by themselves in the
same run, with norms and rotation at the speed of a copy, or their own where that is higher. Short kernels are timed in
a graph, with weights from memory and activations from the L2 cache, as in a tower: so their TB/s may exceed a copy's.
"""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path

import cases

SILU, GELU_ERF, GELU_TANH, QUICK_GELU = 2, 3, 4, 5  # kernels/kernels.h, ElementwiseFunction
WINDOW = cases.QWEN2_5["window"] // cases.QWEN["patch"]  # patches a side
TEXT_WIDTH = {"pixtral": 5120, "qwen2_vl": 3584, "qwen2_5_vl": 3584, "gemma3": 2560}


def padded(columns: int) -> int:
    return -(-columns // 8) * 8


def windows(height: int, width: int) -> list[int]:
    sides = lambda n: [min(WINDOW, n - at) for at in range(0, n, WINDOW)]  # noqa: E731
    return [h * w for h in sides(height) for w in sides(width)]


def parts(name: str, pictures: list[tuple[int, int]]) -> list[tuple[str, str, int]]:
    """(option of bench_kernels_gpu, its value, how often) of every kernel that matters."""
    tower = {"pixtral": cases.PIXTRAL, "gemma3": cases.SO400M}.get(name, cases.QWEN)
    width, heads, layers, patch = (tower[key] for key in ("width", "heads", "layers", "patch"))
    grids = [(h // patch, w // patch) for w, h in pictures]
    rows, text = sum(h * w for h, w in grids), TEXT_WIDTH[name]
    lengths = [h * w for h, w in grids]
    bias = int(name != "pixtral")
    mlp = {"qwen2_vl": 4 * width, "qwen2_5_vl": padded(cases.QWEN2_5["mlp"])}.get(name) or tower["mlp"]
    gated, function = {"pixtral": (1, SILU), "qwen2_5_vl": (1, SILU), "qwen2_vl": (0, QUICK_GELU)}.get(
        name, (0, GELU_TANH))  # fmt: skip
    layer_norm = int(name in ("qwen2_vl", "gemma3"))
    result = [
        ("norm", f"norm,{rows},{width},{layer_norm}", 2 * layers),
        ("product", f"qkv,{rows},{width},{3 * width},{bias},0", layers),
        ("product", f"proj,{rows},{width},{width},{bias},1", layers),
        ("activated", f"up,{rows},{width},{mlp},{gated},{function},{bias}", layers),
        ("product", f"down,{rows},{mlp},{width},{bias},1", layers),
    ]
    if name != "gemma3":
        result.append(("rotary", f"rotary,{rows},{heads},{width // heads}", layers))
    full = layers
    if name == "qwen2_5_vl":
        full = len(cases.QWEN2_5["full_layers"])
        inside = [str(n) for h, w in grids for n in windows(h, w)]
        result.append(("attention", f"windows,{heads},{width // heads},1,{','.join(inside)}", layers - full))
    result.append(("attention", f"attention,{heads},{width // heads},0,{','.join(map(str, lengths))}", full))
    values = 3 * patch**2 * (2 if name.startswith("qwen") else 1)
    result.append(("product", f"patch,{rows},{padded(values)},{width},0,0", 1))
    if name == "gemma3":
        result.append(("product", f"projector,{256 * len(pictures)},{width},{text},0,0", 1))
    else:
        merged, wide = (rows, width) if name == "pixtral" else (rows // 4, 4 * width)
        middle = text if name == "pixtral" else wide
        result.append(("activated", f"projector 1,{merged},{wide},{middle},0,{GELU_ERF},1", 1))
        result.append(("product", f"projector 2,{merged},{middle},{text},1,0", 1))
    return result


def flop(name: str, pictures: list[tuple[int, int]]) -> float:
    """Of the products and the attention of a call, with widths as they are padded."""
    total = 0.0
    for option, value, count in parts(name, pictures):
        numbers = [int(n) for n in value.split(",")[1:]]
        if option in ("product", "activated"):
            rows, inner, out, gated = numbers[:4] if option == "activated" else (*numbers[:3], 0)
            total += count * 2.0 * rows * inner * out * (1 + gated)
        elif option == "attention":
            heads, head_dim, _, *lengths = numbers
            total += count * 4.0 * heads * head_dim * sum(n * n for n in lengths)
    return total


def alone(value: str) -> str:
    """The product of an `activated` kernel, as bench_kernels_gpu wants it."""
    name, rows, inner, out, gated, _, bias = value.split(",")
    return f"{name} alone,{rows},{inner},{(1 + int(gated)) * int(out)},{bias},0"


def run(build: Path, options: list[str]) -> dict[str, dict]:
    """name -> what bench_kernels_gpu found of it; "copy" and "peak", a large product, are there without options."""
    command = [str(build / "benchmarks" / "bench_kernels_gpu"), *options]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {line["name"]: {**line, "us": line["us"][0]} for line in map(json.loads, output.splitlines())}


def best_product(by_name: dict[str, dict]) -> float:
    """TFLOP/s of the fastest product."""
    return max(k["flop"] / k["us"] for k in by_name.values() if k["kernel"] == "product") / 1e6


@functools.cache
def measure_peak(build: Path) -> float:
    """TFLOP/s of a large product."""
    return best_product(run(build, []))


def measure(build: Path, name: str, pictures: list[tuple[int, int]]) -> dict:
    """The kernels of a call with their counts, the card's limits, and the ceiling of the call in milliseconds."""
    listed = parts(name, pictures)
    options = []
    for option, value, _ in listed:
        options += [f"--{option}", value]
        if option == "activated":
            options += ["--product", alone(value)]
    by_name = run(build, options)
    copy = by_name["copy"]["bytes"] / by_name["copy"]["us"]  # bytes a microsecond
    peak = by_name["peak"]["flop"] / by_name["peak"]["us"]
    kernels, ceiling = [], 0.0
    for option, value, count in listed:
        kernel = by_name[value.split(",")[0]]
        best = kernel["us"]
        if option == "activated":
            kernel["alone_us"] = by_name[alone(value).split(",")[0]]["us"]
            best = min(best, kernel["alone_us"])
        elif option in ("norm", "rotary"):
            best = min(best, kernel["bytes"] / copy)
        ceiling += count * best / 1000
        share = kernel["flop"] / kernel["us"] / peak if kernel["kernel"] not in ("norm", "rotary", "windows") else (
            kernel["bytes"] / kernel["us"] / copy)  # fmt: skip
        kernels.append({**kernel, "count": count, "share": share})
    return {"kernels": kernels, "ceiling_ms": ceiling, "copy_tb_s": copy / 1e6, "peak_tflop_s": peak / 1e6,
            "best_product_tflop_s": best_product(by_name)}  # fmt: skip


def table(measured: dict, call_ms: float) -> str:
    lines = [f"{'kernel':12s} {'times':>5s} {'us':>9s} {'TFLOP/s':>8s} {'TB/s':>6s} {'of limit':>8s} {'ms':>8s} {'of call':>8s}"]
    for k in sorted(measured["kernels"], key=lambda k: -k["count"] * k["us"]):
        ms = k["count"] * k["us"] / 1000
        lines.append(f"{k['name']:12s} {k['count']:5d} {k['us']:9.1f} {k['flop'] / k['us'] / 1e6:8.0f} "
                     f"{k['bytes'] / k['us'] / 1e6:6.2f} {100 * k['share']:7.0f}% {ms:8.2f} {100 * ms / call_ms:7.1f}%")  # fmt: skip
    total = sum(k["count"] * k["us"] for k in measured["kernels"]) / 1000
    lines.append(f"together {total:.2f} ms of {call_ms:.2f}; ceiling {measured['ceiling_ms']:.2f} ms = "
                 f"{100 * measured['ceiling_ms'] / call_ms:.0f}% of the call; peak product {measured['peak_tflop_s']:.0f} "
                 f"TFLOP/s, copy {measured['copy_tb_s']:.2f} TB/s")  # fmt: skip
    return "\n".join(lines)
