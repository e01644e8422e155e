#!/usr/bin/env python3
"""Checks that the package recipes carry the version of include/oriel/version.hpp.

usage: check_versions.py REPOSITORY VERSION
"""

import json
import pathlib
import re
import sys


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    packaging = pathlib.Path(sys.argv[1]) / "packaging"
    version = sys.argv[2]
    recipe = (packaging / "conan" / "conanfile.py").read_text()
    written = {
        "packaging/vcpkg/vcpkg.json": json.loads((packaging / "vcpkg" / "vcpkg.json").read_text()).get("version"),
        "packaging/conan/conanfile.py": (re.findall(r'^    version = "(.*)"$', recipe, re.MULTILINE) or [None])[0],
    }
    problems = [f"{path}: expected version {version}, found {found}" for path, found in written.items() if found != version]
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
