"""The program under test: embed_image."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


@dataclass(frozen=True)
class Failure:
    code: int
    stderr: str


class EmbedImage:
    def __init__(self, executable: Path, scratch: Path):
        self._executable, self._out = executable, scratch / "out.safetensors"

    def __call__(self, model: Path, pictures: list[Path], *options: str) -> dict[str, np.ndarray] | Failure:
        """The tensors written, or how the program failed. float32 unless the options say otherwise."""
        self._out.unlink(missing_ok=True)
        command = [self._executable, "--model", model, "--out", self._out, *options]
        if "--threads" not in options:  # towers this small only wait for each other's threads
            command += ["--threads", "1"]
        if "--dtype" not in options:
            command += ["--dtype", "float32"]
        done = subprocess.run([str(part) for part in [*command, *pictures]], capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            return Failure(done.returncode, done.stderr)
        if done.stderr:
            return Failure(0, done.stderr)  # success has nothing to complain about
        return load_file(self._out)
