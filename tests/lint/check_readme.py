"""README.md shows examples/quickstart.cpp word for word, so that its code compiles and runs."""

import sys
from pathlib import Path

root = Path(sys.argv[1])
readme = (root / "README.md").read_text()
program = (root / "examples" / "quickstart.cpp").read_text()
if program not in readme:
    sys.exit("README.md: its program differs from examples/quickstart.cpp; copy the file into the README")
