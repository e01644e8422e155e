#!/usr/bin/env python3
"""Builds the fuzz targets of oriel, runs them, and adds up what they executed.

Corpora grow in BUILD/corpora/<target>, starting from tests/fuzz/corpus. What libFuzzer keeps as a crash, a timeout or a
lack of memory lands in BUILD/findings/<target>. BUILD/executions.json holds the sums of all runs, and --report prints
them as a table.

examples:
  tests/fuzz/run.py --seconds 60                   every target for a minute
  tests/fuzz/run.py --seconds 600 --target png     one target
  tests/fuzz/run.py --report                       the table of docs/testing.md
  tests/fuzz/run.py --minimize                     rewrite tests/fuzz/corpus from the grown corpora
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
LONGEST_INPUT = {"exif": 256, "json": 512, "resize": 256, "patches": 128, "safetensors": 1024, "embedding_file": 2048}
MOST_INPUTS = 100  # of one target in the repository
LARGEST_CORPUS = 24 * 1024  # bytes of them
LIMITS = ["-rss_limit_mb=2048", "-malloc_limit_mb=256", "-timeout=10"]
WITH_DICTIONARY = {"json", "tokenizer", "safetensors", "config", "embedding_file"}


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60, help="time for each target (default: 60)")
    parser.add_argument("--jobs", type=int, default=1, help="targets that run at the same time (default: 1)")
    parser.add_argument("--target", action="append", help="run this one only; may be repeated")
    parser.add_argument(
        "--build", type=pathlib.Path, action="append", help="build directory (default: build-fuzz); --report takes several"
    )
    parser.add_argument("--compiler", default="clang++", help="a Clang with libFuzzer (default: clang++)")
    parser.add_argument("--sanitize", default="address,undefined", help="of a new build directory; may be empty")
    parser.add_argument("--no-build", action="store_true", help="take the programs that are there")
    parser.add_argument("--report", action="store_true", help="print the sums of all runs, and run nothing")
    parser.add_argument("--minimize", action="store_true", help="rewrite tests/fuzz/corpus, and run nothing")
    arguments = parser.parse_args()
    arguments.builds = arguments.build or [REPOSITORY / "build-fuzz"]
    arguments.build = arguments.builds[0]
    return arguments


def targets_of(arguments):
    known = sorted(path.stem for path in (HERE / "targets").glob("*.cpp") if path.stem != "self_check")
    wanted = arguments.target or known
    for name in wanted:
        if name not in known:
            sys.exit(f"error: no target {name}; there are {', '.join(known)}")
    return wanted


def build(arguments, targets):
    directory = arguments.build
    if not (directory / "CMakeCache.txt").exists():
        options = [
            "-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_CXX_COMPILER={arguments.compiler}", "-DORIEL_BUILD_FUZZERS=ON",
            f"-DORIEL_SANITIZE={arguments.sanitize}", "-DORIEL_BUILD_EXAMPLES=OFF",
        ]  # fmt: skip
        if shutil.which("ccache"):
            options.append("-DCMAKE_CXX_COMPILER_LAUNCHER=ccache")
        subprocess.run(["cmake", "-S", REPOSITORY, "-B", directory, "-G", "Ninja", *options], check=True)
    programs = [f"fuzz_{name}" for name in targets]
    subprocess.run(["cmake", "--build", directory, "--target", *programs], check=True)


def program_of(arguments, target):
    return arguments.build / "tests" / "fuzz" / f"fuzz_{target}"


def options_of(target):
    options = [*LIMITS, f"-max_len={LONGEST_INPUT.get(target, 4096)}"]
    if target in WITH_DICTIONARY:
        options.append(f"-dict={HERE / 'json.dict'}")
    return options


def environment(scratch):
    # libtorch is not instrumented, and containers that it fills look overrun.
    return os.environ | {
        "ASAN_OPTIONS": "detect_container_overflow=0:allocator_may_return_null=1:max_malloc_fill_size=65536",
        "TMPDIR": str(scratch),
        "OMP_NUM_THREADS": "1",
    }


def run(arguments, target, scratch):
    corpus = arguments.build / "corpora" / target
    findings = arguments.build / "findings" / target
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    command = [
        program_of(arguments, target), *options_of(target), f"-max_total_time={arguments.seconds}",
        f"-artifact_prefix={findings}/", "-print_final_stats=1", "-reload=0", corpus,
    ]  # fmt: skip
    seeds = HERE / "corpus" / target
    if seeds.is_dir():
        command.append(seeds)
    log = arguments.build / f"last_{target}.log"
    with log.open("w") as out:
        try:
            # Without a sanitizer, libFuzzer's report of a crash inside malloc waits for malloc's lock.
            patience = arguments.seconds + 120
            status = subprocess.run(command, env=environment(scratch), stdout=out, stderr=out, timeout=patience).returncode
        except subprocess.TimeoutExpired:
            status = None
    text = log.read_text(errors="replace")
    executed = re.search(r"stat::number_of_executed_units:\s+(\d+)", text)
    speed = re.search(r"stat::average_exec_per_sec:\s+(\d+)", text)
    coverage = re.findall(r"cov: (\d+)", text)
    return {
        "executions": int(executed.group(1)) if executed else 0,
        "per_second": int(speed.group(1)) if speed else 0,
        "coverage": int(coverage[-1]) if coverage else 0,
        "failed": status != 0,
        "tail": text[-3000:],
    }


def add_up(arguments, target, outcome):
    path = arguments.build / "executions.json"
    sums = json.loads(path.read_text()) if path.exists() else {}
    entry = sums.setdefault(target, {"executions": 0, "runs": 0, "findings": 0})
    entry["executions"] += outcome["executions"]
    entry["runs"] += 1
    entry["findings"] += int(outcome["failed"])
    entry["coverage"] = max(entry.get("coverage", 0), outcome["coverage"])
    entry["last"] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
    path.write_text(json.dumps(sums, indent=2, sort_keys=True) + "\n")


def sanitizers_of(directory):
    found = re.search(r"^ORIEL_SANITIZE:[A-Z]+=(.*)$", (directory / "CMakeCache.txt").read_text(), re.MULTILINE)
    return found.group(1) if found and found.group(1) else "none"


def report(arguments):
    rows = []
    for directory in arguments.builds:
        path = directory / "executions.json"
        if not path.exists():
            sys.exit(f"error: {path}: nothing has run yet")
        sanitizers = sanitizers_of(directory)
        rows += [(target, sanitizers, entry) for target, entry in json.loads(path.read_text()).items()]
    print("| target | sanitizers | executions | runs | ended by a finding | edges |\n|---|---|--:|--:|--:|--:|")
    for target, sanitizers, entry in sorted(rows, key=lambda row: row[:2]):
        print(
            f"| {target} | {sanitizers} | {entry['executions']:,} | {entry['runs']} | {entry['findings']} "
            f"| {entry['coverage']:,} |"
        )
    print(f"| **all** | | **{sum(entry['executions'] for _, _, entry in rows):,}** | | | |")


def chosen(merged):
    """Inputs of all sizes that fit into the repository: every n-th by size."""
    by_size = sorted(merged.iterdir(), key=lambda file: (file.stat().st_size, file.name))
    for step in range(1, len(by_size) + 1):
        inputs = by_size[::step]
        if len(inputs) <= MOST_INPUTS and sum(file.stat().st_size for file in inputs) <= LARGEST_CORPUS:
            return inputs
    return by_size[:1]


def minimize(arguments, target, scratch):
    """Keeps some of the inputs that reach something of their own. Inputs with a name that is no hash stay."""
    committed = HERE / "corpus" / target
    grown = arguments.build / "corpora" / target
    with tempfile.TemporaryDirectory(dir=scratch) as merged:
        command = [program_of(arguments, target), *options_of(target), "-merge=1", merged]
        command += [folder for folder in (committed, grown) if folder.is_dir()]
        subprocess.run(command, env=environment(scratch), capture_output=True, check=True)
        committed.mkdir(parents=True, exist_ok=True)
        for old in committed.iterdir():
            if re.fullmatch(r"[0-9a-f]{16}", old.name):
                old.unlink()
        for path in chosen(pathlib.Path(merged)):
            shutil.copyfile(path, committed / path.name[:16])
        print(f"{target}: {len(list(committed.iterdir()))} inputs", flush=True)


def main():
    arguments = parse_arguments()
    if arguments.report:
        report(arguments)
        return 0
    targets = targets_of(arguments)
    if not arguments.no_build:
        build(arguments, targets)
    failed = []
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch:
        if arguments.minimize:
            for target in targets:
                minimize(arguments, target, scratch)
            return 0
        print(f"{len(targets)} targets, {arguments.seconds} s each", flush=True)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            for target, outcome in zip(targets, pool.map(lambda name: run(arguments, name, scratch), targets)):
                add_up(arguments, target, outcome)
                print(
                    f"{target:16} {outcome['executions']:>12,} executions, {outcome['per_second']:>8,} a second"
                    f"{', FINDING' if outcome['failed'] else ''}",
                    flush=True,
                )
                if outcome["failed"]:
                    failed.append(target)
                    print(outcome["tail"], flush=True)
    if failed:
        print(f"findings in {', '.join(failed)}: see {arguments.build / 'findings'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
