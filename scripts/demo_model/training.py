"""The training of one family: batches, losses, schedule, log."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from families import CELL, WIDTH, Family
from networks import Network, Parameters, initial_value
from optimiser import Optimiser
from scene_stream import IGNORED, KINDS, Batch, Feeder

SHAPES, COLOURS, CHARACTERS = 6, 8, 34  # what a cell can show, without nothing
BINS = 100
SUBPIXEL = 64
AUXILIARY = "auxiliary.weight"


@dataclass
class Settings:
    minutes: float
    steps: int
    seed: int
    device: torch.device
    dtype: torch.dtype
    compiled: bool
    log_every: int = 100
    rate: float = 1.0


def parameter_shapes(family: Family, directory: Path) -> dict[str, torch.Size]:
    """Names and shapes as transformers' own class has them for the written config.json."""
    config = transformers.AutoConfig.from_pretrained(directory)
    with torch.device("meta"):
        model = getattr(transformers, family.model_class)(config)
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def save_weights(family: Family, parameters: Parameters, directory: Path) -> None:
    tensors = {
        family.hub_name(name): view.detach().to(torch.bfloat16).cpu().contiguous().clone()
        for name, view in parameters.views(parameters.flat.detach()).items()
        if name != AUXILIARY
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)


def load_weights(family: Family, parameters: Parameters, directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    with torch.no_grad():
        for name, view in parameters.views(parameters.flat.detach()).items():
            if name != AUXILIARY:
                view.copy_(tensors[family.hub_name(name)])


def schedule(steps: int, progress: float) -> float:
    """Up within 200 steps, then down along a cosine."""
    return min(1.0, (steps + 1) / 200) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class Trainer:
    def __init__(self, family: Family, directory: Path, settings: Settings):
        self.family, self.settings, self.directory = family, settings, directory
        shapes = parameter_shapes(family, directory)
        self.auxiliary_sizes = [SHAPES + 1, COLOURS + 1, CHARACTERS, 1, 4, 4] + [BINS] * (4 if family.boxes else 0)
        shapes[AUXILIARY] = torch.Size((sum(self.auxiliary_sizes), WIDTH))
        self.parameters = Parameters(shapes, settings.device)
        generator = torch.Generator().manual_seed(settings.seed)
        with torch.no_grad():
            for name, view in self.parameters.views(self.parameters.flat.detach()).items():
                view.copy_(initial_value(name, shapes[name], family.name, generator))
        self.network = Network(family, settings.compiled)
        self.optimiser = Optimiser(self.parameters)
        self.generator = torch.Generator(device=settings.device).manual_seed(settings.seed)
        self.right = torch.zeros(len(KINDS), device=settings.device)
        self.asked = torch.zeros(len(KINDS), device=settings.device)

    def weight_count(self) -> int:
        return sum(math.prod(shape) for name, shape in self.parameters.shapes.items() if name != AUXILIARY)

    def run(self, feeder: Feeder, began: float, print_line) -> None:
        """Until the minutes since `began`, or the steps, are over."""
        settings = self.settings
        step, progress, scenes, waited = 0, 0.0, 0, 0.0
        sums = torch.zeros(2, device=settings.device)
        first_step = last_log = time.time()
        end = began + settings.minutes * 60
        while progress < 1:
            before = time.time()
            batch = feeder.take()
            waited += time.time() - before
            losses = self._step(batch, progress)
            sums += torch.stack(losses)
            scenes += len(batch.ids)
            step += 1
            now = time.time()
            if step == 1:  # not the compiler's time
                first_step = now
            progress = step / settings.steps if settings.steps else (now - first_step) / max(1.0, end - first_step)
            feeder.progress = progress
            if step % settings.log_every == 0 or progress >= 1:
                answers, cells = (sums / settings.log_every).tolist()
                rates = (self.right / self.asked.clamp(min=1)).tolist()
                kinds = " ".join(f"{kind} {100 * rate:5.1f}" for kind, rate in zip(KINDS, rates))
                speed = settings.log_every / (time.time() - last_log)
                print_line(
                    f"step {step:6d} {100 * progress:5.1f} % {time.time() - began:6.1f} s {speed:5.1f}/s "
                    f"waited {waited:5.1f} s scenes {scenes:8d} loss {answers:.4f} cells {cells:.4f} | {kinds}"
                )
                sums.zero_()
                self.right.zero_()
                self.asked.zero_()
                last_log = time.time()

    def _step(self, batch: Batch, progress: float) -> tuple[Tensor, Tensor]:
        try:
            answers, cells = self._gradients(batch, progress)
        except Exception as error:  # noqa: BLE001 - a compiler that fails must not cost the run
            if not self.settings.compiled:
                raise
            print(f"going on without the compiler: {type(error).__name__}: {str(error)[:500]}", flush=True)
            self.settings.compiled = False
            self.network = Network(self.family, False)
            self.parameters.flat.grad = None
            answers, cells = self._gradients(batch, progress)
        self.optimiser.step(self.settings.rate * schedule(self.optimiser.steps, progress))
        return answers, cells

    def _gradients(self, batch: Batch, progress: float) -> tuple[Tensor, Tensor]:
        answers, cells = self._losses(batch, measure=self.optimiser.steps % 5 == 0)
        # The cells teach the tower quickly; the answers are what counts in the end.
        (answers + (0.5 - 0.4 * min(1.0, progress)) * cells).backward()
        return answers.detach(), cells.detach()

    def _losses(self, batch: Batch, measure: bool) -> tuple[Tensor, Tensor]:
        device, dtype = self.settings.device, self.settings.dtype

        def put(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        p = self.network.prepare(self.parameters.views(self.parameters.flat.to(dtype)))
        rows = self.network.rows(p, self._pixels(put(batch.pixels), batch), dtype)
        cells = self._cell_loss(p, rows, put(batch.objects), batch)
        rows = rows.reshape(len(batch.ids), -1, WIDTH)
        hidden = self.network.hidden(p, put(batch.ids), rows, put(batch.row_places), put(batch.positions))
        places = put(batch.answer_places)
        hidden = hidden.gather(1, places[..., None].expand(-1, -1, WIDTH))
        logits = self.network.logits(p, hidden).float()
        targets, weights = put(batch.targets), put(batch.weights)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
        answers = (loss * weights.flatten()).sum() / weights.sum()
        if measure:
            self._measure(logits.detach(), targets, put(batch.turns), put(batch.kinds))
        return answers, cells

    def _pixels(self, pixels: Tensor, batch: Batch) -> Tensor:
        """-> uint8-valued [pictures, frames, 3, height, width], as the processor resizes."""
        scenes, pictures = pixels.shape[:2]
        values = pixels.flatten(0, 1).permute(0, 3, 1, 2)
        if values.shape[2:] != (batch.height, batch.width):
            mode = "bilinear" if self.family.square else "bicubic"
            size = (batch.height, batch.width)
            values = F.interpolate(values.float(), size, mode=mode, antialias=True, align_corners=False)
            values = values.round().clamp(0, 255)
        shape = (scenes, pictures) if batch.clip else (scenes * pictures, 1)
        return values.reshape(*shape, 3, batch.height, batch.width)

    def _cell_loss(self, p: dict[str, Tensor], rows: Tensor, objects: Tensor, batch: Batch) -> Tensor:
        """What each row says of the object under its cell: shape, colour, character, centre, box."""
        width, height = batch.width // CELL, batch.height // CELL
        pictures = rows.shape[0] * rows.shape[1]
        size = torch.tensor([batch.pixels.shape[3], batch.pixels.shape[2]] * 2, device=rows.device) * SUBPIXEL
        boxes = objects[..., 3:].float() / size
        if batch.clip:  # one slice of rows shows two frames
            boxes = boxes.unflatten(1, (-1, 2)).mean(2)
            objects = objects[:, ::2]
        boxes, objects = boxes.reshape(pictures, -1, 4), objects.reshape(pictures, -1, objects.shape[-1]).long()
        column = (torch.arange(width, device=rows.device) + 0.5) / width
        row = (torch.arange(height, device=rows.device) + 0.5) / height
        places = torch.stack((column.repeat(height), row.repeat_interleave(width)), -1)  # [cells, 2]
        cell = torch.tensor([1 / width, 1 / height], device=rows.device)
        near = ((places[None, :, None] - boxes[:, None, :, :2]) / cell > -0.35).all(-1)
        near &= ((boxes[:, None, :, 2:] - places[None, :, None]) / cell > -0.35).all(-1)
        near &= (objects[:, None, :, 0] >= 0)  # [pictures, cells, objects]
        centres = (boxes[..., :2] + boxes[..., 2:]) / 2
        distance = ((places[None, :, None] - centres[:, None]) / cell).abs()
        chosen = distance.sum(-1).masked_fill(~near, 1e6).argmin(-1)  # [pictures, cells]
        shown = near.any(-1)
        is_centre = ((distance <= 0.5).all(-1) & near).any(-1)
        found = objects.gather(1, chosen[..., None].expand(-1, -1, objects.shape[-1]))
        box = boxes.gather(1, chosen[..., None].expand(-1, -1, 4))

        said = F.linear(rows.reshape(pictures, width * height, WIDTH), p[AUXILIARY]).float()
        shape, colour, character, centre, offsets, whole, *bins = said.split(self.auxiliary_sizes, -1)

        def chosen_class(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
            return (loss * mask.flatten()).sum() / mask.sum().clamp(min=1)

        everywhere = torch.ones_like(shown).float()
        loss = chosen_class(shape, torch.where(shown, found[..., 0], SHAPES), everywhere)
        loss = loss + chosen_class(colour, torch.where(shown, found[..., 1], COLOURS), everywhere)
        loss = loss + chosen_class(character, found[..., 2].clamp(min=0), (shown & (found[..., 2] >= 0)).float())
        loss = loss + F.binary_cross_entropy_with_logits(centre[..., 0], is_centre.float())
        mask = shown.float()[..., None]
        corners = (box - places.repeat(1, 2)) / cell.repeat(2)
        for guess, truth in ((offsets, corners), (whole * 4, box * 4)):
            loss = loss + (F.smooth_l1_loss(guess, truth, reduction="none") * mask).sum() / mask.sum().clamp(min=1) / 4
        for coordinate, logits in enumerate(bins):
            labels = (box[..., coordinate] * BINS).long().clamp(0, BINS - 1)
            loss = loss + 0.1 * chosen_class(logits, labels, shown.float())
        return loss

    def _measure(self, logits: Tensor, targets: Tensor, turns: Tensor, kinds: Tensor) -> None:
        """Turns whose every token is the likeliest one: what greedy decoding would say."""
        right = ((logits.argmax(-1) == targets) | (targets == IGNORED)).float()
        whole = torch.ones(kinds.shape, device=right.device).scatter_reduce(1, turns, right, "amin")
        for kind in range(len(KINDS)):
            mask = (kinds == kind).float()
            self.right[kind] += (whole * mask).sum()
            self.asked[kind] += mask.sum()
