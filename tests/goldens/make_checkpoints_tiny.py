"""The tiny checkpoints of assets/tiny: one a family, shaped like the released model in everything but size.

    python tests/goldens/make_checkpoints_tiny.py [DIRECTORY]

Names, keys, file forms and special tokens are those of the released files; widths, depths and vocabularies are small,
and the weights are random, so that the answers mean nothing. The same call gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from checkpoint_writer import Checkpoint, write_checkpoint, write_json
from tiny_chat_templates import chat_files
from tiny_tokenizers import gemma_tokenizer, pixtral_tokenizer, qwen_tokenizer

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]
RESCALE = 0.00392156862745098
BFLOAT16 = torch.bfloat16

PIXTRAL_TEXT = {
    "model_type": "mistral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 16384,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000000.0,
    "sliding_window": None,
}


def pixtral() -> Checkpoint:
    tokenizer = pixtral_tokenizer()
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "ignore_index": -100,
        "image_seq_length": 1,
        "image_token_index": tokenizer.ids["[IMG]"],
        "model_type": "llava",
        "projector_hidden_act": "gelu",
        "text_config": {**PIXTRAL_TEXT, "vocab_size": tokenizer.vocab_size},
        "torch_dtype": "bfloat16",
        "vision_config": {
            "head_dim": 12,
            "hidden_act": "silu",
            "hidden_size": 36,
            "image_size": 1024,
            "intermediate_size": 80,
            "is_composition": True,
            "model_type": "pixtral",
            "num_attention_heads": 3,
            "num_hidden_layers": 3,
            "patch_size": 16,
            "rope_theta": 10000.0,
        },
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    }
    preprocessor = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": CLIP_MEAN,
        "image_processor_type": "PixtralImageProcessor",
        "image_std": CLIP_STD,
        "patch_size": {"height": 16, "width": 16},
        "processor_class": "PixtralProcessor",
        "resample": 3,
        "rescale_factor": RESCALE,
        "size": {"longest_edge": 1024},
    }
    processor = {
        "image_break_token": "[IMG_BREAK]",
        "image_end_token": "[IMG_END]",
        "image_token": "[IMG]",
        "patch_size": 16,
        "processor_class": "PixtralProcessor",
    }
    files = {"preprocessor_config.json": preprocessor, "processor_config.json": processor}
    return Checkpoint(config, files, tokenizer, dtype=BFLOAT16)


def mistral3() -> Checkpoint:
    tokenizer = pixtral_tokenizer()
    config = {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "image_token_index": tokenizer.ids["[IMG]"],
        "model_type": "mistral3",
        "multimodal_projector_bias": False,
        "projector_hidden_act": "gelu",
        "spatial_merge_size": 2,
        "text_config": {**PIXTRAL_TEXT, "vocab_size": tokenizer.vocab_size, "hidden_size": 40},
        "torch_dtype": "bfloat16",
        "vision_config": {
            "attention_dropout": 0.0,
            "head_dim": 20,
            "hidden_act": "silu",
            "hidden_size": 40,
            "image_size": 1540,
            "initializer_range": 0.02,
            "intermediate_size": 72,
            "model_type": "pixtral",
            "num_attention_heads": 2,
            "num_channels": 3,
            "num_hidden_layers": 3,
            "patch_size": 14,
            "rope_theta": 10000.0,
        },
        "vision_feature_layer": -1,
    }
    processor = {
        "image_break_token": "[IMG_BREAK]",
        "image_end_token": "[IMG_END]",
        "image_processor": {
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": CLIP_MEAN,
            "image_processor_type": "PixtralImageProcessor",
            "image_std": CLIP_STD,
            "patch_size": 14,
            "resample": 3,
            "rescale_factor": RESCALE,
            "size": {"longest_edge": 1540},
        },
        "image_token": "[IMG]",
        "patch_size": 14,
        "processor_class": "PixtralProcessor",
        "spatial_merge_size": 2,
    }
    return Checkpoint(config, {"processor_config.json": processor}, tokenizer, layout="resaved", dtype=BFLOAT16)


def _qwen_preprocessor() -> dict:
    return {
        "image_mean": CLIP_MEAN,
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": CLIP_STD,
        "max_pixels": 12845056,
        "merge_size": 2,
        "min_pixels": 3136,
        "patch_size": 14,
        "temporal_patch_size": 2,
    }


def _qwen_ids(ids: dict[str, int]) -> dict[str, int]:
    return {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_token_id": ids["<|vision_pad|>"],
    }


# Released Qwen files keep the text model's keys at the top level.
QWEN_TEXT = {
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 40,
    "max_position_embeddings": 32768,
    "max_window_layers": 2,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"mrope_section": [2, 3, 3], "type": "mrope"},
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}


def qwen2_vl() -> Checkpoint:
    tokenizer = qwen_tokenizer("Qwen2VLProcessor")
    config = {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        **_qwen_ids(tokenizer.ids),
        **QWEN_TEXT,
        "model_type": "qwen2_vl",
        "torch_dtype": "bfloat16",
        "vision_config": {
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "in_chans": 3,
            "mlp_ratio": 2,
            "num_heads": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
        },
        "vocab_size": tokenizer.vocab_size,
    }
    preprocessor = {**_qwen_preprocessor(), "processor_class": "Qwen2VLProcessor"}
    return Checkpoint(config, {"preprocessor_config.json": preprocessor}, tokenizer, dtype=BFLOAT16)


def qwen2_5_vl() -> Checkpoint:
    tokenizer = qwen_tokenizer("Qwen2_5_VLProcessor")
    config = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        **_qwen_ids(tokenizer.ids),
        **QWEN_TEXT,
        "hidden_size": 48,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "model_type": "qwen2_5_vl",
        "torch_dtype": "bfloat16",
        "vision_config": {
            "depth": 3,
            "fullatt_block_indexes": [1],
            "hidden_act": "silu",
            "hidden_size": 32,
            "in_chans": 3,
            "intermediate_size": 44,
            "num_heads": 2,
            "out_hidden_size": 48,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
        },
        "vocab_size": tokenizer.vocab_size,
    }
    preprocessor = {**_qwen_preprocessor(), "processor_class": "Qwen2_5_VLProcessor"}
    return Checkpoint(config, {"preprocessor_config.json": preprocessor}, tokenizer, dtype=BFLOAT16)


def gemma3() -> Checkpoint:
    tokenizer = gemma_tokenizer()
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": tokenizer.ids["<start_of_image>"],
        "eoi_token_index": tokenizer.ids["<end_of_image>"],
        "eos_token_id": [tokenizer.ids["<eos>"], tokenizer.ids["<end_of_turn>"]],
        "image_token_index": tokenizer.ids["<image_soft_token>"],
        "initializer_range": 0.02,
        "mm_tokens_per_image": 16,
        "model_type": "gemma3",
        "text_config": {
            "head_dim": 16,
            "hidden_size": 40,
            "intermediate_size": 56,
            "model_type": "gemma3_text",
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "num_key_value_heads": 1,
            "query_pre_attn_scalar": 16,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 64,
            "sliding_window_pattern": 2,
            "vocab_size": tokenizer.vocab_size + 7,  # released tables are padded too
        },
        "torch_dtype": "bfloat16",
        "vision_config": {
            "hidden_size": 40,
            "image_size": 112,
            "intermediate_size": 76,
            "model_type": "siglip_vision_model",
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "patch_size": 14,
            "vision_use_head": False,
        },
    }
    preprocessor = {
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_pan_and_scan": None,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": HALF,
        "image_processor_type": "Gemma3ImageProcessor",
        "image_seq_length": 16,
        "image_std": HALF,
        "pan_and_scan_max_num_crops": None,
        "pan_and_scan_min_crop_size": None,
        "pan_and_scan_min_ratio_to_activate": None,
        "processor_class": "Gemma3Processor",
        "resample": 2,
        "rescale_factor": RESCALE,
        "size": {"height": 112, "width": 112},
    }
    processor = {"image_seq_length": 16, "processor_class": "Gemma3Processor"}
    files = {"preprocessor_config.json": preprocessor, "processor_config.json": processor}
    return Checkpoint(config, files, tokenizer, dtype=BFLOAT16)


def siglip() -> Checkpoint:
    config = {
        "architectures": ["SiglipModel"],
        "initializer_factor": 1.0,
        "model_type": "siglip",
        "text_config": {
            "bos_token_id": 62,
            "eos_token_id": 63,
            "hidden_size": 30,
            "intermediate_size": 40,
            "max_position_embeddings": 16,
            "model_type": "siglip_text_model",
            "num_attention_heads": 3,
            "num_hidden_layers": 1,
            "vocab_size": 64,
        },
        "torch_dtype": "float32",
        "vision_config": {
            "hidden_size": 30,
            "image_size": 120,
            "intermediate_size": 62,
            "model_type": "siglip_vision_model",
            "num_attention_heads": 3,
            "num_hidden_layers": 2,
            "patch_size": 14,
        },
    }
    preprocessor = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": HALF,
        "image_processor_type": "SiglipImageProcessor",
        "image_std": HALF,
        "processor_class": "SiglipProcessor",
        "resample": 3,
        "rescale_factor": RESCALE,
        "size": {"height": 120, "width": 120},
    }
    return Checkpoint(config, {"preprocessor_config.json": preprocessor}, None)


FAMILIES = {f.__name__: f for f in (pixtral, mistral3, qwen2_vl, qwen2_5_vl, gemma3, siglip)}


def write_chat_files(family: str, checkpoint: Checkpoint, directory: Path) -> None:
    if checkpoint.tokenizer is None:
        return
    for name, content in chat_files(family, checkpoint.tokenizer.ids).items():
        if isinstance(content, str):
            (directory / name).write_text(content)
        else:
            write_json(directory / name, content)


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "assets" / "tiny"
    for seed, (name, make) in enumerate(FAMILIES.items(), 1):
        checkpoint = make()
        write_checkpoint(checkpoint, root / name, seed)
        write_chat_files(name, checkpoint, root / name)
        size = sum(file.stat().st_size for file in (root / name).iterdir())
        print(f"{name:12} {size / 1000:6.0f} kB")


if __name__ == "__main__":
    main()
