#!/usr/bin/env python3
"""Builds the stranger's program in one of the ways in which a program comes to oriel, runs it, and looks at the result.

usage: build_stranger.py [options] cmake SOURCE BUILD [-- CMAKE ARGUMENTS]
       build_stranger.py [options] pkg-config PREFIX BUILD
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

# Libraries that a program with liboriel.so must not be linked with, and CUDA's, which no build without ORIEL_CUDA needs.
PRIVATE_LIBRARIES = re.compile(r"torch|c10|jpeg|webp|libz\.")
CUDA_LIBRARIES = re.compile(r"cuda|cudart|nvrtc")


def run(*command, **options):
    print("$", shlex.join(map(str, command)), flush=True)
    return subprocess.run(list(map(str, command)), check=True, text=True, **options)


def configure(source, build, arguments):
    run("cmake", "-S", source, "-B", build, *arguments)
    looked_for = re.findall(r"^(?:CUDAToolkit|CMAKE_CUDA)\w+", (build / "CMakeCache.txt").read_text(), re.MULTILINE)
    if looked_for:
        sys.exit(f"the build looks for a CUDA toolkit: {', '.join(looked_for)}")


def build_with_cmake(build):
    run("cmake", "--build", build, "-j", os.cpu_count() or 1)
    if (build / "stranger_with_torch").exists():
        run(build / "stranger_with_torch")
    return build / "stranger"


def build_with_pkg_config(prefix, build, compiler):
    found = sorted(prefix.glob("lib*/**/pkgconfig/oriel.pc"))
    if len(found) != 1:
        sys.exit(f"{prefix}: expected one oriel.pc, found {found}")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(found[0].parent)}

    def ask(*questions):
        return shlex.split(run("pkg-config", *questions, "oriel", stdout=subprocess.PIPE, env=environment).stdout)

    run_path = ["-Wl,-rpath," + ask("--variable=libdir")[0]]  # for liboriel.so, outside the system's folders
    build.mkdir(parents=True)
    program = build / "stranger"
    source = pathlib.Path(__file__).with_name("main.cpp")
    run(compiler, "-std=c++20", "-o", program, source, *ask("--cflags", "--libs"), *run_path)
    return program


def expected_rows(model):
    """SigLIP gives one row a patch; its processor squeezes every picture to one square."""
    vision = json.loads((model / "config.json").read_text())["vision_config"]
    return (vision["image_size"] // vision["patch_size"]) ** 2, vision["hidden_size"]


def check_output(program, model, version):
    output = run(program, model, stdout=subprocess.PIPE).stdout
    print(output, end="")
    rows, hidden = expected_rows(model)
    lines = output.splitlines()
    if lines[:1] != [f"oriel {version}: rows [{rows}, {hidden}]"]:
        sys.exit(f"expected rows [{rows}, {hidden}] from oriel {version}")
    if len(lines) != 2 or not re.match(r"caught file_error: .*no/such/directory", lines[1]):
        sys.exit("expected a caught file_error that names no/such/directory")


def needed_libraries(program):
    listing = run("readelf", "--dynamic", "--wide", program, stdout=subprocess.PIPE).stdout
    return re.findall(r"\(NEEDED\).*\[(.*)\]", listing)


def check_libraries(program, kind, cuda):
    needed = needed_libraries(program)
    print("needs", ", ".join(needed))
    has_oriel = any(name.startswith("liboriel.so") for name in needed)
    if has_oriel != (kind == "shared"):
        sys.exit(f"expected a program with the {kind} library")
    if kind == "shared" and any(map(PRIVATE_LIBRARIES.search, needed)):
        sys.exit("a program with liboriel.so is linked with oriel's own libraries")
    if not cuda and any(map(CUDA_LIBRARIES.search, needed)):
        sys.exit("a program with a CPU build of oriel needs CUDA")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=["cmake", "pkg-config"])
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("build", type=pathlib.Path, help="emptied first")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a SigLIP checkpoint")
    parser.add_argument("--version", required=True, help="that the linked library must have")
    parser.add_argument("--kind", choices=["static", "shared"], required=True)
    parser.add_argument("--cuda", action="store_true", help="oriel was built with ORIEL_CUDA")
    parser.add_argument("--configure-only", action="store_true", help="stop before the compiler (way cmake)")
    parser.add_argument("--compiler", default="c++", help="(way pkg-config)")
    arguments = sys.argv[1:]
    cmake_arguments = []
    if "--" in arguments:
        cmake_arguments = arguments[arguments.index("--") + 1 :]
        arguments = arguments[: arguments.index("--")]
    options = parser.parse_args(arguments)

    shutil.rmtree(options.build, ignore_errors=True)
    if options.way == "cmake":
        configure(options.source, options.build, cmake_arguments)
        if options.configure_only:
            return
        program = build_with_cmake(options.build)
    else:
        program = build_with_pkg_config(options.source, options.build, options.compiler)
    check_output(program, options.model, options.version)
    check_libraries(program, options.kind, options.cuda)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed with status {error.returncode}")
