"""Towers on a GPU: oriel against transformers, eager and compiled, patches to rows, both in device memory.

    python benchmarks/gpu.py --build BUILD [--towers NAME...] [--parts exactness calls kernels pictures profile]
                             [--compiled] [--cases NAME...] [--out FILE.jsonl]

Writes random weights in the released sizes, checks first that our rows are as near to the float32 truth as those of
transformers, then prints one table of medians and ratios. `exactness` is that check alone, `kernels` adds what each
call is made of and how near it is to what the card allows, `pictures` times JPEG files to rows, `profile` records what
a call's time goes to while it runs in a loop. --out gets every figure as JSON lines, each as soon as it is there.

What is not exact, slower than it must be, or fails, is told at the end, a line each; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import cases
import gpu_compiled
import gpu_exactness
import gpu_kernels
import gpu_pictures
import gpu_profile

sys.path.insert(0, str(cases.ROOT / "tests" / "goldens"))

MIX_16 = [(1024, 1024), (768, 512), (512, 768), (336, 336), (640, 1024), (1024, 256), (896, 896), (480, 640)]
MIX_14 = [(1008, 1008), (756, 504), (504, 756), (336, 336), (644, 1008), (1008, 252), (896, 896), (476, 644)]


PARTS = ["exactness", "calls", "kernels", "pictures", "profile"]


def squares(*sides: int) -> dict[str, list[tuple[int, int]]]:
    return {f"{side}": [(side, side)] for side in sides}


QWEN_CASES = {**squares(252, 504, 1008, 1792), "8 x 1008": [(1008, 1008)] * 8, "mix8": MIX_14}
# tower -> call -> pictures (width, height) in pixels; what ../docs/performance_gpu.md reports. Without calls: towers of
# which exactness alone is looked at.
TOWERS: dict[str, dict] = {
    "pixtral": {**squares(256, 512, 1024), "8 x 1024": [(1024, 1024)] * 8, "mix8": MIX_16},
    "qwen2_vl": QWEN_CASES,
    "qwen2_5_vl": QWEN_CASES,
    "gemma3": {"896": [(896, 896)], "8 x 896": [(896, 896)] * 8},
    "mistral3": {},
    "siglip": {},
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


class Findings:
    """What was found, written as soon as it is there, and what failed."""

    def __init__(self, out: Path | None):
        self.out = out
        self.failures: list[str] = []
        if out:
            out.write_text("")

    def keep(self, line: dict) -> None:
        if self.out:
            with self.out.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def fail(self, what: str) -> None:
        say(f"FAILED: {what}")
        self.failures.append(what)


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
        self.patch = getattr(self.config, "vision_config", self.config).patch_size

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
            if self.config.model_type == "siglip_vision_model":
                return self.model(**inputs).last_hidden_state
            return self.model.get_image_features(**inputs).pooler_output

    def of_picture(self, picture: Path):
        """Rows of a picture through the processor, float32 on the host."""
        import transformers
        from PIL import Image

        process = transformers.AutoImageProcessor.from_pretrained(self.directory)
        # Mistral3's processor, which has the text side too, hands this to its image processor.
        merge = getattr(self.config, "spatial_merge_size", 1)
        options = {"patch_size": merge * self.patch} if merge > 1 else {}
        inputs = {k: v.cuda() for k, v in process(images=[Image.open(picture)], return_tensors="pt", **options).items()
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
    """call -> {"ms": [...], "working_bytes": above weights and inputs}, or {"reason": why there are none}"""
    torch = peer.torch
    results: dict[str, dict] = {}
    for call, pictures in calls.items():
        try:
            inputs = peer.inputs(pictures)
            work = functools.partial(peer.features, inputs)
            timed(torch, work, 3, 0)  # now libraries have what they keep
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            ms = timed(torch, work, 0, repeats)
            results[call] = {"ms": ms, "working_bytes": torch.cuda.max_memory_allocated() - before}
            say(f"{call}, eager: {statistics.median(ms):.2f} ms")
        except Exception as error:  # whatever the peer raises, such as out of memory
            results[call] = {"reason": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
        gc.collect()
        torch.cuda.empty_cache()
    return results


def measure_peers(name: str, directory: Path, peer: Peer, calls: dict, arguments: argparse.Namespace) -> dict:
    """Of every call, by kind of peer: milliseconds, bytes, and what there is to say about the others."""
    found = {}
    if "eager" in arguments.peers:
        peer.load(peer.torch.bfloat16)
        found["eager"] = measure_eager(peer, calls, arguments.repeats)
        peer.drop()
    if arguments.compiled:
        chosen = {k: v for k, v in calls.items() if not arguments.compile_cases or k in arguments.compile_cases}
        found["compile"] = gpu_compiled.measure(name, directory, chosen, arguments.repeats, arguments.compile_seconds,
                                                arguments.compile_together)  # fmt: skip
    lines: dict = {call: {"peers": {}, "peer_bytes": {}, "remarks": {}} for call in calls}
    for kind, results in found.items():
        for call, result in results.items():
            if "ms" in result:
                lines[call]["peers"][kind] = result["ms"]
            if "working_bytes" in result:
                lines[call]["peer_bytes"][kind] = result["working_bytes"]
            if remark := result.get("reason") or result.get("note"):
                lines[call]["remarks"][kind] = remark
                say(f"{name} {call} {kind}: {remark}")
    return lines


def measure_ours(build: Path, directory: Path, calls: dict, dtype: str, repeats: int, findings: Findings) -> dict:
    """call -> what bench_tower_gpu says of it, as far as it comes."""
    command = [build / "benchmarks" / "bench_tower_gpu", "--model", directory, "--dtype", dtype, "--repeats", repeats]
    texts = {",".join(f"{w}x{h}" for w, h in pictures): call for call, pictures in calls.items()}
    for text in texts:
        command += ["--call", text]
    lines = {}
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True) as program:
        for line in map(json.loads, program.stdout):
            lines[texts[line["call"]]] = line
            say(f"{texts[line['call']]}: {statistics.median(line['ms']):.2f} ms")
    if program.returncode:
        missing = ", ".join(call for call in calls if call not in lines)
        findings.fail(f"{directory.name}: bench_tower_gpu ended with {program.returncode}, without {missing}")
    return lines


def planned(ours: dict) -> str:
    """What plan() says of one picture next to what its first calls held at most; calls of several have no plan."""
    return f"{ours['planned_bytes'] / ours['working_bytes']:.3f}" if ours["planned_bytes"] else "-"


def table(results: list[dict]) -> str:
    columns = ["tower", "call", "patches", "oriel ms", "+-%", "eager ms", "compile ms", "eager /", "compile /", "must",
               "goal", "of goal", "ceiling", "of ceiling", "goal / ceiling", "of peak", "MiB", "eager MiB",
               "planned"]  # fmt: skip
    best_product = max((line["product_tflop_s"] for line in results), default=0)
    rows = [columns, *(table_row(line, best_product) for line in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    text = "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths)) for row in rows)
    return f"{text}\nof peak: of {best_product:.0f} TFLOP/s, the fastest product measured" if best_product else text


def table_row(line: dict, best_product: float) -> list[str]:
    ours, ms = line["oriel"], statistics.median(line["oriel"]["ms"])
    spread = 100 * (max(ours["ms"]) - min(ours["ms"])) / 2 / ms
    peers = {kind: statistics.median(times) for kind, times in line["peers"].items()}
    show = lambda value, form: "-" if value is None else format(value, form)  # noqa: E731
    ratio = lambda a, b, form=".2f": "-" if a is None or not b else format(a / b, form)  # noqa: E731
    must, goal = TARGETS.get(line["tower"], {}).get(line["call"], (None, None))
    ceiling = line["kernels"]["ceiling_ms"] if "kernels" in line else None
    eager_bytes = line["peer_bytes"].get("eager")
    return [line["tower"], line["call"], str(ours["patches"]), f"{ms:.2f}", f"{spread:.0f}",
            show(peers.get("eager"), ".2f"), show(peers.get("compile"), ".2f"),
            ratio(peers.get("eager"), ms), ratio(peers.get("compile"), ms),
            show(must, "g") + (" !" if must is not None and ms > must else ""), show(goal, "g"), ratio(ms, goal),
            show(ceiling, ".2f"), ratio(ceiling, ms, ".0%"), ratio(goal, ceiling),
            ratio(line["flop"] / ms / 1e9, best_product, ".0%"), f"{ours['working_bytes'] / 2**20:.0f}",
            ratio(eager_bytes, 2**20, ".0f"), planned(ours)]  # fmt: skip


def slower_than_must(line: dict) -> str | None:
    must, _ = TARGETS.get(line["tower"], {}).get(line["call"], (None, None))
    ms = statistics.median(line["oriel"]["ms"])
    return f"{line['tower']} {line['call']}: {ms:.2f} ms, must be {must:g}" if must is not None and ms > must else None


def chosen_calls(name: str, arguments: argparse.Namespace) -> dict[str, list[tuple[int, int]]]:
    return {k: v for k, v in TOWERS[name].items() if not arguments.cases or k in arguments.cases}


def measure_exactness(name: str, directory: Path, arguments: argparse.Namespace, findings: Findings) -> list[dict]:
    found, failures = gpu_exactness.measure(arguments.build, directory, Peer(name, directory), arguments.checkpoints)
    for failure in failures:
        findings.fail(f"{name}: {failure}")
    findings.keep(line := {"tower": name, "exactness": found})
    print(gpu_exactness.table([line]), flush=True)
    return [line]


def product_peak(arguments: argparse.Namespace, findings: Findings) -> float:
    """TFLOP/s of a large product; 0 if it could not be measured, or will be, beside the kernels."""
    if "kernels" in arguments.parts:
        return 0.0
    try:
        return gpu_kernels.measure_peak(arguments.build)
    except (OSError, subprocess.CalledProcessError) as error:
        findings.fail(f"the products' peak: {error}")
        return 0.0


def measure_calls(name: str, directory: Path, arguments: argparse.Namespace, findings: Findings) -> list[dict]:
    calls = chosen_calls(name, arguments)
    peak = product_peak(arguments, findings)
    ours = measure_ours(arguments.build, directory, calls, "bfloat16", arguments.repeats, findings)
    peers = measure_peers(name, directory, Peer(name, directory), calls, arguments)
    lines = [{"tower": name, "call": call, "flop": gpu_kernels.flop(name, calls[call]), "product_tflop_s": peak,
              "oriel": ours[call], **peers[call]} for call in calls if call in ours]  # fmt: skip
    for line in lines:
        findings.keep(line)
        if failure := slower_than_must(line):
            findings.fail(failure)
    if "kernels" in arguments.parts:
        for line in lines:
            measure_kernels(line, calls[line["call"]], arguments, findings)
    print(table(lines), flush=True)
    return lines


def measure_kernels(line: dict, pictures: list, arguments: argparse.Namespace, findings: Findings) -> None:
    try:
        kernels = line["kernels"] = gpu_kernels.measure(arguments.build, line["tower"], pictures)
    except (OSError, subprocess.CalledProcessError) as error:
        return findings.fail(f"{line['tower']} {line['call']}, kernels: {error}")
    line["product_tflop_s"] = max(line["product_tflop_s"], kernels["best_product_tflop_s"])
    findings.keep({"tower": line["tower"], "call": line["call"], "kernels": kernels})
    ms = statistics.median(line["oriel"]["ms"])
    print(f"{line['tower']} {line['call']}\n{gpu_kernels.table(kernels, ms)}\n", flush=True)


def measure_pictures(name: str, directory: Path, arguments: argparse.Namespace, findings: Findings) -> list[dict]:
    files = gpu_pictures.write_jpegs(arguments.checkpoints / "jpegs", arguments.stream)
    is_long = lambda some: len(some) > gpu_pictures.SAME_COUNT  # noqa: E731
    lines = [{"tower": name, "call": call, "peer": {}, "oriel": gpu_pictures.measure_ours(
              arguments.build, directory, some, arguments.decoders, 2 if is_long(some) else 3)}
             for call, some in files.items()]  # fmt: skip
    if arguments.peers:
        peer = Peer(name, directory)
        peer.load(peer.torch.bfloat16)
        for line in lines:
            some = files[line["call"]]
            line["peer"] = gpu_pictures.measure_peer(peer, some, 1 if is_long(some) else 2)
        peer.drop()
    for line in lines:
        findings.keep(line)
    print(gpu_pictures.table(lines), flush=True)
    return lines


def measure_profile(name: str, directory: Path, arguments: argparse.Namespace, findings: Findings) -> list[dict]:
    show = lambda text: print(text, flush=True)  # noqa: E731
    calls = chosen_calls(name, arguments)
    return gpu_profile.measure(arguments.build, name, directory, calls, show, findings=findings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help="build folder with ORIEL_CUDA and the benchmarks")
    parser.add_argument("--checkpoints", type=Path, default=Path("build/gpu-checkpoints"), help="kept between runs")
    parser.add_argument("--towers", nargs="+", choices=list(TOWERS), default=list(TOWERS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["calls"])
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
    parser.add_argument("--skip-exactness", action="store_true", help="don't check it in front of calls")
    parser.add_argument("--out", type=Path, help="JSON lines")
    arguments = parser.parse_args()

    findings = Findings(arguments.out)
    found: dict[str, list[dict]] = {}
    for name in arguments.towers:
        for part, measure in steps(name, arguments).items():
            try:
                directory = make_checkpoint(name, arguments.checkpoints / name)
                found.setdefault(part, []).extend(measure(name, directory, arguments, findings))
            except Exception as error:  # one tower's part is not to cost the others their figures
                traceback.print_exc()
                findings.fail(f"{name}, {part}: {type(error).__name__}: {error}")
    print_all(found)
    if findings.failures:
        print("\n" + "\n".join(f"FAILED: {failure}" for failure in findings.failures))
        sys.exit(1)


def steps(name: str, arguments: argparse.Namespace) -> dict:
    """What is to be done with a tower, in this order."""
    parts, has_calls = arguments.parts, bool(chosen_calls(name, arguments))
    times_calls = "calls" in parts or "kernels" in parts
    wanted = {
        "exactness": "exactness" in parts or (times_calls and not arguments.skip_exactness),
        "calls": times_calls and has_calls,
        "pictures": "pictures" in parts,
        "profile": "profile" in parts and has_calls,
    }
    measures = {"exactness": measure_exactness, "calls": measure_calls, "pictures": measure_pictures,
                "profile": measure_profile}  # fmt: skip
    return {part: measures[part] for part, is_wanted in wanted.items() if is_wanted}


def print_all(found: dict[str, list[dict]]) -> None:
    if lines := found.get("exactness"):
        print("\n" + gpu_exactness.table(lines))
    if lines := found.get("calls"):
        print("\n" + table(lines))
        for line in lines:
            for kind, remark in line["remarks"].items():
                print(f"{line['tower']} {line['call']}, {kind}: {remark}")
    if lines := found.get("pictures"):
        print("\n" + gpu_pictures.table(lines))
    if lines := found.get("profile"):
        print(f"\n{gpu_profile.table(lines)}\n\n{gpu_profile.product_table(lines)}")


if __name__ == "__main__":
    main()
