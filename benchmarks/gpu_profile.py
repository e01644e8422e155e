"""What bounds a call of a tower on a GPU: its kernels as they run in a loop, the gaps, the clock and the power.

bench_profile_gpu watches a loop of calls, then records one. Products are told apart by their place in the call, and
compared with the same products by themselves in a short burst, where power does not hold the clock back yet.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
from pathlib import Path

import gpu_kernels

PRODUCT = re.compile(r"nvjet|gemm|cutlass|product_kernel|splitK", re.IGNORECASE)
ATTENTION = re.compile(r"attention|flash|fmha", re.IGNORECASE)
# What belongs to the product in front of it: the sum over its pieces, and its activation.
BEHIND_A_PRODUCT = re.compile(r"splitK|^gate_kernel|^elementwise_kernel")
KINDS = ("products", "attention", "others")


def kind_of(kernel: str) -> str:
    return "attention" if ATTENTION.search(kernel) else "products" if PRODUCT.search(kernel) else "others"


def shares(line: dict) -> dict[str, float]:
    """Microseconds of a call: its kernels by kind, and what is left of the loop's own time (without recording)."""
    sums = dict.fromkeys(KINDS, 0.0)
    for name, us in zip(line["names"], line["us"]):
        sums[kind_of(name)] += us
    sums["gaps"] = 1000 * line["ms"][0] - line["busy_us"][0]
    return sums


def by_name(line: dict) -> list[tuple[str, int, float]]:
    """(kernel, how often in a call, microseconds of a call), the longest first."""
    found: dict[str, list[float]] = {}
    for name, us in zip(line["names"], line["us"]):
        found.setdefault(name, []).append(us)
    return sorted(((name, len(us), sum(us)) for name, us in found.items()), key=lambda row: -row[2])


def products_in_order(line: dict) -> list[float]:
    """Microseconds of each product of a call, with what belongs to it."""
    result: list[float] = []
    for name, us in zip(line["names"], line["us"]):
        if result and BEHIND_A_PRODUCT.search(name) and previous == "products":
            result[-1] += us
            continue
        previous = kind_of(name)
        if previous == "products":
            result.append(us)
    return result


def shape(value: str) -> tuple[str, float]:
    """rows x in x out of a product as bench_kernels_gpu is told, and its FLOP."""
    numbers = [int(n) for n in value.split(",")[1:]]
    rows, inner, out = numbers[:3]
    if len(numbers) == 6 and numbers[3]:  # the gate beside it
        out *= 2
    return f"{rows} x {inner} x {out}", 2.0 * rows * inner * out


def compare_products(line: dict, tower: str, pictures: list, alone: dict) -> list[dict] | str:
    """Every shape of the call in the loop and by itself; or why they can't be told apart."""
    listed = [(value, count) for option, value, count in gpu_kernels.parts(tower, pictures)
              if option in ("product", "activated")]  # fmt: skip
    blocks = [entry for entry in listed if entry[1] > 1]
    front = [entry for entry in listed if entry[1] == 1 and entry[0].startswith("patch,")]
    back = [entry for entry in listed if entry[1] == 1 and not entry[0].startswith("patch,")]
    layers = blocks[0][1]
    expected = [value for value, _ in front] + layers * [value for value, _ in blocks] + [value for value, _ in back]
    found = products_in_order(line)
    if not line["in_order"] or len(found) != len(expected):
        return f"{len(found)} products were recorded, {len(expected)} are expected"
    microseconds = {kernel["name"]: kernel["us"] for kernel in alone["kernels"]}
    rows = []
    for value, count in front + blocks + back:
        name = value.split(",")[0]
        text, flop = shape(value)
        us = statistics.mean(us for us, which in zip(found, expected) if which == value)
        rows.append({"product": name, "shape": text, "times": count, "us": us, "alone_us": microseconds[name],
                     "tflop_s": flop / us / 1e6, "alone_tflop_s": flop / microseconds[name] / 1e6})  # fmt: skip
    return rows


def measure(build: Path, tower: str, directory: Path, calls: dict[str, list], say, findings=None,
            tuning_file: Path | None = None) -> list[dict]:  # fmt: skip
    """`say` and `findings` are given a call as soon as it is recorded: products by themselves are timed last, and what
    fails then, or in recording another call, costs no call that is there."""
    texts = {",".join(f"{w}x{h}" for w, h in pictures): call for call, pictures in calls.items()}
    command = [build / "benchmarks" / "bench_profile_gpu", "--model", directory]
    if tuning_file:
        command += ["--tuning-file", tuning_file]
    for text in texts:
        command += ["--call", text]
    command, lines = [str(part) for part in command], []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        for line in map(json.loads, program.stdout):
            line.update(tower=tower, case=texts[line["call"]])
            lines.append(line)
            if findings:
                findings.keep(line)
            say(f"\n{tower} {line['case']}, {line['ms'][0]:.2f} ms, {held_back_by(line)}\n\n{kernel_table(line)}")
    if program.returncode:
        missing = ", ".join(call for call in calls if call not in [line["case"] for line in lines])
        problem = f"{tower}: bench_profile_gpu ended with {program.returncode}, without {missing}"
        if not findings:
            raise RuntimeError(problem)
        findings.fail(problem)
    for line in lines:
        if "trace_problem" not in line:
            line["products"] = products_of(build, tower, line, calls[line["case"]])
            if findings:
                findings.keep({"tower": tower, "case": line["case"], "products": line["products"]})
    return lines


def products_of(build: Path, tower: str, line: dict, pictures: list) -> list[dict] | str:
    try:
        return compare_products(line, tower, pictures, gpu_kernels.measure(build, tower, pictures))
    except (OSError, subprocess.CalledProcessError) as error:
        return f"products by themselves: {error}"


def held_back_by(line: dict) -> str:
    if line["state_problem"]:
        return line["state_problem"]
    reasons = {"power": "power_capped", "temperature": "thermal_slowed", "board": "hardware_slowed"}
    found = [f"{name} {100 * line[key][0]:.0f} %" for name, key in reasons.items() if line[key][0] > 0]
    return ", ".join(found) or "nothing"


def markdown(rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def table(lines: list[dict]) -> str:
    rows = [["tower", "call", "ms", *(f"{kind} us" for kind in (*KINDS, "gaps")), "recorded ms", "gaps there us",
             "SM MHz", "W", "clock held back by"]]  # fmt: skip
    for line in lines:
        state = [f"{line['sm_mhz'][0]:.0f}", f"{line['watts'][0]:.0f} of {line['most_watts'][0]:.0f}", held_back_by(line)]
        if "trace_problem" in line:
            rows.append([line["tower"], line["case"], f"{line['ms'][0]:.2f}", line["trace_problem"], *5 * ["-"], *state])
            continue
        ms = line["ms"][0]
        cells = [f"{us:.0f} ({us / ms / 10:.0f} %)" for us in shares(line).values()]
        gaps = f"{line['gaps_inside_us'][0]:.0f} + {line['gaps_between_us'][0]:.0f}"
        rows.append([line["tower"], line["case"], f"{ms:.2f}", *cells, f"{line['traced_ms'][0]:.2f}", gaps, *state])
    return markdown(rows)


def product_table(lines: list[dict]) -> str:
    rows = [["tower", "call", "product", "rows x in x out", "times", "us in the loop", "alone", "TFLOP/s in the loop",
             "alone", "loop / alone"]]  # fmt: skip
    for line in lines:
        found = line.get("products", [])
        if isinstance(found, str):
            rows.append([line["tower"], line["case"], found, *7 * ["-"]])
            continue
        for p in found:
            rows.append([line["tower"], line["case"], p["product"], p["shape"], str(p["times"]), f"{p['us']:.1f}",
                         f"{p['alone_us']:.1f}", f"{p['tflop_s']:.0f}", f"{p['alone_tflop_s']:.0f}",
                         f"{p['alone_us'] / p['us']:.2f}"])  # fmt: skip
    return markdown(rows)


def kernel_table(line: dict) -> str:
    if "trace_problem" in line:
        return line["trace_problem"]
    ms = line["ms"][0]
    rows = [["kernel", "times", "us of the call", "us each", "share"]]
    for name, count, us in by_name(line):
        rows.append([name, str(count), f"{us:.1f}", f"{us / count:.2f}", f"{us / ms / 10:.1f} %"])
    return markdown(rows)
