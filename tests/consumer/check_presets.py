#!/usr/bin/env python3
"""Checks that every preset can be configured and sets only options that exist. Those for CUDA need a toolkit: not run.

usage: check_presets.py REPOSITORY WORK [CMAKE ARGUMENTS]
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys


def resolved_variables(presets, name):
    preset = presets[name]
    inherited = resolved_variables(presets, preset["inherits"]) if "inherits" in preset else {}
    return {**inherited, **preset.get("cacheVariables", {})}


def problems_of(repository, build, name, variables, arguments):
    shutil.rmtree(build, ignore_errors=True)
    subprocess.run(["cmake", "--preset", name, "-B", build, *arguments], cwd=repository, check=True, stdout=subprocess.PIPE)
    cache = (build / "CMakeCache.txt").read_text()
    for variable, value in variables.items():
        found = re.findall(rf"^{variable}:(\w+)=(.*)$", cache, re.MULTILINE)
        if len(found) != 1 or found[0][0] == "UNINITIALIZED":
            yield f"preset {name}: {variable} is no option of oriel"
        elif found[0][1] != value:
            yield f"preset {name}: expected {variable}={value}, found {found[0][1]}"


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    repository, work = map(pathlib.Path, sys.argv[1:3])
    subprocess.run(["cmake", "--list-presets=all"], cwd=repository, check=True, stdout=subprocess.DEVNULL)
    presets = {preset["name"]: preset for preset in json.loads((repository / "CMakePresets.json").read_text())["configurePresets"]}
    problems = []
    for name in presets:
        variables = resolved_variables(presets, name)
        if variables.get("ORIEL_CUDA") != "ON":
            problems += problems_of(repository, work / name, name, variables, sys.argv[3:])
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd} failed with status {error.returncode}")
