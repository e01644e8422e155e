"""The checkpoints of tests/data/text: small models whose text sides differ where decoders can go wrong.

    python tests/goldens/make_checkpoints_text.py [DIRECTORY]

The same call gives the same bytes. make_text_goldens.py then adds what transformers computes from them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import family_configs as families
from checkpoint_writer import Checkpoint, write_checkpoint
from family_configs import ABSENT

BFLOAT16 = torch.bfloat16
PIXTRAL_VISION = {"width": 24, "heads": 2, "layers": 1, "mlp": 16, "patch": 8, "longest_edge": 48}
QWEN_VISION = {"width": 16, "heads": 2, "layers": 1, "patch": 8, "min_pixels": 256, "max_pixels": 4096}
TEXT = {"num_hidden_layers": 3, "intermediate_size": 40, "max_position_embeddings": 4096}


def checkpoints() -> dict[str, Checkpoint]:
    return {**_llama(), **_mistral(), **_qwen2(), **_gemma3(), **_stretched()}


def _llama() -> dict[str, Checkpoint]:
    llama = {**TEXT, "model_type": "llama", "sliding_window": ABSENT, "rope_theta": 5000.0}
    # Short contexts, so that the three kinds of waves of llama3 all are there. Tied by text_config alone.
    stretched = families.pixtral(
        **PIXTRAL_VISION, text_width=32,
        text={
            **llama,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
            "tie_word_embeddings": True,
        },
    )  # fmt: skip
    # As many key heads as heads and head_dim from the width, both unsaid; biases everywhere.
    biased = families.pixtral(
        **PIXTRAL_VISION, text_width=36, form="v5",
        text={
            **llama,
            "attention_bias": True,
            "head_dim": ABSENT,
            "mlp_bias": True,
            "num_attention_heads": 3,
            "num_key_value_heads": ABSENT,
            "rope_scaling": {"type": "linear", "factor": 4.0},
            "rms_norm_eps": ABSENT,
        },
    )  # fmt: skip
    return {
        "llava_llama3_rope_tied": Checkpoint(*stretched, dtype=BFLOAT16),
        "llava_llama_linear_rope_biases": Checkpoint(*biased, layout="canonical", dtype=BFLOAT16),
    }


def _mistral() -> dict[str, Checkpoint]:
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2}
    # Tied, as the class has it where config.json does not say.
    windowed = families.mistral3(
        **PIXTRAL_VISION, text_width=32,
        text={**TEXT, **heads, "sliding_window": 9, "rope_parameters": {"rope_theta": 900.0, "rope_type": "default"}},
    )  # fmt: skip
    # The class would tie here too, but the file holds two different tensors (write_checkpoints puts the second there).
    two_ends = families.mistral3(
        **PIXTRAL_VISION, text_width=28, form="old", text={**TEXT, **heads, "num_hidden_layers": 1}
    )
    return {
        "mistral3_window_tied": Checkpoint(*windowed, layout="resaved", dtype=BFLOAT16),
        "mistral3_two_ends": Checkpoint(*two_ends, dtype=BFLOAT16),
    }


def _qwen2() -> dict[str, Checkpoint]:
    qwen = {**TEXT, "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 7, "use_sliding_window": True}
    rope = {"rope_scaling": {"mrope_section": [1, 2, 1], "rope_type": "default", "type": "mrope"}}
    nested = families.qwen2_vl(
        **QWEN_VISION, text_width=32, nested=True, form="v5", text={**qwen, **rope, "max_window_layers": 1}
    )
    # Three sections of different lengths, the window in one layer by name, time that runs.
    flat = families.qwen2_5_vl(
        **QWEN_VISION, mlp=20, text_width=48, window=32, full_layers=[0], nested=False,
        vision={"tokens_per_second": 3},
        text={
            **qwen,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "rope_scaling": {"mrope_section": [3, 4, 1], "type": "mrope"},
            "tie_word_embeddings": True,
        },
        top={"tie_word_embeddings": True},
    )  # fmt: skip
    return {
        "qwen2_vl_window": Checkpoint(*nested, layout="resaved", dtype=BFLOAT16),
        "qwen2_5_vl_window": Checkpoint(*flat, dtype=BFLOAT16),
    }


def _gemma3() -> dict[str, Checkpoint]:
    # A window that is shorter than a picture's 16 rows, and that cuts them.
    windowed = families.gemma3(
        width=24, heads=2, layers=1, mlp=16, patch=14, image=112, tokens=16, text_width=32, form="v5",
        text={
            **TEXT,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "query_pre_attn_scalar": 12,
            "rope_parameters": {
                "full_attention": {"factor": 2.0, "rope_theta": 4000.0, "rope_type": "linear"},
                "sliding_attention": {"rope_theta": 500.0, "rope_type": "default"},
            },
            "sliding_window": 10,
        },
    )  # fmt: skip
    return {"gemma3_window": Checkpoint(*windowed, layout="canonical", dtype=BFLOAT16)}


def _stretched() -> dict[str, Checkpoint]:
    # Short first lengths, so that prompts are longer, and that pairs of all three kinds are there: left, between, slowed.
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    llama = families.pixtral(
        **PIXTRAL_VISION, text_width=32,
        text={
            **TEXT, **heads, "model_type": "llama", "sliding_window": ABSENT, "rope_theta": 200.0, "head_dim": 16,
            "rope_scaling": {**yarn, "beta_fast": 6.0, "beta_slow": 0.25, "truncate": False},
        },
    )  # fmt: skip
    qwen = families.qwen2_5_vl(
        **QWEN_VISION, mlp=20, text_width=64, window=32, full_layers=[0], nested=False,
        text={
            **TEXT, **heads, "rope_theta": 100.0,
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
                             "mrope_section": [2, 3, 3]},
        },
    )  # fmt: skip
    dynamic = families.mistral3(
        **PIXTRAL_VISION, text_width=32, form="old",
        text={**TEXT, **heads, "rope_theta": 500.0, "rope_scaling": {"type": "dynamic", "factor": 2.0},
              "tie_word_embeddings": False},
    )  # fmt: skip
    return {
        "llava_llama_yarn": Checkpoint(*llama, dtype=BFLOAT16),
        "qwen2_5_vl_yarn": Checkpoint(*qwen, dtype=BFLOAT16),
        "mistral3_dynamic_rope": Checkpoint(*dynamic, dtype=BFLOAT16),
    }


def add_second_end(directory: Path) -> None:
    """A head beside the embeddings, and different from them."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    table = tensors["language_model.model.embed_tokens.weight"]
    noise = torch.randn(table.shape, generator=torch.Generator().manual_seed(5)) / table.shape[1] ** 0.5
    tensors["language_model.lm_head.weight"] = noise.to(table.dtype)
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "data" / "text"
    for seed, (name, checkpoint) in enumerate(checkpoints().items(), 101):
        write_checkpoint(checkpoint, root / name, seed)
        if name == "mistral3_two_ends":
            add_second_end(root / name)
        print(f"{name:36} {sum(f.stat().st_size for f in (root / name).iterdir()) / 1000:6.0f} kB")


if __name__ == "__main__":
    main()
