"""embed_image against transformers, on checkpoints and pictures that are made anew on every run.

    python tests/parity/live_parity.py --program build/examples/embed_image [--seed N] [--family NAME] [--count N]

Prints a table, then every disagreement with its first differing value; the exit code is 1 if there is any. A run is
repeated by the seed that it prints.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "goldens"))
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers

from checkpoint_writer import LAYOUTS, build_model, hub_tensors, write_checkpoint, write_tensors
from comparisons import difference, relative_error, rms_error
from picture_files import PictureFile, encoded_png, truncated, write_pictures
from program import EmbedImage, Failure
from random_checkpoints import FAMILIES, describe, draw_checkpoint, write_variant
from tower_truth import TowerTruth

# Of the largest value of a picture. Both sides add the same float32 products in another order: a few times 1e-6 was seen.
FLOAT32_TOLERANCE = 1e-5
# Some random towers enlarge the rounding of their first layers (a uniform picture: the patch embedding cancels, softmax is
# steep): transformers' own float32 rows then differ by as much between two of its ways to compute. Beyond the tolerance
# above, float64 decides: we may be this many times as far from it as transformers in float32. Summing in another order gives
# errors of one size, whose maxima over the few hundred values of a small picture differ by a factor of 3 (seen: 2.9).
ILL_CONDITIONED_TOLERANCE = 4
# Our distance from the float32 truth in units of transformers' own distance in that dtype. The promise is 1; over the few
# thousand values of these small towers either of two equal roundings comes out up to some percent ahead.
REDUCED_TOLERANCE = 1.1


class Report:
    def __init__(self):
        self.failures: list[str] = []
        self.checks = 0

    def check(self, what: str, problem: str | None) -> bool:
        self.checks += 1
        if problem:
            self.failures.append(f"{what} {problem}")
        return problem is None


def failed(result, what: str, report: Report) -> bool:
    """Whether the program failed where it should not; the failure is reported."""
    if isinstance(result, Failure):
        report.check(what, f"exit code {result.code}: {result.stderr.strip() or '(nothing on stderr)'}")
        return True
    return False


def backend_option(backend: str) -> dict[str, str]:
    """How TowerTruth calls what embed_image's --resize names; torchvision is its default."""
    return {"backend": "pil"} if backend == "pillow" else {}


class FamilyParity:
    """One drawn checkpoint, through everything that is compared."""

    def __init__(self, label: str, directory: Path, run: EmbedImage, files: list[PictureFile], report: Report):
        self.label, self.directory, self.run, self.report = label, directory, run, report
        self.files = files
        self.truth = TowerTruth(directory)
        self.cells: dict[str, str] = {}

    def compare(self) -> dict[str, str]:
        self._pictures("torchvision", self.files, "torchvision")
        self._pictures("pillow", self.files, "pillow", "--resize", "pillow")
        self._together()
        for dtype in ("bfloat16", "float16"):
            self._reduced(dtype)
        turned = [file for file in self.files if file.has_orientation]
        self._pictures("exif", turned, "torchvision", "--exif", "ignore", picture={"exif": "ignore"})
        clear = [file for file in self.files if file.has_alpha]
        self._pictures("alpha", clear, "torchvision", "--alpha", "white", picture={"alpha": "white"})
        if self.truth.is_qwen:
            self._pixel_limits()
        return self.cells

    def compare_photograph(self) -> dict[str, str]:
        """The released limits and a picture of a usual size: a thousand patches and more."""
        self._pictures("torchvision", self.files, "torchvision")
        self._pictures("pillow", self.files, "pillow", "--resize", "pillow")
        return self.cells

    def _truth_of(self, backend: str) -> TowerTruth:
        if backend == "torchvision":
            return self.truth
        other = TowerTruth(self.directory, **backend_option(backend))
        other._model = self.truth.model
        return other

    def _pictures(self, cell: str, files: list[PictureFile], backend: str, *options: str, picture=None, processor=None):
        """Every picture on its own: pixels bit for bit, grid and ids exactly, rows within the tolerance."""
        what = f"{self.label} [{' '.join(options) or 'defaults'}]"
        files = self._accepted(files, options)
        result = self.run(self.directory, [file.path for file in files], "--dump-pixels", *options)
        if failed(result, what, self.report):
            self.cells[cell] = "FAILED"
            return
        truth, fine, worst = self._truth_of(backend), True, 0.0
        for i, file in enumerate(files):
            image = file.as_transformers_gets_it(**(picture or {}))
            expected = truth.process(image, **(processor or {}))
            rows = truth.embed([image], **(processor or {})).rows[0]
            where = f"{what} {file.name} ({image.width} x {image.height}):"
            fine &= self._same(f"{where} pixels", result.get(f"pixels.{i}"), expected.pixels)
            fine &= self._same(f"{where} grid", result.get(f"grid.{i}"), expected.grid)
            if len(expected.token_ids) or f"token_ids.{i}" in result:
                fine &= self._same(f"{where} token ids", result.get(f"token_ids.{i}"), expected.token_ids)
            ours = result.get(f"embeddings.{i}")
            fine &= self._close(f"{where} embeddings", ours, rows, image, backend, processor or {})
            if ours is not None and ours.shape == rows.shape:
                worst = max(worst, relative_error([ours], [rows]))
        self.cells[cell] = f"{worst:.0e}" if fine else "FAILED"

    def _same(self, what: str, ours, truth: np.ndarray) -> bool:
        return self.report.check(what, difference(ours, truth))

    def _close(self, what: str, ours, truth: np.ndarray, image, backend: str, processor: dict) -> bool:
        """Within the tolerance, or where float32 itself is not good for that, as near to float64 as transformers is."""
        problem = difference(ours, truth, tolerance=FLOAT32_TOLERANCE)
        if problem and ours is not None and ours.shape == truth.shape and np.isfinite(ours).all():

            def embed(dtype, attention):
                model = TowerTruth(self.directory, dtype=dtype, attention=attention, **backend_option(backend))
                return model.embed([image], **processor).rows

            exact = embed(torch.float64, "eager")
            theirs = max(relative_error(embed(torch.float32, kind), exact) for kind in ("eager", "sdpa"))
            mine = relative_error([ours], exact)
            if mine <= ILL_CONDITIONED_TOLERANCE * theirs:
                problem = None
            else:
                problem += f"; {mine:.1e} of its scale from float64, transformers in float32 {theirs:.1e}"
        return self.report.check(what, problem)

    def _accepted(self, files: list[PictureFile], options) -> list[PictureFile]:
        """Leaves out what oriel may refuse and does refuse, in one line that names the file."""
        kept = []
        for file in files:
            result = self.run(self.directory, [file.path], *options) if file.may_be_refused else {}
            if not isinstance(result, Failure):
                kept.append(file)
                continue
            problem = refusal_problem(result, file.name)
            self.report.check(f"{self.label}: refusal of {file.name}", problem)
        return kept

    def _some(self, count: int) -> list[PictureFile]:
        plain = [file for file in self.files if not file.may_be_refused]
        return plain[:: max(1, len(plain) // count)][:count]

    def _together(self) -> None:
        files = self._some(9)
        images = [file.as_transformers_gets_it() for file in files]
        result = self.run(self.directory, [file.path for file in files], "--together", "--threads", "2")
        if failed(result, f"{self.label} [--together]", self.report):
            self.cells["together"] = "FAILED"
            return
        truth = self.truth.embed(images).rows
        ours = [result.get(f"embeddings.{i}") for i in range(len(files))]
        fine = True
        for file, image, mine, expected in zip(files, images, ours, truth):
            what = f"{self.label} [--together] {file.name}:"
            fine &= self._close(what, mine, expected, image, "torchvision", {})
        self.cells["together"] = f"{relative_error(ours, truth):.0e}" if fine else "FAILED"

    def _reduced(self, dtype: str) -> None:
        """In 16 bits two right answers differ; the one that counts is how far each is from the float32 truth."""
        files = self._some(12)
        images = [file.as_transformers_gets_it() for file in files]
        result = self.run(self.directory, [file.path for file in files], "--dtype", dtype)
        if failed(result, f"{self.label} [--dtype {dtype}]", self.report):
            self.cells[dtype] = "FAILED"
            return
        exact = [self.truth.embed([image]).rows[0] for image in images]
        framework = TowerTruth(self.directory, dtype=getattr(torch, dtype), attention="sdpa")
        theirs = [framework.embed([image]).rows[0] for image in images]
        ours = [result.get(f"embeddings.{i}") for i in range(len(files))]
        for file, mine, expected in zip(files, ours, exact):
            if mine is None or mine.shape != expected.shape or not np.isfinite(mine).all():
                self.report.check(f"{self.label} [--dtype {dtype}] {file.name}", "is missing, misshapen or not finite")
                self.cells[dtype] = "FAILED"
                return
        mine, framework_error = rms_error(ours, exact), rms_error(theirs, exact)
        limit = REDUCED_TOLERANCE * framework_error
        problem = None if mine <= limit else f"rms error {mine:.3e}, transformers' own {framework_error:.3e}"
        fine = self.report.check(f"{self.label} [--dtype {dtype}]", problem)
        self.cells[dtype] = f"{mine / framework_error:.2f}x" if fine else "FAILED"

    def _pixel_limits(self) -> None:
        size = self.truth.processor.image_processor.size
        low, high = size["shortest_edge"], size["longest_edge"]
        middle = (low + high) // 2
        # transformers heeds the two only together; in oriel each acts alone, the other one is then the file's.
        for options, asked in (
            (["--min-pixels", middle], (middle, high)),
            (["--max-pixels", middle], (low, middle)),
            (["--min-pixels", 2 * low, "--max-pixels", middle + 2 * low], (2 * low, middle + 2 * low)),
        ):
            limits = {"min_pixels": asked[0], "max_pixels": asked[1]}
            self._pictures("limits", self._some(12), "torchvision", *map(str, options), processor=limits)
            if self.cells["limits"] == "FAILED":
                return


def check_layouts(label: str, directory: Path, seed: int, files: list[PictureFile], run: EmbedImage, report: Report):
    """The same weights under every known naming give the same rows, bit for bit."""
    model = build_model(directory, seed)
    pictures = [file.path for file in files[:3]]
    reference, seen = None, []
    for layout in LAYOUTS:
        tensors = hub_tensors(model, layout, torch.float32)
        if set(tensors) in seen:
            continue
        seen.append(set(tensors))
        if layout == "hub":
            tensors |= old_buffers(model.config.model_type)
        variant = write_variant(directory.parent / f"{directory.name}_{layout}", directory)
        write_tensors(tensors, variant)
        result = run(variant, pictures)
        if failed(result, f"{label} [{layout} names]", report):
            continue
        reference = reference or result
        for name, expected in reference.items():
            report.check(f"{label} [{layout} names] {name}", difference(result.get(name), expected))
    return f"{len(seen)} names"


def old_buffers(model_type: str) -> dict[str, torch.Tensor]:
    """What files of older versions carry beside the weights."""
    if model_type.startswith("qwen"):
        return {"visual.rotary_pos_emb.inv_freq": torch.ones(4)}
    if model_type in ("llava", "mistral3"):
        return {"language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    tower = "vision_tower.vision_model" if model_type == "gemma3" else "vision_model"
    return {f"{tower}.embeddings.position_ids": torch.arange(4)[None]}


# --- what has to be refused ---


def refusal_problem(result, *named: str) -> str | None:
    """None if the program ended with exit code 1 and one line on stderr that names all of `named`."""
    if not isinstance(result, Failure) or result.code != 1:
        code = result.code if isinstance(result, Failure) else 0
        return f"exit code {code}, expected 1 ({getattr(result, 'stderr', '').strip()[:200]})"
    lines = result.stderr.splitlines()
    if len(lines) != 1:
        return f"{len(lines)} lines on stderr, expected one: {result.stderr[:300]!r}"
    missing = [name for name in named if name not in lines[0]]
    return f"stderr does not name {missing}: {lines[0]}" if missing else None


def check_bad_pictures(directory: Path, files: list[PictureFile], scratch: Path, run: EmbedImage, report: Report) -> None:
    good = next(file for file in files if file.name == "rgb.png")
    bad = {"not there": scratch / "nowhere.jpg"}
    for name in ("baseline_420.jpg", "progressive.jpg", "rgb.png", "lossy.webp", "rgb.bmp", "still.gif"):
        source = next(file.path for file in files if file.name == name)
        bad[f"half of {name}"] = truncated(source, scratch / f"half_{name}", 0.5)
    for name, content in (("empty.png", b""), ("text.jpg", b"no picture at all\n")):
        (scratch / name).write_bytes(content)
        bad[name] = scratch / name
    huge = bytearray(encoded_png(good.as_transformers_gets_it()))
    huge[16:24] = (100_000).to_bytes(4, "big") * 2
    (scratch / "huge.png").write_bytes(huge)
    bad["a header of 100,000 x 100,000"] = scratch / "huge.png"
    for what, path in bad.items():
        report.check(f"{what}: ", refusal_problem(run(directory, [good.path, path]), path.name))


def check_bad_models(directory: Path, seed: int, picture: Path, scratch: Path, run: EmbedImage, report: Report) -> None:
    """directory: a Pixtral checkpoint."""
    model = build_model(directory, seed)

    def variant(name: str, edit_config=None, edit_tensors=None) -> Path:
        folder = write_variant(scratch / name, directory)
        config = json.loads((folder / "config.json").read_text())
        if edit_config:
            edit_config(config)
        (folder / "config.json").write_text(json.dumps(config))
        tensors = hub_tensors(model, "hub", torch.float32)
        if edit_tensors:
            edit_tensors(tensors)
        write_tensors(tensors, folder)
        return folder

    norm, conv = "vision_tower.ln_pre.weight", "vision_tower.patch_conv.weight"

    def reshape(tensors):
        tensors[norm] = torch.ones(tensors[norm].shape[0] + 1)

    cases = {
        "an unknown model type": (variant("unknown", lambda c: c.update(model_type="unheard_of")), ["unheard_of"]),
        "a quantised checkpoint": (
            variant("quantised", lambda c: c.update(quantization_config={"quant_method": "fp8"})),
            ["quantization_config"],
        ),
        "a missing tensor": (variant("missing", edit_tensors=lambda t: t.pop(norm)), ["ln_pre.weight"]),
        "a tensor of a wrong shape": (variant("reshaped", edit_tensors=reshape), ["ln_pre.weight"]),
        "two missing tensors": (
            variant("missing_two", edit_tensors=lambda t: (t.pop(norm), t.pop(conv))),
            ["ln_pre.weight", "patch_conv.weight"],
        ),
        "a folder without a model": (scratch / "no_such_folder", ["no_such_folder"]),
    }
    cut = variant("cut")
    truncated(cut / "model.safetensors", cut / "model.safetensors", 0.7)
    cases["a truncated weight file"] = (cut, ["model.safetensors"])
    broken = variant("broken_config")
    (broken / "config.json").write_text('{"model_type": "llava", ')
    cases["a damaged config"] = (broken, ["config.json"])
    for what, (folder, named) in cases.items():
        report.check(f"{what}:", refusal_problem(run(folder, [picture]), *named))


# --- the run ---

COLUMNS = ("torchvision", "pillow", "together", "bfloat16", "float16", "exif", "alpha", "limits", "layouts")


def run_all(arguments, scratch: Path, report: Report) -> None:
    draw = np.random.default_rng(arguments.seed)
    (scratch / "pictures").mkdir()
    files = write_pictures(scratch / "pictures", draw)
    run = EmbedImage(arguments.program.resolve(), scratch)
    print(f"{len(files)} pictures; largest error in units of the largest value, 16 bits in units of transformers' own")
    print(f"{'checkpoint':68}" + "".join(f"{column:>12}" for column in COLUMNS))
    for family in FAMILIES:
        for number in range(arguments.count):
            seed = int(draw.integers(2**31))
            checkpoint = draw_checkpoint(family, np.random.default_rng(seed))
            if arguments.family and family != arguments.family:
                continue
            directory = scratch / f"{family}_{number}"
            write_checkpoint(checkpoint, directory, seed)
            cells = FamilyParity(directory.name, directory, run, files, report).compare()
            if number == 0:
                before = len(report.failures)
                layouts = check_layouts(directory.name, directory, seed, files, run, report)
                cells["layouts"] = layouts if len(report.failures) == before else "FAILED"
            line = f"{directory.name:16}{describe(checkpoint):52}"
            print(line + "".join(f"{cells.get(column, ''):>12}" for column in COLUMNS), flush=True)
            if family == "pixtral" and number == 0:
                check_bad_pictures(directory, files, scratch, run, report)
                check_bad_models(directory, seed, files[0].path, scratch, run, report)


def run_photograph(arguments, scratch: Path, report: Report) -> None:
    run = EmbedImage(arguments.program.resolve(), scratch)
    assets = Path(__file__).parents[2] / "assets"
    photographs = [PictureFile(path) for path in sorted((assets / "photos").glob("*.jpg"))]
    for directory in sorted(path for path in (assets / "tiny").iterdir() if path.is_dir()):
        if arguments.family in (None, directory.name):
            label = f"assets/tiny/{directory.name}"
            cells = FamilyParity(label, directory, run, photographs, report).compare_photograph()
            print(f"{label:68}" + "".join(f"{cells.get(column, ''):>12}" for column in COLUMNS), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, required=True, help="embed_image")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--family", choices=FAMILIES, help="this one only")
    parser.add_argument("--count", type=int, default=2, help="checkpoints a family")
    parser.add_argument("--keep", type=Path, help="work in this new folder, and keep it")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(2**31)
    torch.set_num_threads(1)  # more would wait for each other: the towers are tiny
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(f"seed {arguments.seed}, transformers {transformers.__version__}, torch {torch.__version__}")
    report, start = Report(), time.monotonic()
    with contextlib.ExitStack() as stack:
        if arguments.keep:
            scratch = arguments.keep
            scratch.mkdir(parents=True)
        else:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oriel_parity_")))
        run_all(arguments, scratch, report)
        run_photograph(arguments, scratch, report)
    for failure in report.failures[:40]:
        print(f"FAILED {failure}")
    if len(report.failures) > 40:
        print(f"... and {len(report.failures) - 40} more")
    seconds = time.monotonic() - start
    print(f"{report.checks} checks, {len(report.failures)} failed, {seconds:.0f} s, seed {arguments.seed}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
