#!/usr/bin/env python3
"""Installs one kind of the library from a build tree and checks that what was installed is oriel's and complete.

usage: install.py REPOSITORY BUILD COMPONENT PREFIX static|shared VERSION
"""

import pathlib
import re
import shutil
import subprocess
import sys


def expected_files(repository, kind, version):
    """Patterns of the installed paths; each must match once, and each path one of them."""
    headers = [f"include/oriel/{path.name}" for path in sorted((repository / "include" / "oriel").glob("*.hpp"))]
    names = ["liboriel.a"]
    if kind == "shared":
        minor = version.rpartition(".")[0]
        names = ["liboriel.so", f"liboriel.so.{minor}", f"liboriel.so.{version}"]
    names += ["pkgconfig/oriel.pc"]
    names += [f"cmake/oriel/{name}.cmake" for name in ("oriel-config", "oriel-config-version", "oriel-targets")]
    names += ["cmake/oriel/OrielLinked.cmake"]
    patterns = [re.escape(name) for name in headers]
    patterns += [r"lib(64|/[a-z0-9_]+-linux-gnu)?/" + re.escape(name) for name in names]
    patterns += [r"lib(64|/[a-z0-9_]+-linux-gnu)?/cmake/oriel/oriel-targets-[a-z]+\.cmake"]
    return patterns


def main():
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    repository, build, component, prefix, kind, version = sys.argv[1:]
    prefix = pathlib.Path(prefix)
    # Installed elsewhere and then moved: a package must not know where it was unpacked.
    unpacked = prefix.with_name(prefix.name + "-unpacked")
    for folder in (prefix, unpacked):
        shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["cmake", "--install", build, "--component", component, "--prefix", unpacked], check=True)
    unpacked.rename(prefix)

    patterns = expected_files(pathlib.Path(repository), kind, version)
    problems = []
    found = [str(path.relative_to(prefix)) for path in sorted(prefix.rglob("*")) if not path.is_dir()]
    for path in found:
        if not any(re.fullmatch(pattern, path) for pattern in patterns):
            problems.append(f"{path}: installed, but not expected")
        file = prefix / path
        if file.suffix in {".cmake", ".pc"} and str(unpacked) in file.read_text():
            problems.append(f"{path}: names the folder into which it was installed")
    for pattern in patterns:
        if sum(bool(re.fullmatch(pattern, path)) for path in found) != 1:
            problems.append(f"{pattern}: expected one such file")
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(found)} files, all expected")


if __name__ == "__main__":
    main()
