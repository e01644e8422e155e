"""Towers on a GPU: oriel against transformers, eager and compiled, patches to rows, both in device memory.

    python benchmarks/gpu.py --build BUILD [--towers NAME...] [--parts calls kernels pictures profile]
                             [--compiled] [--cases NAME...] [--out FILE.jsonl]

Writes random weights in the released sizes, checks first that our rows are as near to the float32 truth as those of
transformers, then prints one table of medians and ratios. `kernels` adds what each call is made of and how near it is
to what the card allows, `pictures` times JPEG files to rows, `profile` records what a call's time goes to while it runs
in a loop. --out gets every figure as JSON lines.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import cases
import gpu_compiled
import gpu_kernels
import gpu_pictures
import gpu_profile

sys.path.insert(0, str(cases.ROOT / "tests" / "goldens"))

MIX_16 = [(1024, 1024), (768, 512), (512, 768), (336, 336), (640, 1024), (1024, 256), (896, 896), (480, 640)]
MIX_14 = [(1008, 1008), (756, 504), (504, 756), (336, 336), (644, 1008), (1008, 252), (896, 896), (476, 644)]


def squares(*sides: int) -> dict[str, list[tuple[int, int]]]:
    return {f"{side}": [(side, side)] for side in sides}


QWEN_CASES = {**squares(252, 504, 1008, 1792), "8 x 1008": [(1008, 1008)] * 8, "mix8": MIX_14}
# tower -> call -> pictures (width, height) in pixels; what ../docs/performance.md reports
TOWERS = {
    "pixtral": {**squares(256, 512, 1024), "8 x 1024": [(1024, 1024)] * 8, "mix8": MIX_16},
    "qwen2_vl": QWEN_CASES,
    "qwen2_5_vl": QWEN_CASES,
    "gemma3": {"896": [(896, 896)], "8 x 896": [(896, 896)] * 8},
}
# Of a call, in ms on one H100: what has to be reached, and what is aimed at. Judge by ratios within a run.
TARGETS = {
    "pixtral": {"256": (1.4, 0.9), "512": (2.6, 2.0), "1024": (10.8, 8.6), "8 x 1024": (83, 68), "mix8": (35, 28.5)},
    "qwen2_vl": {"252": (2.1, 1.4), "504": (4.9, 3.8), "1008": (24, 19.3), "1792": (135, 110), "8 x 1008": (180, 145),
                 "mix8": (73, 59)},
    "qwen2_5_vl": {"252": (2.1, 1.4), "504": (4.6, 3.5), "1008": (16.2, 13.2), "1792": (54, 43.6), "8 x 1008": (116, 93),
                   "mix8": (55, 44)},
    "gemma3": {"896": (12, 9.6), "8 x 896": (86, 70)},
}  # fmt: skip


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make_checkpoint(name: str, directory: Path) -> Path:
    """Random weights, stored in bfloat16, so that both sides compute from the same values."""
    import torch
    from checkpoint_writer import Checkpoint, write_checkpoint

    if not (directory / "model.safetensors").exists():
        say(f"making random weights of {name}")
        config, files, tokenizer = cases.checkpoint(name, quick=False)
        write_checkpoint(Checkpoint(config, files, tokenizer, dtype=torch.bfloat16), directory, cases.SEED)
    return directory


class Peer:
    """transformers' tower on the GPU."""

    def __init__(self, name: str, directory: Path):
        import torch
        import transformers
        from checkpoint_writer import model_class

        self.torch, self.directory = torch, directory
        self.config = transformers.AutoConfig.from_pretrained(directory)
        self.kind = model_class(self.config.model_type)
        self.is_qwen = self.config.model_type.startswith("qwen")
        self.patch = self.config.vision_config.patch_size

    def load(self, dtype) -> None:
        self.model = self.kind.from_pretrained(self.directory, dtype=dtype, attn_implementation="sdpa").eval().cuda()
        self.dtype = dtype

    def inputs(self, pictures: list[tuple[int, int]], seed: int = 0) -> dict:
        """Random pixels as the processor would hand them over, on the GPU."""
        torch = self.torch
        generator = torch.Generator("cuda").manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, generator=generator, device="cuda").to(self.dtype)  # noqa: E731
        if self.is_qwen:
            grids = [(1, h // self.patch, w // self.patch) for w, h in pictures]
            values = 3 * 2 * self.patch**2
            return {"pixel_values": draw(sum(h * w for _, h, w in grids), values),
                    "image_grid_thw": torch.tensor(grids, device="cuda")}  # fmt: skip
        height, width = max(h for _, h in pictures), max(w for w, _ in pictures)
        result = {"pixel_values": draw(len(pictures), 3, height, width)}
        if self.config.model_type in ("llava", "mistral3"):
            result["image_sizes"] = torch.tensor([(h, w) for w, h in pictures], device="cuda")
        return result

    def features(self, inputs: dict):
        with self.torch.no_grad():
            return self.model.get_image_features(**inputs).pooler_output

    def of_picture(self, picture: Path):
        """Rows of a picture through the processor, float32 on the host."""
        import transformers
        from PIL import Image

        process = transformers.AutoImageProcessor.from_pretrained(self.directory)
        inputs = {k: v.cuda() for k, v in process(images=[Image.open(picture)], return_tensors="pt").items()
                  if hasattr(v, "cuda")}  # fmt: skip
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        return self.features(inputs)[0].float().cpu()

    def drop(self) -> None:
        self.model = None
        gc.collect()
        self.torch.cuda.empty_cache()


def timed(torch, work, warm_up: int, repeats: int) -> list[float]:
    for _ in range(warm_up):
        work()
    torch.cuda.synchronize()
    ms = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        ms.append(1000 * (time.perf_counter() - begin))
    return ms


def measure_eager(peer: Peer, calls: dict, repeats: int) -> dict[str, dict]:
    """call -> {"ms": [...]} or {"reason": why there are none}"""
    torch = peer.torch
    results: dict[str, dict] = {}
    for call, pictures in calls.items():
        try:
            inputs = peer.inputs(pictures)
            results[call] = {"ms": timed(torch, lambda: peer.features(inputs), 3, repeats)}
        except Exception as error:  # whatever the peer raises, such as out of memory
            results[call] = {"reason": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        gc.collect()
        torch.cuda.empty_cache()
    return results


def measure_peers(
    name: str, directory: Path, peer: Peer, calls: dict, arguments: argparse.Namespace
) -> tuple[dict, dict]:
    """Of every call: milliseconds by kind of peer; and what there is to say about the others, by kind."""
    found = {}
    if "eager" in arguments.peers:
        peer.load(peer.torch.bfloat16)
        found["eager"] = measure_eager(peer, calls, arguments.repeats)
        peer.drop()
    if arguments.compiled:
        chosen = {k: v for k, v in calls.items() if not arguments.compile_cases or k in arguments.compile_cases}
        found["compile"] = gpu_compiled.measure(name, directory, chosen, arguments.repeats, arguments.compile_seconds,
                                                arguments.compile_together)  # fmt: skip
    times: dict = {call: {} for call in calls}
    remarks: dict = {call: {} for call in calls}
    for kind, results in found.items():
        for call, result in results.items():
            if "ms" in result:
                times[call][kind] = result["ms"]
            if remark := result.get("reason") or result.get("note"):
                remarks[call][kind] = remark
                say(f"{name} {call} {kind}: {remark}")
    return times, remarks


def measure_ours(build: Path, directory: Path, calls: dict, dtype: str, repeats: int) -> dict:
    command = [build / "benchmarks" / "bench_tower_gpu", "--model", directory, "--dtype", dtype, "--repeats", repeats]
    texts = {",".join(f"{w}x{h}" for w, h in pictures): call for call, pictures in calls.items()}
    for text in texts:
        command += ["--call", text]
    output = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {texts[line["call"]]: line for line in map(json.loads, output.splitlines())}


def exactness(build: Path, directory: Path, peer: Peer, picture: Path, scratch: Path) -> dict:
    """Relative distance (norm over norm) from transformers' float32 rows, ours and its own, on one picture."""
    torch = peer.torch
    from safetensors.torch import load_file

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    peer.load(torch.float32)
    truth = peer.of_picture(picture)
    peer.drop()
    distance = lambda rows: float((rows.double() - truth.double()).norm() / truth.double().norm())  # noqa: E731
    result = {}
    for dtype in ("float32", "bfloat16", "float16"):
        out = scratch / "rows.safetensors"
        command = [build / "examples" / "embed_image", "--model", directory, "--device", "cuda", "--dtype", dtype]
        command += ["--out", out, picture]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        rows = load_file(out)["embeddings.0"].float()
        result[dtype] = distance(rows)
        if dtype == "float32":
            result["float32, of the scale"] = float((rows - truth).abs().max() / truth.abs().max())
        else:
            peer.load(getattr(torch, dtype))
            result[f"transformers {dtype}"] = distance(peer.of_picture(picture))
            peer.drop()
    return result


def planned(ours: dict) -> str:
    """What plan() says of one picture next to what its first calls held at most; calls of several have no plan."""
    return f"{ours['planned_bytes'] / ours['working_bytes']:.3f}" if ours["planned_bytes"] else "-"


def table(results: list[dict]) -> str:
    columns = ["tower", "call", "patches", "oriel ms", "+-%", "eager ms", "compile ms", "eager /", "compile /", "must",
               "goal", "of goal", "ceiling", "of ceiling", "MiB", "planned"]  # fmt: skip
    rows = []
    for line in results:
        ours = statistics.median(line["oriel"]["ms"])
        spread = 100 * (max(line["oriel"]["ms"]) - min(line["oriel"]["ms"])) / 2 / ours
        peers = {kind: statistics.median(ms) for kind, ms in line["peers"].items()}
        must, goal = TARGETS[line["tower"]][line["call"]]
        show = lambda kind: f"{peers[kind]:.2f}" if kind in peers else "-"  # noqa: E731
        ratio = lambda kind: f"{peers[kind] / ours:.2f}" if kind in peers else "-"  # noqa: E731
        rows.append([line["tower"], line["call"], str(line["oriel"]["patches"]), f"{ours:.2f}", f"{spread:.0f}",
                     show("eager"), show("compile"), ratio("eager"), ratio("compile"),
                     f"{must}{'' if ours <= must else ' !'}", f"{goal}", f"{ours / goal:.2f}",
                     f"{line['kernels']['ceiling_ms']:.2f}" if "kernels" in line else "-",
                     f"{100 * line['kernels']['ceiling_ms'] / ours:.0f}%" if "kernels" in line else "-",
                     f"{line['oriel']['working_bytes'] / 2**20:.0f}", planned(line["oriel"])])  # fmt: skip
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths)) for row in [columns, *rows])


def chosen_calls(name: str, arguments: argparse.Namespace) -> dict[str, list[tuple[int, int]]]:
    return {k: v for k, v in TOWERS[name].items() if not arguments.cases or k in arguments.cases}


def measure_calls(name: str, directory: Path, arguments: argparse.Namespace) -> list[dict]:
    calls = chosen_calls(name, arguments)
    peer = Peer(name, directory)
    close = {}
    if not arguments.skip_exactness:
        picture = arguments.checkpoints / "picture.bmp"
        cases.write_picture((700, 500), picture)
        close = exactness(arguments.build, directory, peer, picture, arguments.checkpoints)
        say(f"{name}: distance from float32: " + ", ".join(f"{k} {v:.2e}" for k, v in close.items()))
    peers, remarks = measure_peers(name, directory, peer, calls, arguments)
    ours = measure_ours(arguments.build, directory, calls, "bfloat16", arguments.repeats)
    lines = [{"tower": name, "call": call, "oriel": ours[call], "peers": peers[call], "remarks": remarks[call],
              "exactness": close} for call in calls]  # fmt: skip
    if "kernels" in arguments.parts:
        for line in lines:
            line["kernels"] = gpu_kernels.measure(arguments.build, name, calls[line["call"]])
            ms = statistics.median(line["oriel"]["ms"])
            print(f"{name} {line['call']}\n{gpu_kernels.table(line['kernels'], ms)}\n", flush=True)
    return lines


def measure_pictures(name: str, directory: Path, arguments: argparse.Namespace) -> list[dict]:
    files = gpu_pictures.write_jpegs(arguments.checkpoints / "jpegs", arguments.stream)
    ours = {call: gpu_pictures.measure_ours(arguments.build, directory, some, arguments.decoders, 2 if len(some) > 1 else 5)
            for call, some in files.items()}  # fmt: skip
    theirs: dict = {call: {} for call in files}
    if arguments.peers:
        peer = Peer(name, directory)
        peer.load(peer.torch.bfloat16)
        theirs = {call: gpu_pictures.measure_peer(peer, some, 1 if len(some) > 1 else 5) for call, some in files.items()}
        peer.drop()
    return [{"tower": name, "call": call, "oriel": ours[call], "peer": theirs[call]} for call in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help="build folder with ORIEL_CUDA and the benchmarks")
    parser.add_argument("--checkpoints", type=Path, default=Path("build/gpu-checkpoints"), help="kept between runs")
    parser.add_argument("--towers", nargs="+", choices=list(TOWERS), default=list(TOWERS))
    parser.add_argument("--parts", nargs="+", choices=["calls", "kernels", "pictures", "profile"], default=["calls"])
    parser.add_argument("--stream", type=int, default=200, help="pictures of the stream (default: 200)")
    parser.add_argument("--decoders", type=int, default=4, help="threads that decode ahead (default: 4)")
    parser.add_argument("--peers", nargs="*", choices=["eager"], default=["eager"], help="none after it: ours alone")
    parser.add_argument("--compiled", action="store_true",
                        help="torch.compile'd, too (reduce-overhead, static shapes; Qwen2.5-VL: default mode)")  # fmt: skip
    parser.add_argument("--compile-seconds", type=float, default=240,
                        help="limit of the calls that compile side by side (default: 240)")  # fmt: skip
    parser.add_argument("--compile-together", type=int, default=6, help="calls compiled side by side (default: 6)")
    parser.add_argument("--cases", nargs="+", help="calls by name (default: all)")
    parser.add_argument("--compile-cases", nargs="+", help="calls that the compiled peer runs (default: all)")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--skip-exactness", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON lines")
    arguments = parser.parse_args()

    results, streams, profiles = [], [], []
    for name in arguments.towers:
        directory = make_checkpoint(name, arguments.checkpoints / name)
        if "calls" in arguments.parts:
            lines = measure_calls(name, directory, arguments)
            print(table(lines), flush=True)
            results += lines
        if "pictures" in arguments.parts:
            lines = measure_pictures(name, directory, arguments)
            print(gpu_pictures.table(lines), flush=True)
            streams += lines
        if "profile" in arguments.parts:
            calls = chosen_calls(name, arguments)
            show = lambda text: print(text, flush=True)  # noqa: E731
            lines = gpu_profile.measure(arguments.build, name, directory, calls, show)
            profiles += lines
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(line) + "\n" for line in results + streams + profiles))
    if results:
        print("\n" + table(results))
        for line in results:
            for kind, remark in line["remarks"].items():
                print(f"{line['tower']} {line['call']}, {kind}: {remark}")
    if streams:
        print("\n" + gpu_pictures.table(streams))
    if profiles:
        print(f"\n{gpu_profile.table(profiles)}\n\n{gpu_profile.product_table(profiles)}")


if __name__ == "__main__":
    main()
