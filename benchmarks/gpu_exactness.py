"""How exact a tower is on a GPU: our rows, and transformers' own in 16 bits, next to transformers' float32 rows.

Ours are of embed_image: a small picture, which runs plainly, is captured and is replayed; a middle and a large one; and
two packed into one call. transformers takes its pictures one by one.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cases

PICTURES = {"small": (224, 160), "middle": (700, 500), "large": (1400, 1050)}
# Pictures of one run of embed_image, its options, and the results that are looked at: what is replayed was captured by
# the second picture of its size.
RUNS = (
    (("small", "small", "small", "middle", "large"), (), {"small, replayed": [2], "middle": [3], "large": [4]}),
    (("middle", "small"), ("--together",), {"packed pair": [0, 1]}),
)
REDUCED = ("bfloat16", "float16")
FLOAT32_TOLERANCE = 1e-4  # of the largest value
# Our distance in units of transformers' own. The promise is 1; two equal roundings differ by some percent, as
# ../tests/parity/live_parity.py allows.
REDUCED_TOLERANCE = 1.1


def write_pictures(directory: Path) -> dict[str, Path]:
    files = {name: directory / f"picture_{width}x{height}.bmp" for name, (width, height) in PICTURES.items()}
    for name, file in files.items():
        cases.write_picture(PICTURES[name], file)
    return files


def run_ours(build: Path, directory: Path, dtype: str, run: tuple, files: dict[str, Path], out: Path) -> dict | str:
    """case -> float32 rows; or why there are none."""
    import torch
    from safetensors.torch import load_file

    pictures, options, wanted = run
    command = [build / "examples" / "embed_image", "--model", directory, "--device", "cuda", "--dtype", dtype]
    command += ["--out", out, *options, *(files[name] for name in pictures)]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        return f"embed_image ended with {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1]}"
    rows = load_file(out)
    return {case: torch.cat([rows[f"embeddings.{i}"].float() for i in places]) for case, places in wanted.items()}


def run_theirs(peer, dtype: str, files: dict[str, Path]) -> dict:
    """picture -> float32 rows"""
    peer.load(getattr(peer.torch, dtype))
    rows = {name: peer.of_picture(file) for name, file in files.items()}
    peer.drop()
    return rows


def distance(rows, truth) -> float:
    """Norm over norm."""
    return float((rows.double() - truth.double()).norm() / truth.double().norm())


def measure(build: Path, directory: Path, peer, scratch: Path) -> tuple[dict, list[str]]:
    """case -> its distances; and a line for each that is too large. Our runs go on beside transformers': nothing is
    timed here."""
    torch = peer.torch
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    files = write_pictures(scratch)
    with ThreadPoolExecutor(max_workers=2 * len(RUNS)) as pool:
        asked = {(dtype, i): pool.submit(run_ours, build, directory, dtype, run, files,
                                         scratch / f"rows_{dtype}_{i}.safetensors")
                 for dtype in ("float32", *REDUCED) for i, run in enumerate(RUNS)}  # fmt: skip
        theirs = {dtype: run_theirs(peer, dtype, files) for dtype in ("float32", *REDUCED)}
        ours = {key: future.result() for key, future in asked.items()}
    found: dict = {}
    failures = []
    for (dtype, i), rows in ours.items():
        pictures, _, wanted = RUNS[i]
        if isinstance(rows, str):
            failures.append(f"{dtype}, {', '.join(wanted)}: {rows}")
            continue
        for case, places in wanted.items():
            of = {kind: torch.cat([theirs[kind][pictures[place]] for place in places]) for kind in ("float32", dtype)}
            problem = compare(dtype, rows[case], of["float32"], of[dtype], found.setdefault(case, {}))
            if problem:
                failures.append(f"{case}: {problem}")
    return found, failures


def compare(dtype: str, rows, truth, theirs, found: dict) -> str | None:
    """Puts the distances into `found`; what is wrong with them, if anything."""
    if rows.shape != truth.shape:
        return f"{dtype}: {list(rows.shape)} rows instead of {list(truth.shape)}"
    found[dtype] = distance(rows, truth)
    if dtype == "float32":
        of_scale = found["float32, of the scale"] = float((rows - truth).abs().max() / truth.abs().max())
        if not of_scale <= FLOAT32_TOLERANCE:
            return f"float32: {of_scale:.1e} of the scale from transformers, at most {FLOAT32_TOLERANCE:.0e} expected"
        return None
    own = found[f"transformers {dtype}"] = distance(theirs, truth)
    if not found[dtype] <= REDUCED_TOLERANCE * own:
        return f"{dtype}: {found[dtype]:.2e} from float32, transformers' own {own:.2e}"
    return None


def table(results: list[dict]) -> str:
    """results: tower and exactness"""
    kinds = ["float32", "float32, of the scale"] + [name for kind in REDUCED for name in (kind, f"transformers {kind}")]
    rows = [["tower", "picture", *kinds]]
    for line in results:
        for case, found in line["exactness"].items():
            rows.append([line["tower"], case, *(f"{found[kind]:.2e}" if kind in found else "-" for kind in kinds)])
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])
