"""How far the forward passes of networks.py are from transformers' own, on a written model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from evaluation import Answerer, test_cases
from families import CELL, Family
from networks import Network, Parameters
from scene_stream import Conversations, Renderer
from training import load_weights, parameter_shapes


@torch.inference_mode()
def difference_to_transformers(family: Family, directory: Path, renderer: Renderer, device: torch.device) -> float:
    """The largest difference of logits at the end of a prompt, relative to the largest logit.

    One picture, several pictures and a clip, of sizes that need no resizing; prompts by transformers' processor, which
    must be the very ids that training builds.
    """
    answerer = Answerer(family, directory, device)
    parameters = Parameters(parameter_shapes(family, directory), device)
    load_weights(family, parameters, directory)
    network = Network(family, compiled=False)
    p = network.prepare(parameters.views(parameters.flat))
    conversations = Conversations(family)
    worst = 0.0
    for kind in ("describe", "which", "move") if family.clips else ("describe", "which"):
        clip = kind == "move"
        pixels, question, _ = test_cases(family, renderer, kind, 1, 7)[0]
        width, height = (family.square, family.square) if family.square else (5 * CELL, 4 * CELL)
        pixels = np.resize(pixels, (pixels.shape[0], height, width, 3))
        inputs = answerer.inputs([(pixels, question, "")], clip)
        theirs = answerer.model(**inputs).logits[0, -1]
        slices = len(pixels) // 2 if clip else 1
        head, places, positions, following = conversations.prefix(
            len(pixels), height // CELL, width // CELL, slices, clip
        )
        ids = np.concatenate((head, conversations._prompt(True, question)))
        assert ids.tolist() == inputs["input_ids"][0].tolist(), (ids.tolist(), inputs["input_ids"][0].tolist())
        tail = np.tile(np.arange(len(ids) - len(head)) + following, (3, 1))
        positions = torch.from_numpy(np.concatenate((positions, tail), axis=1)).to(device)
        values = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
        values = values[None] if clip else values[:, None]
        rows = network.rows(p, values, torch.float32).reshape(1, len(places), -1)
        ids_tensor, places_tensor = (torch.from_numpy(array).to(device) for array in (ids[None], places))
        hidden = network.hidden(p, ids_tensor, rows, places_tensor, positions)
        ours = network.logits(p, hidden[0, -1])
        worst = max(worst, ((ours - theirs).abs().max() / theirs.abs().max()).item())
    return worst
