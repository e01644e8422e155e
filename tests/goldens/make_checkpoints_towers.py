"""The checkpoints of tests/data/towers: small models whose shapes, keys and layouts differ where towers can go wrong.

    python tests/goldens/make_checkpoints_towers.py [DIRECTORY]

The same call gives the same bytes. make_tower_goldens.py then adds what transformers computes from them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import family_configs as families
from checkpoint_writer import Checkpoint, write_checkpoint
from family_configs import ABSENT

BFLOAT16, FLOAT16 = torch.bfloat16, torch.float16


def towers() -> dict[str, Checkpoint]:
    return {**_pixtral(), **_mistral3(), **_qwen2(), **_qwen2_5(), **_gemma3(), **_siglip()}


def _pixtral() -> dict[str, Checkpoint]:
    explicit = families.pixtral(
        width=60, heads=3, layers=2, mlp=44, patch=8, text_width=44, longest_edge=80, vision={"head_dim": 20},
        top={"tie_word_embeddings": True},
    )
    # Several feature layers, no biases, class defaults for the activations (gelu) and for head_dim.
    several_layers = families.pixtral(
        width=36, heads=3, layers=3, mlp=40, patch=10, text_width=28, longest_edge=80, form="v5",
        vision={
            "hidden_act": ABSENT,
            "rope_theta": ABSENT,
            "rope_parameters": {"rope_theta": 300.0, "rope_type": "axial"},
        },
        top={
            "multimodal_projector_bias": False,
            "projector_hidden_act": ABSENT,
            "tie_word_embeddings": True,
            "vision_feature_layer": [1, -2, -1],
        },
    )  # fmt: skip
    second_to_last = families.pixtral(
        width=56, heads=2, layers=3, mlp=40, patch=8, text_width=40, longest_edge=72, resample=2,
        top={"vision_feature_layer": ABSENT, "projector_hidden_act": "silu", "torch_dtype": "bfloat16"},
        vision={"hidden_act": "gelu_pytorch_tanh", "rope_theta": ABSENT},
    )  # fmt: skip
    return {
        "pixtral_head_dim_20": Checkpoint(*explicit, dtype=BFLOAT16),
        "pixtral_several_feature_layers": Checkpoint(*several_layers, layout="canonical"),
        "pixtral_second_to_last_layer_bfloat16": Checkpoint(*second_to_last, layout="resaved", dtype=BFLOAT16),
    }


def _mistral3() -> dict[str, Checkpoint]:
    # An eps that can be seen: the projector takes the text model's, the tower's own is fixed.
    biased = families.mistral3(
        width=36, heads=3, layers=2, mlp=46, patch=8, text_width=24, longest_edge=96,
        top={"multimodal_projector_bias": True}, text={"rms_norm_eps": 0.05}, vision={"head_dim": 12},
    )  # fmt: skip
    defaults = families.mistral3(
        width=40, heads=2, layers=3, mlp=30, patch=7, text_width=52, longest_edge=63, merge=3, form="old",
        top={
            "multimodal_projector_bias": ABSENT,
            "projector_hidden_act": ABSENT,
            "vision_feature_layer": ABSENT,
            "image_token_index": ABSENT,
        },
        vision={"hidden_act": ABSENT, "rope_theta": ABSENT, "image_size": ABSENT, "model_type": ABSENT},
        text={"rms_norm_eps": ABSENT},
    )  # fmt: skip
    return {
        "mistral3_biases_in_three_shards": Checkpoint(*biased, layout="hub", shards=3),
        "mistral3_defaults_merge_3": Checkpoint(*defaults, layout="fresh", dtype=BFLOAT16),
    }


def _qwen2() -> dict[str, Checkpoint]:
    flat = families.qwen2_vl(
        width=24, heads=2, layers=3, patch=6, text_width=36, min_pixels=576, max_pixels=2880,
        vision={"mlp_ratio": ABSENT, "in_chans": 3, "spatial_patch_size": 6}, top={"tie_word_embeddings": True},
    )  # fmt: skip
    nested = families.qwen2_vl(
        width=40, heads=2, layers=2, patch=14, text_width=56, min_pixels=3136, max_pixels=6272, form="v5", nested=True,
        vision={"hidden_act": "gelu", "temporal_patch_size": ABSENT, "patch_size": ABSENT},
        top={"dtype": "bfloat16", "tie_word_embeddings": True},
    )  # fmt: skip
    return {
        "qwen2_vl_flat": Checkpoint(*flat),
        "qwen2_vl_nested_bfloat16": Checkpoint(*nested, layout="canonical", dtype=BFLOAT16),
    }


def _qwen2_5() -> dict[str, Checkpoint]:
    # Windows of three cells on grids that they do not divide; two layers see everything.
    windows = families.qwen2_5_vl(
        width=36, heads=3, layers=4, mlp=22, patch=6, text_width=24, window=36, full_layers=[0, 3],
        min_pixels=576, max_pixels=4608, top={"tie_word_embeddings": True},
    )  # fmt: skip
    released = families.qwen2_5_vl(
        width=40, heads=2, layers=3, mlp=54, patch=14, text_width=24, window=112, full_layers=[1], top={"tie_word_embeddings": True},
        min_pixels=3136, max_pixels=50176, form="v5", nested=True,
        vision={"window_size": ABSENT, "hidden_act": ABSENT, "spatial_merge_size": ABSENT},
    )  # fmt: skip
    return {
        "qwen2_5_vl_uneven_windows": Checkpoint(*windows),
        "qwen2_5_vl_nested_in_two_shards": Checkpoint(*released, layout="resaved", shards=2, dtype=BFLOAT16),
    }


def _gemma3() -> dict[str, Checkpoint]:
    eps = families.gemma3(
        width=72, heads=1, layers=2, mlp=50, patch=10, image=60, tokens=9, text_width=40,
        vision={"layer_norm_eps": 0.02},
    )  # fmt: skip
    later = families.gemma3(
        width=40, heads=2, layers=2, mlp=50, patch=8, image=48, tokens=9, text_width=24, form="v5", resample=3,
        vision={"hidden_act": "gelu_pytorch_tanh", "num_channels": 3},
    )  # fmt: skip
    return {
        "gemma3_head_dim_72": Checkpoint(*eps, dtype=BFLOAT16),
        "gemma3_fresh_names": Checkpoint(*later, layout="fresh"),
    }


def _siglip() -> dict[str, Checkpoint]:
    full = families.siglip(width=36, heads=3, layers=2, mlp=42, patch=10, image=43)
    plain = families.siglip_vision(
        width=40, heads=2, layers=2, mlp=54, patch=8, image=48, resample=2,
        vision={"vision_use_head": False, "layer_norm_eps": 0.01},
    )  # fmt: skip
    with_head = families.siglip_vision(
        width=60, heads=3, layers=2, mlp=34, patch=10, image=40, form="v5", vision={"hidden_act": "gelu"}
    )  # fmt: skip
    return {
        "siglip_with_text_tower": Checkpoint(*full),
        "siglip_vision_without_head": Checkpoint(*plain, layout="hub"),
        "siglip_vision_with_head_float16": Checkpoint(*with_head, layout="canonical", dtype=FLOAT16),
    }


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "data" / "towers"
    for seed, (name, checkpoint) in enumerate(towers().items(), 101):
        write_checkpoint(checkpoint, root / name, seed)
        size = sum(f.stat().st_size for f in (root / name).iterdir() if f.name != "golden.safetensors")
        print(f"{name:40} {size / 1000:6.0f} kB", flush=True)


if __name__ == "__main__":
    main()
