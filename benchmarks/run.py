#!/usr/bin/env python3
"""Times oriel against its peers on this machine's CPU and prints the ratios.

    python benchmarks/run.py                 everything: about eight minutes on two cores, after writing 9 GB once
    python benchmarks/run.py --quick         a few minutes: towers of two blocks, one picture size; numbers mean little
    python benchmarks/run.py --markdown      tables for docs/performance.md

Needs the Python packages of benchmarks/requirements.txt, and what oriel is built from. Results are compared before
anything is timed: pixels bit for bit, rows of towers to 1e-5 of their scale. What differs is not timed, and the exit
code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cases
import measure
import report


def parse_arguments() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--quick", action="store_true", help="small towers, few rounds: to see that everything works")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N",
                        help="threads of towers, and of preprocessing beside one thread (default: all)")  # fmt: skip
    parser.add_argument("--parts", nargs="+", choices=["preprocess", "towers"], default=["preprocess", "towers"])
    towers, usual = ", ".join(cases.TOWERS), ", ".join(cases.DEFAULT_TOWERS)
    parser.add_argument("--families", nargs="+", choices=list(cases.TOWERS), default=list(cases.DEFAULT_TOWERS),
                        metavar="FAMILY", help=f"towers, of {towers} (default: {usual})")  # fmt: skip
    parser.add_argument("--rounds", type=int, metavar="N",
                        help=f"turns of every contender, twice for towers (default: {measure.ROUNDS})")  # fmt: skip
    parser.add_argument("--tower-seconds", type=float, default=30, metavar="S",
                        help="stop timing a tower after S seconds and two rounds or more (default: 30)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--build", type=Path, metavar="DIR", default=cases.ROOT / "build-bench",
                        help="(default: build-bench)")  # fmt: skip
    parser.add_argument("--no-build", action="store_true", help="take the programs as they are")
    parser.add_argument("--checkpoints", type=Path, metavar="DIR",
                        help="where weights are kept (default: BUILD/checkpoints)")  # fmt: skip
    return parser.parse_args()


def build(directory: Path) -> None:
    configure = ["cmake", "-S", cases.ROOT, "-B", directory, "-DORIEL_BUILD_BENCHMARKS=ON"]
    if not (directory / "CMakeCache.txt").exists():
        configure += ["-DCMAKE_BUILD_TYPE=Release", "-DORIEL_BUILD_TESTS=OFF", "-DORIEL_BUILD_EXAMPLES=OFF"]
        configure += ["-G", "Ninja"] if shutil.which("ninja") else []
    jobs = str(os.cpu_count() or 1)
    compile_ = ["cmake", "--build", directory, "-j", jobs, "--target", "bench_preprocess", "bench_tower"]
    for command in (configure, compile_):
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{done.stdout}{done.stderr}\nfailed: {' '.join(str(c) for c in command)}")


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def machine_lines(load: float, started: str) -> list[str]:
    commit = ""
    if shutil.which("git"):
        describe = ["git", "-C", str(cases.ROOT), "describe", "--always", "--dirty"]
        commit = subprocess.run(describe, capture_output=True, text=True).stdout.strip()
    lines = [f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; "
             f"oriel {commit or 'of unknown commit'}; {started}"]  # fmt: skip
    if load > 0.3 * (os.cpu_count() or 1):
        lines.append(f"THE MACHINE WAS BUSY: load {load:.1f} when the run began. Do not quote these numbers.")
    return lines


def version_line(results: dict) -> str:
    """The versions of the peers, and the instructions that our pixel code picks."""
    versions = next((e["transformers"]["versions"] for e in results.get("towers", [])), results.get("versions", {}))
    named = ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    instructions = next((e["facts"]["instructions"] for e in results.get("preprocess", [])), None)
    return named + (f"; pixel code: {instructions}" if instructions else "")


def main() -> int:
    arguments = parse_arguments()
    load, started, begin = os.getloadavg()[0], time.strftime("%Y-%m-%d %H:%M"), time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:4.0f} s] {text}", file=sys.stderr, flush=True)

    if not arguments.no_build:
        say(f"building in {arguments.build}")
        build(arguments.build)
    checkpoints = arguments.checkpoints or arguments.build / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=checkpoints) as scratch:
        setup = measure.Setup(
            build=arguments.build,
            checkpoints=checkpoints,
            scratch=Path(scratch),
            environment={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            quick=arguments.quick,
            rounds=arguments.rounds or (2 if arguments.quick else measure.ROUNDS),
            loads=1 if arguments.quick else 3,
            tower_seconds=arguments.tower_seconds,
            say=say,
        )
        results: dict = {}
        if "preprocess" in arguments.parts:
            results |= measure.preprocessing(setup, sorted({1, arguments.threads}))
        if "towers" in arguments.parts:
            results["towers"] = [measure.tower(setup, name, arguments.threads) for name in arguments.families]
    results["machine"] = [*machine_lines(load, started), version_line(results)]
    say("done")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report.render(results, arguments.markdown))
    return 1 if report.problems(results) else 0


if __name__ == "__main__":
    sys.exit(main())
