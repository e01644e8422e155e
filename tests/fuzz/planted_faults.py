#!/usr/bin/env python3
"""Plants faults in copies of oriel's sources and expects the replay of the kept inputs to find each.

usage: tests/fuzz/planted_faults.py BUILD        BUILD: a Ninja build directory in which replay_* are up to date

The sources stay as they are: a changed copy is compiled with the command of its original, and linked in its place.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "src"

# Source, what is replaced, by what, the target that must notice, and words of its finding.
FAULTS = [
    ("image/resize_avx2.cpp", "_mm256_set1_epi32(1 << (weights.shift - 1))",
     "_mm256_set1_epi32((1 << (weights.shift - 1)) - 1)", "resize", "all instructions give the same bytes"),
    ("image/resize_plan.cpp", "if (first < ring_begin_ || first > ring_end_) ring_begin_",
     "if (first > ring_end_ + 1000) ring_begin_", "resize", "two pieces make the whole"),
    ("image/resize_avx512.cpp", "_mm512_fmadd_ps(rest, reciprocal, quotient)", "quotient", "patches",
     "patches are the resized pixels' values"),
    ("image/decode_webp.cpp", "std::fill_n(pixels.data.get(), pixels.size.height * pixels.row_bytes(), uint8_t{0});",
     "", "webp", "every byte of the pixels is written"),
    ("image/exif.cpp", "return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;\n}\n\n}",
     "return static_cast<int>(value);\n}\n\n}", "exif", "orientations are 1 to 8"),
    ("core/safetensors.cpp", "if (tensor.begin > position) {", "if (false) {", "safetensors",
     "tensors follow one another without gap"),
    ("core/json_text.cpp", 'case \'\\n\':\n        out += "\\\\n";', 'case \'\\n\':\n        out += "\\n";', "json",
     "the reader and is_utf8 agree"),
]  # fmt: skip


def run(command, directory):
    return subprocess.run(
        command, cwd=directory, shell=isinstance(command, str), capture_output=True, text=True, errors="replace"
    )


def build_with_fault(build, scratch, source, changed, target):
    """The path of replay_<target> with `changed` in place of `source`."""
    object_file = f"src/CMakeFiles/oriel_{source.split('/')[0]}.dir/{source}.o"
    commands = {entry["output"]: entry["command"] for entry in json.loads(run("ninja -t compdb", build).stdout)}
    copy = scratch / source.replace("/", "_")
    copy.write_text(changed)
    program = scratch / f"replay_{target}"
    # The faults leave variables unused.
    compile_command = commands[object_file].replace("-Werror", "").replace("ccache ", "")
    compile_command = compile_command.replace(str(SOURCES / source), str(copy)).replace(object_file, f"{copy}.o")
    link_command = run(f"ninja -t commands replay_{target}", build).stdout.splitlines()[-1]
    link_command = link_command.replace(object_file, f"{copy}.o")
    link_command = link_command.replace(f"-o tests/fuzz/replay_{target}", f"-o {program}")
    for command in (compile_command, link_command):
        result = run(command, build)
        if result.returncode != 0:
            sys.exit(f"error: {source}: {command}\n{result.stderr}")
    return program


def folders_of(target):
    return [folder for kind in ("corpus", "crashers") if (folder := HERE / kind / target).is_dir()]


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0 if "-h" in sys.argv or "--help" in sys.argv else 2
    build = pathlib.Path(sys.argv[1]).resolve()
    missed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for source, old, new, target, finding in FAULTS:
            text = (SOURCES / source).read_text()
            if text.count(old) < 1:
                sys.exit(f"error: {source} no longer holds {old!r}")
            program = build_with_fault(build, pathlib.Path(scratch), source, text.replace(old, new, 1), target)
            result = run([program, *folders_of(target)], build)
            found = result.returncode != 0 and finding in result.stderr
            missed += not found
            print(f"{'found ' if found else 'MISSED'} {source}: {finding}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
