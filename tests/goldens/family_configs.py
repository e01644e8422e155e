"""config.json and processor files of small models, by family: only the keys that are given, so that defaults can act.

Keyword `vision` and `top` overrides are merged last; a value of ABSENT takes the key out again.
"""

from __future__ import annotations

from tiny_tokenizers import TinyTokenizer, gemma_tokenizer, pixtral_tokenizer, qwen_tokenizer

ABSENT = object()

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]
RESCALE = 0.00392156862745098


def merged(*parts: dict | None) -> dict:
    out = {}
    for part in parts:
        out.update(part or {})
    return {key: value for key, value in out.items() if value is not ABSENT}


def processor_files(image_processor: dict, processor: dict, form: str) -> dict[str, dict]:
    """form "old": preprocessor_config.json, and processor_config.json where the family has one; "v5": one file."""
    if form == "v5":
        return {"processor_config.json": {"image_processor": image_processor, **processor}}
    files = {"preprocessor_config.json": {**image_processor, "processor_class": processor["processor_class"]}}
    if len(processor) > 1:
        files["processor_config.json"] = processor
    return files


def _image_processor(kind: str, mean: list, std: list, resample: int, **rest) -> dict:
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": mean,
        "image_processor_type": kind,
        "image_std": std,
        "resample": resample,
        "rescale_factor": RESCALE,
        **rest,
    }


# --- Pixtral and Mistral 3 ---


def _mistral_text(tokenizer: TinyTokenizer, width: int, overrides: dict | None) -> dict:
    text = {
        "model_type": "mistral",
        "hidden_size": width,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "rms_norm_eps": 1e-05,
        "sliding_window": None,
        "vocab_size": tokenizer.vocab_size,
    }
    return merged(text, overrides)


def _pixtral_vision(width: int, heads: int, layers: int, mlp: int, patch: int, overrides: dict | None) -> dict:
    vision = {
        "model_type": "pixtral",
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "patch_size": patch,
        "image_size": 64 * patch,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
    }
    return merged(vision, overrides)


def _pixtral_files(patch: int, merge: int, longest_edge: int, form: str, resample: int) -> dict[str, dict]:
    image_processor = _image_processor(
        "PixtralImageProcessor", CLIP_MEAN, CLIP_STD, resample,
        do_convert_rgb=True, patch_size={"height": patch, "width": patch}, size={"longest_edge": longest_edge},
    )  # fmt: skip
    processor = {
        "image_break_token": "[IMG_BREAK]",
        "image_end_token": "[IMG_END]",
        "image_token": "[IMG]",
        "patch_size": patch,
        "processor_class": "PixtralProcessor",
    }
    if merge != 1:
        processor["spatial_merge_size"] = merge
    return processor_files(image_processor, processor, form)


def pixtral(*, width, heads, layers, mlp, patch, text_width, longest_edge,
            vision=None, text=None, top=None, form="old", resample=3):  # fmt: skip
    tokenizer = pixtral_tokenizer()
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": tokenizer.ids["[IMG]"],
        "image_seq_length": 1,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "text_config": _mistral_text(tokenizer, text_width, text),
        "vision_config": _pixtral_vision(width, heads, layers, mlp, patch, vision),
    }
    return merged(config, top), _pixtral_files(patch, 1, longest_edge, form, resample), tokenizer


def mistral3(*, width, heads, layers, mlp, patch, text_width, longest_edge, merge=2,
             vision=None, text=None, top=None, form="v5", resample=3):  # fmt: skip
    tokenizer = pixtral_tokenizer()
    config = {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "model_type": "mistral3",
        "image_token_index": tokenizer.ids["[IMG]"],
        "multimodal_projector_bias": False,
        "projector_hidden_act": "gelu",
        "spatial_merge_size": merge,
        "vision_feature_layer": -1,
        "text_config": _mistral_text(tokenizer, text_width, text),
        "vision_config": _pixtral_vision(width, heads, layers, mlp, patch, vision),
    }
    return merged(config, top), _pixtral_files(patch, merge, longest_edge, form, resample), tokenizer


# --- Qwen ---


def _qwen_text(tokenizer: TinyTokenizer, width: int, overrides: dict | None) -> dict:
    text = {
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": 16,
        "max_position_embeddings": 4096,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_section": [width // 2 - 2, 1, 1], "type": "mrope"},
        "rope_theta": 1000000.0,
        "vocab_size": tokenizer.vocab_size,
    }
    return merged(text, overrides)


def _qwen_files(kind: str, patch: int, merge: int, min_pixels: int, max_pixels: int, form: str, resample: int):
    if form == "v5":
        size = {"size": {"shortest_edge": min_pixels, "longest_edge": max_pixels}}
    else:
        size = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    image_processor = _image_processor(
        "Qwen2VLImageProcessor", CLIP_MEAN, CLIP_STD, resample,
        merge_size=merge, patch_size=patch, temporal_patch_size=2, **size,
    )  # fmt: skip
    processor = {"processor_class": kind}
    if form == "v5":
        video = {**image_processor, "video_processor_type": "Qwen2VLVideoProcessor"}
        del video["image_processor_type"]
        processor["video_processor"] = video
    return processor_files(image_processor, processor, form)


def _qwen(kind: str, model_type: str, vision: dict, text_width: int, patch: int, merge: int, min_pixels: int,
          max_pixels: int, top: dict | None, form: str, nested: bool, resample: int,
          text: dict | None):  # fmt: skip
    tokenizer = qwen_tokenizer(f"{kind}Processor")
    ids = tokenizer.ids
    text = _qwen_text(tokenizer, text_width, text)
    config = {
        "architectures": [f"{kind}ForConditionalGeneration"],
        "model_type": model_type,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        **({"text_config": {**text, "model_type": f"{model_type}_text"}} if nested else text),
        "vision_config": vision,
    }
    if nested:
        ends = {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]}
        config["text_config"].update(ends)
    files = _qwen_files(f"{kind}Processor", patch, merge, min_pixels, max_pixels, form, resample)
    return merged(config, top), files, tokenizer


def qwen2_vl(*, width, heads, layers, patch, text_width, min_pixels, max_pixels, merge=2, mlp_ratio=2,
             vision=None, top=None, form="old", nested=False, resample=3, text=None):  # fmt: skip
    vision = merged(
        {
            "depth": layers,
            "embed_dim": width,
            "hidden_size": text_width,
            "mlp_ratio": mlp_ratio,
            "num_heads": heads,
            "patch_size": patch,
            "spatial_merge_size": merge,
            "temporal_patch_size": 2,
        },
        vision,
    )
    return _qwen("Qwen2VL", "qwen2_vl", vision, text_width, patch, merge, min_pixels, max_pixels, top, form, nested,
                 resample, text)  # fmt: skip


def qwen2_5_vl(*, width, heads, layers, mlp, patch, text_width, window, full_layers, min_pixels, max_pixels, merge=2,
               vision=None, top=None, form="old", nested=False, resample=3, text=None):  # fmt: skip
    vision = merged(
        {
            "depth": layers,
            "fullatt_block_indexes": full_layers,
            "hidden_act": "silu",
            "hidden_size": width,
            "intermediate_size": mlp,
            "num_heads": heads,
            "out_hidden_size": text_width,
            "patch_size": patch,
            "spatial_merge_size": merge,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": window,
        },
        vision,
    )
    return _qwen("Qwen2_5_VL", "qwen2_5_vl", vision, text_width, patch, merge, min_pixels, max_pixels, top, form,
                 nested, resample, text)  # fmt: skip


# --- SigLIP and Gemma 3 ---


def _siglip_vision(width: int, heads: int, layers: int, mlp: int, patch: int, image: int, overrides: dict | None):
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": width,
        "image_size": image,
        "intermediate_size": mlp,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "patch_size": patch,
    }
    return merged(vision, overrides)


def gemma3(*, width, heads, layers, mlp, patch, image, tokens, text_width,
           vision=None, top=None, form="old", resample=2, text=None):  # fmt: skip
    tokenizer = gemma_tokenizer()
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "boi_token_index": tokenizer.ids["<start_of_image>"],
        "eoi_token_index": tokenizer.ids["<end_of_image>"],
        "image_token_index": tokenizer.ids["<image_soft_token>"],
        "mm_tokens_per_image": tokens,
        "text_config": merged(
            {
                "model_type": "gemma3_text",
                "head_dim": 8,
                "hidden_size": text_width,
                "intermediate_size": 16,
                "num_attention_heads": 2,
                "num_hidden_layers": 1,
                "num_key_value_heads": 1,
                "query_pre_attn_scalar": 8,
                "sliding_window": 64,
                "vocab_size": tokenizer.vocab_size,
            },
            text,
        ),
        "vision_config": _siglip_vision(
            width, heads, layers, mlp, patch, image, merged({"vision_use_head": False}, vision)
        ),
    }
    image_processor = _image_processor(
        "Gemma3ImageProcessor", HALF, HALF, resample,
        do_convert_rgb=None, do_pan_and_scan=None, image_seq_length=tokens, size={"height": image, "width": image},
    )  # fmt: skip
    processor = {"image_seq_length": tokens, "processor_class": "Gemma3Processor"}
    return merged(config, top), processor_files(image_processor, processor, form), tokenizer


def _siglip_files(image: int, resample: int, form: str) -> dict[str, dict]:
    image_processor = _image_processor(
        "SiglipImageProcessor", HALF, HALF, resample, size={"height": image, "width": image}
    )
    return processor_files(image_processor, {"processor_class": "SiglipProcessor"}, form)


def siglip(*, width, heads, layers, mlp, patch, image, vision=None, top=None, form="old", resample=3):
    config = {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "text_config": {
            "model_type": "siglip_text_model",
            "bos_token_id": 30,
            "eos_token_id": 31,
            "hidden_size": width,
            "intermediate_size": 16,
            "max_position_embeddings": 8,
            "num_attention_heads": heads,
            "num_hidden_layers": 1,
            "vocab_size": 32,
        },
        "vision_config": _siglip_vision(width, heads, layers, mlp, patch, image, vision),
    }
    return merged(config, top), _siglip_files(image, resample, form), None


def siglip_vision(*, width, heads, layers, mlp, patch, image, vision=None, form="old", resample=3):
    config = _siglip_vision(width, heads, layers, mlp, patch, image, vision)
    return {"architectures": ["SiglipVisionModel"], **config}, _siglip_files(image, resample, form), None
