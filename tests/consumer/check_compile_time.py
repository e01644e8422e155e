#!/usr/bin/env python3
"""Checks that a file with the one include compiles in under a second of processor time.

usage: check_compile_time.py COMPILER INCLUDE_FOLDER

The best of up to five runs counts, in user time: a busy machine must not fail it. Nor must a slow one, where the standard
headers that oriel's name take most of a second by themselves: there it may take half as long again as these.
"""

import re
import resource
import subprocess
import sys
from pathlib import Path

LIMIT_SECONDS = 1.0
LIMIT_OF_STANDARD = 1.5
RUNS = 5


def user_seconds(command, includes):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    text = "".join(f"#include <{name}>\n" for name in includes)
    subprocess.run(command, input=text, text=True, check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def standard_headers(include):
    headers = [file.read_text() for file in (Path(include) / "oriel").glob("*.hpp") if file.name != "torch.hpp"]
    return sorted(set(re.findall(r"^#include <([a-z_]+)>", "\n".join(headers), re.MULTILINE)))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    compiler, include = sys.argv[1:]
    command = [compiler, "-std=c++20", "-fsyntax-only", f"-I{include}", "-x", "c++", "-"]
    standard = standard_headers(include)
    times, standard_times, limit = [], [], LIMIT_SECONDS
    while len(times) < RUNS and min(times, default=limit) >= limit:
        times.append(user_seconds(command, ["oriel/oriel.hpp"]))
        standard_times.append(user_seconds(command, standard))
        limit = max(LIMIT_SECONDS, LIMIT_OF_STANDARD * min(standard_times))
    print("#include <oriel/oriel.hpp>:", ", ".join(f"{seconds:.2f} s" for seconds in times))
    print(f"the {len(standard)} standard headers alone:", ", ".join(f"{seconds:.2f} s" for seconds in standard_times))
    if min(times) >= limit:
        sys.exit(f"expected less than {limit:.2f} s")


if __name__ == "__main__":
    main()
