#!/usr/bin/env python3
"""Plants mistakes in copies of oriel's sources and measures how many answers of the demonstration models are right still.

usage: tests/demo/planted_faults.py BUILD [FAMILY...]   BUILD: a Ninja build directory with an up to date oriel_demo_tests

Each mistake keeps every shape, so that only what a picture means can show it. Exits with 1 if a mistake passes the test,
or costs less than 30 points where it is expected to. The sources stay as they are: a changed copy is compiled with the
command of its original, and linked in its place.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src"
TARGET = "oriel_demo_tests"
LEAST_FALL = 30.0  # points

WRITTEN = "writer.write_band(band, rows.data() + band * band_values);\n  });\n"
# Raster order where merge blocks belong; where raster order belongs, every second patch first, then the others.
REORDERED = WRITTEN + """
  const std::vector<float> right(rows.begin(), rows.end());
  const int64_t merge = spec.merge, values = spec.patch_values();
  for (int64_t i = 0; i < grid.rows * grid.columns; ++i) {
    const int64_t block = i / (merge * merge), inside = i % (merge * merge), blocks = grid.columns / merge;
    const int64_t row = block / blocks * merge + inside / merge;
    const int64_t column = block % blocks * merge + inside % merge;
    const int64_t wrong = merge > 1 ? row * grid.columns + column
                                    : i % 2 * (grid.rows * grid.columns / 2) + i / 2;
    std::copy_n(right.begin() + i * values, values, rows.begin() + wrong * values);
  }
"""
ROWS_COLUMNS = "ops::axial_rotary(at.rows.to(device), at.columns.to(device)"
COLUMNS_ROWS = "ops::axial_rotary(at.columns.to(device), at.rows.to(device)"
ALL = ("all",)
EVERY = ("gemma3", "mistral3", "qwen2_vl")

PLANES = "{red, red + layout_.plane_stride, red + 2 * layout_.plane_stride}"
COPIED_ROWS = "to_torch(stretch.embedding->embeddings())"
NEXT_PICTURE = (
    "to_torch(embeddings[(static_cast<size_t>(stretch.embedding - embeddings.data()) + 1) % embeddings.size()]"
    ".embeddings())"
)

# What is wrong, in which families, the kinds of questions that it concerns (ALL: their sum, None: no answer has to
# change), source, what is replaced, by what.
FAULTS = [
    # Four of eight colours and all that has no colour stay: what is asked about colours decides.
    ("red and blue swapped", EVERY, ("describe", "colour"), "image/patches.cpp", PLANES,
     "{red + 2 * layout_.plane_stride, red + layout_.plane_stride, red}"),
    ("green taken for red, blue for green, red for blue", EVERY, ALL, "image/patches.cpp", PLANES,
     "{red + 2 * layout_.plane_stride, red, red + layout_.plane_stride}"),
    ("rows and columns of positions swapped in the tower", ("gemma3",), ALL, "arch/siglip_tower.cpp",
     "positions_.repeat(",
     "positions_.view({grid_side_, grid_side_, -1}).transpose(0, 1).flatten(0, 1).repeat("),
    ("rows and columns of the rotation swapped in the tower", ("mistral3",), ALL, "arch/pixtral_tower.cpp",
     ROWS_COLUMNS, COLUMNS_ROWS),
    ("rows and columns of the rotation swapped in the tower", ("qwen2_vl",), ALL, "arch/qwen_vision.cpp",
     ROWS_COLUMNS, COLUMNS_ROWS),
    ("patches in another order", EVERY, ALL, "image/patches.cpp", WRITTEN, REORDERED),
    ("an alias given the rows of the next picture", EVERY, ("which",), "text_model_prepare.cpp",
     COPIED_ROWS, NEXT_PICTURE),
    # A row says itself where it lies: answers hardly depend on the order of rows. Log-probabilities do.
    ("rows and columns of the rotation swapped in the decoder", ("qwen2_vl",), None, "arch/qwen2_text.cpp",
     "row[token] = next + y;\n            column[token] = next + x;",
     "row[token] = next + x;\n            column[token] = next + y;"),
    ("an id given the row of the one before it", EVERY, None, "text_model_prepare.cpp",
     COPIED_ROWS, COPIED_ROWS + ".roll(1, 0)"),
]  # fmt: skip


def run(command, directory):
    return subprocess.run(
        command, cwd=directory, shell=isinstance(command, str), capture_output=True, text=True, errors="replace"
    )


def object_of(source):
    floor, _, _ = source.rpartition("/")
    return f"src/CMakeFiles/oriel_{floor or 'tower'}.dir/{source}.o"


class Build:
    def __init__(self, directory, scratch):
        self.directory, self.scratch = directory, scratch
        self.compile_commands = {
            entry["output"]: entry["command"] for entry in json.loads(run("ninja -t compdb", directory).stdout)
        }
        # Behind the link command stands one that lists the tests.
        steps = run(f"ninja -t commands {TARGET}", directory).stdout.splitlines()[-1].split(" && ")
        self.link_command = next(step for step in steps if f"-o tests/{TARGET}" in step)

    def with_fault(self, source, changed):
        """The path of the test program with `changed` in place of `source`."""
        copy = self.scratch / source.replace("/", "_")
        copy.write_text(changed)
        program = self.scratch / TARGET
        original = object_of(source)
        compile_command = self.compile_commands[original].replace("-Werror", "").replace("ccache ", "")
        compile_command = compile_command.replace(str(SOURCES / source), str(copy)).replace(original, f"{copy}.o")
        link_command = self.link_command.replace(original, f"{copy}.o")
        link_command = link_command.replace(f"-o tests/{TARGET}", f"-o {program}")
        for command in (compile_command, link_command):
            result = run(command, self.directory)
            if result.returncode != 0:
                sys.exit(f"error: {source}: {command}\n{result.stderr}")
        return program


class Score:
    """What the test said about a family in float32 on the CPU."""

    def __init__(self, program, family):
        result = run([program, f"--gtest_filter=*AreTransformersWordForWord/{family}"], program.parent)
        found = re.search(rf"^{family}, float32 on the CPU: (([\d.]+) % of .*)$", result.stdout, re.MULTILINE)
        if not found:
            sys.exit(f"error: {program} says nothing about {family}\n{result.stdout}{result.stderr}")
        self.passed = result.returncode == 0
        self.words = found.group(1)
        self.percent = {kind: float(value) for kind, value in re.findall(r"(\w+) ([\d.]+)[,)]", self.words)}
        self.percent["all"] = float(found.group(2))

    def of(self, kinds):
        return sum(self.percent[kind] for kind in kinds) / len(kinds)


def is_found(before, after, kinds):
    return not after.passed and (kinds is None or before.of(kinds) - after.of(kinds) >= LEAST_FALL)


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0 if "-h" in sys.argv or "--help" in sys.argv else 2
    directory = pathlib.Path(sys.argv[1]).resolve()
    families = sys.argv[2:] or sorted(path.name for path in (ROOT / "assets" / "demo").iterdir() if path.is_dir())
    whole = {}
    for family in families:
        whole[family] = Score(directory / "tests" / TARGET, family)
        print(f"{family}, as it is: {whole[family].words}", flush=True)
        if not whole[family].passed:
            sys.exit(f"error: {family}: the test fails without a fault")
    missed = 0
    with tempfile.TemporaryDirectory() as scratch:
        build = Build(directory, pathlib.Path(scratch))
        for what, concerned, kinds, source, old, new in FAULTS:
            text = (SOURCES / source).read_text()
            if old not in text:
                sys.exit(f"error: {source} no longer holds {old!r}")
            concerned = [family for family in families if family in concerned]
            program = build.with_fault(source, text.replace(old, new, 1)) if concerned else None
            for family in concerned:
                score = Score(program, family)
                found = is_found(whole[family], score, kinds)
                missed += not found
                print(f"{'found ' if found else 'MISSED'} {family}, {what}: {score.words}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
