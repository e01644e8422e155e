"""Checkpoints whose shapes and weights are drawn anew: what no committed golden has seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import family_configs as families
from checkpoint_writer import Checkpoint
from family_configs import ABSENT


class _Shapes:
    def __init__(self, draw: np.random.Generator):
        self._draw = draw

    def one_of(self, *values):
        return values[int(self._draw.integers(len(values)))]

    def between(self, low: int, high: int) -> int:
        return int(self._draw.integers(low, high + 1))

    def tower(self, patches=(6, 7, 8, 10, 14, 16)) -> dict:
        """Head dims are multiples of four: the rotary tables of Pixtral and Qwen cut them in four."""
        heads, head_dim = self.one_of((1, 72), (1, 40), (2, 20), (2, 36), (3, 12), (3, 24), (4, 8), (4, 16), (5, 12))
        return {
            "width": heads * head_dim,
            "heads": heads,
            "layers": self.between(2, 4),
            "mlp": self.between(20, 90),
            "patch": self.one_of(*patches),
        }

    def text_width(self, taken: int) -> int:
        width = 2 * self.between(8, 40)
        return width + 2 if width == taken else width


def _pixtral(s: _Shapes):
    tower = s.tower()
    layer = s.one_of(-1, -1, -2, 1, [0, -1], [-2, -1])
    vision = {
        "head_dim": s.one_of(ABSENT, tower["width"] // tower["heads"]),
        "hidden_act": s.one_of("silu", "gelu", ABSENT),
        **s.one_of(
            {"rope_theta": 10000.0},
            {"rope_theta": 123.0},
            {"rope_theta": ABSENT},
            {"rope_theta": ABSENT, "rope_parameters": {"rope_theta": 500.0, "rope_type": "axial"}},
        ),
    }
    top = {"vision_feature_layer": layer, "multimodal_projector_bias": s.one_of(True, False, ABSENT)}
    return families.pixtral(
        **tower, text_width=s.text_width(tower["width"]), longest_edge=s.between(60, 170), vision=vision, top=top,
        form=s.one_of("old", "v5"),
    )  # fmt: skip


def _mistral3(s: _Shapes):
    tower = s.tower()
    top = {
        "multimodal_projector_bias": s.one_of(True, False, ABSENT),
        "projector_hidden_act": s.one_of("gelu", "silu", ABSENT),
        "vision_feature_layer": s.one_of(-1, -2, ABSENT),
    }
    return families.mistral3(
        **tower, text_width=s.text_width(tower["width"]), longest_edge=s.between(60, 170), merge=s.one_of(2, 2, 3),
        top=top, text={"rms_norm_eps": s.one_of(1e-5, 0.03, ABSENT)}, vision={"hidden_act": s.one_of("silu", "gelu")},
        form=s.one_of("old", "v5"),
    )  # fmt: skip


def _qwen_limits(s: _Shapes, cell: int) -> dict:
    return {"min_pixels": s.between(1, 6) * cell * cell, "max_pixels": s.between(10, 60) * cell * cell}


def _qwen2_vl(s: _Shapes):
    tower = s.tower((6, 7, 8, 14))
    del tower["mlp"]
    return families.qwen2_vl(
        **tower, text_width=s.text_width(tower["width"]), mlp_ratio=s.one_of(2, 3), **_qwen_limits(s, 2 * tower["patch"]),
        vision={"hidden_act": s.one_of(ABSENT, "gelu", "quick_gelu")}, form=s.one_of("old", "v5"),
        nested=s.one_of(True, False),
    )  # fmt: skip


def _qwen2_5_vl(s: _Shapes):
    tower = s.tower((6, 7, 8, 14))
    patch = tower["patch"]
    full = sorted({s.between(0, tower["layers"] - 1) for _ in range(s.between(1, 2))})
    return families.qwen2_5_vl(
        **tower, text_width=s.text_width(tower["width"]), **_qwen_limits(s, 2 * patch), full_layers=full,
        window=2 * patch * s.between(1, 4) + s.between(0, patch - 1), form=s.one_of("old", "v5"),
        nested=s.one_of(True, False),
    )  # fmt: skip


def _gemma3(s: _Shapes):
    tower = s.tower()
    side, pooled = s.between(2, 4), s.between(1, 3)
    return families.gemma3(
        **tower, image=tower["patch"] * side * pooled, tokens=side * side, text_width=s.text_width(tower["width"]),
        vision={"layer_norm_eps": s.one_of(1e-6, 0.03, ABSENT)}, form=s.one_of("old", "v5"), resample=s.one_of(2, 3),
    )  # fmt: skip


def _siglip_shape(s: _Shapes) -> dict:
    tower = s.tower()
    return {**tower, "image": tower["patch"] * s.between(2, 7) + s.between(0, tower["patch"] - 1)}


def _siglip(s: _Shapes):
    return families.siglip(**_siglip_shape(s), resample=s.one_of(2, 3), form=s.one_of("old", "v5"))


def _siglip_vision(s: _Shapes):
    vision = {
        "vision_use_head": s.one_of(False, ABSENT),
        "hidden_act": s.one_of("gelu", "gelu_pytorch_tanh", ABSENT),
        "layer_norm_eps": s.one_of(1e-6, 0.02),
    }
    return families.siglip_vision(**_siglip_shape(s), vision=vision, resample=s.one_of(2, 3))


FAMILIES = {
    "pixtral": _pixtral,
    "mistral3": _mistral3,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "gemma3": _gemma3,
    "siglip": _siglip,
    "siglip_vision": _siglip_vision,
}


def draw_checkpoint(family: str, draw: np.random.Generator) -> Checkpoint:
    shapes = _Shapes(draw)
    config, files, tokenizer = FAMILIES[family](shapes)
    layout = shapes.one_of("hub", "hub", "resaved", "canonical", "fresh")
    dtype = shapes.one_of(torch.float32, torch.bfloat16)
    return Checkpoint(config, files, tokenizer, layout=layout, dtype=dtype, shards=shapes.one_of(1, 1, 3))


def describe(checkpoint: Checkpoint) -> str:
    config = checkpoint.config
    vision = config.get("vision_config", config)
    width = vision.get("embed_dim", vision["hidden_size"])
    heads = vision.get("num_heads", vision.get("num_attention_heads"))
    dtype = str(checkpoint.dtype).removeprefix("torch.")
    return f"{heads}x{width // heads} patch {vision['patch_size']}, {checkpoint.layout}, {dtype}, {checkpoint.shards} file(s)"


def write_variant(directory: Path, source: Path) -> Path:
    """A new folder with the small files of `source`, ready for other weights or an edited config."""
    directory.mkdir(parents=True)
    for file in source.glob("*.json"):
        if file.name != "model.safetensors.index.json":
            (directory / file.name).write_bytes(file.read_bytes())
    return directory
