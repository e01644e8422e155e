"""Target sizes, grids and row counts of the released geometries, by transformers' own size functions.

    python tests/goldens/make_plan_tables.py [DIRECTORY]

Each folder of tests/data/plans has config.json and the processor's files as released (no weights, no tokenizer) and
table.safetensors, one line a picture:
  sizes    int32 [N, 2]  width, height of the picture
  resized  int32 [N, 2]  width, height after the resize
  grid     int32 [N, 3]  frames, rows, columns of patches before merging
  tokens   int32 [N]     rows of the embedding; -1 where transformers raises (resized and grid are 0 there)
  prompt   int32 [N]     ids in the prompt: rows and the special tokens of the picture; 0 for a plain tower, -1 as above
  min_pixels, max_pixels int64 [N]  overrides of one call, -1 where not given; Qwen only. Each acts alone in oriel, so
                         that the other one is the file's; transformers was asked with both.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from transformers import AutoImageProcessor
from transformers.image_utils import ChannelDimension
from transformers.models.pixtral.image_processing_pixtral import get_resize_output_image_size
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from checkpoint_writer import write_json
from family_configs import CLIP_MEAN, CLIP_STD, HALF, RESCALE

RAISES = (0, 0, 0, 0, 0, -1, -1)  # width, height, frames, rows, columns, tokens, prompt

PIXTRAL_TEXT = {
    "head_dim": 128,
    "hidden_size": 5120,
    "intermediate_size": 14336,
    "is_composition": True,
    "max_position_embeddings": 1024000,
    "model_type": "mistral",
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000000.0,
    "sliding_window": None,
    "vocab_size": 131072,
}
STEPS = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True}


def pixtral_12b() -> dict[str, dict]:
    vision = {
        "head_dim": 64, "hidden_act": "silu", "image_size": 1024, "is_composition": True, "model_type": "pixtral",
        "patch_size": 16, "rope_theta": 10000.0,
    }  # fmt: skip
    config = {
        "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_seq_length": 1,
        "image_token_index": 10, "model_type": "llava", "projector_hidden_act": "gelu", "text_config": PIXTRAL_TEXT,
        "torch_dtype": "bfloat16", "vision_config": vision, "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    }  # fmt: skip
    preprocessor = {
        **STEPS, "image_mean": CLIP_MEAN, "image_processor_type": "PixtralImageProcessor", "image_std": CLIP_STD,
        "patch_size": {"height": 16, "width": 16}, "processor_class": "PixtralProcessor", "resample": 3,
        "rescale_factor": RESCALE, "size": {"longest_edge": 1024},
    }  # fmt: skip
    return {"config.json": config, "preprocessor_config.json": preprocessor, "processor_config.json": _pixtral_tokens(16)}


def mistral_small_3_1() -> dict[str, dict]:
    vision = {
        "attention_dropout": 0.0, "head_dim": 64, "hidden_act": "silu", "hidden_size": 1024, "image_size": 1540,
        "initializer_range": 0.02, "intermediate_size": 4096, "model_type": "pixtral", "num_attention_heads": 16,
        "num_channels": 3, "num_hidden_layers": 24, "patch_size": 14, "rope_theta": 10000.0,
    }  # fmt: skip
    config = {
        "architectures": ["Mistral3ForConditionalGeneration"], "image_token_index": 10, "model_type": "mistral3",
        "multimodal_projector_bias": False, "projector_hidden_act": "gelu", "spatial_merge_size": 2,
        "text_config": {**PIXTRAL_TEXT, "intermediate_size": 32768}, "torch_dtype": "bfloat16",
        "vision_config": vision, "vision_feature_layer": -1,
    }  # fmt: skip
    preprocessor = {
        **STEPS, "image_mean": CLIP_MEAN, "image_processor_type": "PixtralImageProcessor", "image_std": CLIP_STD,
        "patch_size": 14, "processor_class": "PixtralProcessor", "resample": 3, "rescale_factor": RESCALE,
        "size": {"longest_edge": 1540},
    }  # fmt: skip
    processor = {**_pixtral_tokens(14), "spatial_merge_size": 2}
    return {"config.json": config, "preprocessor_config.json": preprocessor, "processor_config.json": processor}


def _pixtral_tokens(patch: int) -> dict:
    return {
        "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]", "image_token": "[IMG]",
        "patch_size": patch, "processor_class": "PixtralProcessor",
    }  # fmt: skip


QWEN_7B_TEXT = {
    "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu",
    "hidden_size": 3584, "image_token_id": 151655, "initializer_range": 0.02, "intermediate_size": 18944,
    "max_position_embeddings": 32768, "max_window_layers": 28, "num_attention_heads": 28, "num_hidden_layers": 28,
    "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
    "rope_scaling": {"mrope_section": [16, 24, 24], "type": "mrope"}, "rope_theta": 1000000.0,
    "sliding_window": 32768, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
    "use_sliding_window": False, "video_token_id": 151656, "vision_end_token_id": 151653,
    "vision_start_token_id": 151652, "vision_token_id": 151654, "vocab_size": 152064,
}  # fmt: skip


def _qwen_preprocessor(**limits) -> dict:
    return {
        **limits, "image_mean": CLIP_MEAN, "image_processor_type": "Qwen2VLImageProcessor", "image_std": CLIP_STD,
        "merge_size": 2, "patch_size": 14, "processor_class": "Qwen2VLProcessor", "temporal_patch_size": 2,
    }  # fmt: skip


def qwen2_vl_7b() -> dict[str, dict]:
    vision = {
        "depth": 32, "embed_dim": 1280, "hidden_size": 3584, "in_channels": 3, "in_chans": 3, "mlp_ratio": 4,
        "model_type": "qwen2_vl", "num_heads": 16, "patch_size": 14, "spatial_merge_size": 2,
        "spatial_patch_size": 14, "temporal_patch_size": 2,
    }  # fmt: skip
    architecture = {"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl"}
    config = {**architecture, **QWEN_7B_TEXT, "vision_config": vision}
    preprocessor = _qwen_preprocessor(min_pixels=3136, max_pixels=12845056)
    return {"config.json": config, "preprocessor_config.json": preprocessor}


def qwen2_vl_7b_without_limits() -> dict[str, dict]:
    return {**qwen2_vl_7b(), "preprocessor_config.json": _qwen_preprocessor()}


def qwen2_5_vl_7b() -> dict[str, dict]:
    vision = {
        "depth": 32, "fullatt_block_indexes": [7, 15, 23, 31], "hidden_act": "silu", "hidden_size": 1280,
        "in_chans": 3, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584, "patch_size": 14,
        "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2, "tokens_per_second": 2,
        "window_size": 112,
    }  # fmt: skip
    architecture = {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl"}
    config = {**architecture, **QWEN_7B_TEXT, "vision_config": vision}
    return {"config.json": config, "preprocessor_config.json": _qwen_preprocessor(min_pixels=3136, max_pixels=12845056)}


def qwen2_5_vl_7b_with_narrow_limits() -> dict[str, dict]:
    """What users write into the file: 256 to 1280 rows."""
    limits = {"size": {"shortest_edge": 256 * 28 * 28, "longest_edge": 1280 * 28 * 28}}
    return {**qwen2_5_vl_7b(), "preprocessor_config.json": _qwen_preprocessor(**limits)}


def gemma3_4b() -> dict[str, dict]:
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999, "eoi_token_index": 256000,
        "eos_token_id": [1, 106], "image_token_index": 262144, "initializer_range": 0.02, "mm_tokens_per_image": 256,
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
        },
        "torch_dtype": "bfloat16",
        "vision_config": {
            "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type": "siglip_vision_model",
            "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": False,
        },
    }  # fmt: skip
    preprocessor = {
        **STEPS, "do_convert_rgb": None, "do_pan_and_scan": None, "image_mean": HALF,
        "image_processor_type": "Gemma3ImageProcessor", "image_seq_length": 256, "image_std": HALF,
        "pan_and_scan_max_num_crops": None, "pan_and_scan_min_crop_size": None,
        "pan_and_scan_min_ratio_to_activate": None, "processor_class": "Gemma3Processor", "resample": 2,
        "rescale_factor": RESCALE, "size": {"height": 896, "width": 896},
    }  # fmt: skip
    processor = {"image_seq_length": 256, "processor_class": "Gemma3Processor"}
    return {"config.json": config, "preprocessor_config.json": preprocessor, "processor_config.json": processor}


def siglip_so400m_384() -> dict[str, dict]:
    shape = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 27}
    config = {
        "architectures": ["SiglipModel"], "initializer_factor": 1.0, "model_type": "siglip",
        "text_config": {**shape, "model_type": "siglip_text_model"}, "torch_dtype": "float32",
        "vision_config": {**shape, "image_size": 384, "model_type": "siglip_vision_model", "patch_size": 14},
    }  # fmt: skip
    preprocessor = {
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": HALF,
        "image_processor_type": "SiglipImageProcessor", "image_std": HALF, "processor_class": "SiglipProcessor",
        "resample": 3, "rescale_factor": RESCALE, "size": {"height": 384, "width": 384},
    }  # fmt: skip
    return {"config.json": config, "preprocessor_config.json": preprocessor}


# --- what transformers says about one picture ---


@dataclass
class Planner:
    files: dict[str, dict]
    processor: object  # transformers' image processor of these files

    def plan(self, width: int, height: int, min_pixels: int = -1, max_pixels: int = -1) -> tuple[int, ...]:
        config = self.files["config.json"]
        if config["model_type"] in ("llava", "mistral3"):
            return self._pixtral(width, height)
        if config["model_type"].startswith("qwen"):
            return self._qwen(width, height, min_pixels, max_pixels)
        return self._fixed()

    def _pixtral(self, width: int, height: int) -> tuple[int, ...]:
        tokens = self.files["processor_config.json"]
        patch, merge = tokens["patch_size"], tokens.get("spatial_merge_size", 1)
        picture = np.broadcast_to(np.uint8(0), (height, width, 3))  # a size without memory
        edge = self.processor.size["longest_edge"]
        h, w = get_resize_output_image_size(picture, edge, patch * merge, ChannelDimension.LAST)
        if h <= 0 or w <= 0:
            return RAISES  # the resize that follows refuses an empty target
        rows, columns = h // (patch * merge), w // (patch * merge)
        return w, h, 1, h // patch, w // patch, rows * columns, rows * (columns + 1)

    def _qwen(self, width: int, height: int, min_pixels: int, max_pixels: int) -> tuple[int, ...]:
        size = self.processor.size
        low = size["shortest_edge"] if min_pixels < 0 else min_pixels
        high = size["longest_edge"] if max_pixels < 0 else max_pixels
        patch, merge = self.processor.patch_size, self.processor.merge_size
        try:
            h, w = smart_resize(height, width, patch * merge, low, high)
        except ValueError:
            return RAISES
        rows, columns = h // patch, w // patch
        tokens = rows * columns // merge**2
        return w, h, 1, rows, columns, tokens, tokens + 2

    def _fixed(self) -> tuple[int, ...]:
        config = self.files["config.json"]
        size, patch = self.processor.size, config["vision_config"]["patch_size"]
        rows, columns = size["height"] // patch, size["width"] // patch
        if config["model_type"] == "gemma3":
            tokens = config["mm_tokens_per_image"]
            return size["width"], size["height"], 1, rows, columns, tokens, tokens + 2
        return size["width"], size["height"], 1, rows, columns, rows * columns, 0


# --- which pictures ---


def _random_sides(draw: np.random.Generator, count: int, largest: int) -> list[tuple[int, int]]:
    sides = np.exp(draw.uniform(0, math.log(largest), (count, 2))).astype(int)
    return [(max(1, int(w)), max(1, int(h))) for w, h in sides]


def _aspects(draw: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Around the aspect of 200 that Qwen allows, and up to the one that leaves Pixtral a side of nothing."""
    out = []
    for _ in range(count):
        short = int(draw.integers(1, 60))
        long = max(1, int(short * draw.choice([199, 200, 201, draw.uniform(2, 260)])) + int(draw.integers(-1, 2)))
        out.append((long, short) if draw.random() < 0.5 else (short, long))
    return out + [(200, 1), (201, 1), (1, 200), (1, 201), (4100, 20), (20, 4100), (2049, 1), (2048, 1), (1, 3081)]


def _half_steps(draw: np.random.Generator, count: int, factor: int) -> list[tuple[int, int]]:
    """Multiples of half the factor, where rounding half to even differs from half up."""
    steps = draw.integers(1, 120, (count, 2)) * (factor // 2)
    return [(int(w), int(h)) for w, h in steps]


def _pixel_limit(draw: np.random.Generator, count: int, pixels: int, factor: int) -> list[tuple[int, int]]:
    """Sizes whose area is close to a limit."""
    out = []
    for _ in range(count):
        width = max(1, int(math.sqrt(pixels) * math.exp(draw.uniform(-1.5, 1.5))))
        height = max(1, int(pixels / width * draw.uniform(0.97, 1.03)))
        if draw.random() < 0.5:  # on the lattice itself
            width, height = max(1, round(width / factor)) * factor, max(1, round(height / factor)) * factor
        out.append((width, height))
    return out


def _longest_edge(draw: np.random.Generator, count: int, edge: int) -> list[tuple[int, int]]:
    """Sides around longest_edge, and sizes where height / ratio, a whole number but for rounding, floors one lower."""
    out = []
    for _ in range(count):
        long = edge + int(draw.integers(-3, 4))
        short = int(draw.integers(1, edge + 3))
        out.append((long, short) if draw.random() < 0.5 else (short, long))
    pitfalls = []
    for long in range(edge + 1, 4 * edge):
        for short in range(1 + long % 7, long, 7):
            if (short * edge) % long == 0 and math.floor(short / (long / edge)) != short * edge // long:
                pitfalls.append((long, short) if (long + short) % 2 else (short, long))
    chosen = draw.permutation(len(pitfalls))[:400]
    return out + [pitfalls[i] for i in chosen] + [(2044, 1971), (2520, 414), (3388, 495)]


def pictures(planner: Planner, draw: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """(width, height, min_pixels, max_pixels) of every line of the table."""
    model_type = planner.files["config.json"]["model_type"]
    plain = _random_sides(draw, 700, 8000) + _aspects(draw, 200)
    plain += [(w, h) for w in (1, 2, 3, 5, 7, 8, 13, 14, 15, 16, 28, 41, 42, 43) for h in (1, 3, 7, 14, 21, 29)]
    if model_type in ("llava", "mistral3"):
        plain += _longest_edge(draw, 300, planner.processor.size["longest_edge"])
        plain += _half_steps(draw, 200, 28 if model_type == "mistral3" else 16)
        return [(w, h, -1, -1) for w, h in plain]
    if not model_type.startswith("qwen"):
        return [(w, h, -1, -1) for w, h in plain[:120] + _aspects(draw, 20)]
    low, high = planner.processor.size["shortest_edge"], planner.processor.size["longest_edge"]
    plain += _half_steps(draw, 500, 28) + _pixel_limit(draw, 200, low, 28) + _pixel_limit(draw, 300, high, 28)
    rows = [(w, h, -1, -1) for w, h in plain]
    for w, h in _random_sides(draw, 500, 5000):
        budget = int(math.exp(draw.uniform(math.log(low), math.log(high))))
        other = int(math.exp(draw.uniform(math.log(budget), math.log(high) + 0.1)))
        rows.append((w, h, *[(budget, -1), (-1, budget), (budget, other)][len(rows) % 3]))
    return rows


def make_table(files: dict[str, dict], directory: Path, seed: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_json(directory / name, content)
    planner = Planner(files, AutoImageProcessor.from_pretrained(directory))
    asked = pictures(planner, np.random.default_rng(seed))
    answers = np.array([planner.plan(*row) for row in asked], dtype=np.int32)
    asked = np.array(asked, dtype=np.int64)
    columns = {
        "sizes": asked[:, :2].astype(np.int32),
        "resized": answers[:, :2],
        "grid": answers[:, 2:5],
        "tokens": answers[:, 5],
        "prompt": answers[:, 6],
    }
    if (asked[:, 2:] >= 0).any():
        columns |= {"min_pixels": asked[:, 2], "max_pixels": asked[:, 3]}
    path = directory / "table.safetensors"
    save_file({name: np.ascontiguousarray(column) for name, column in columns.items()}, path)
    path.chmod(0o644)
    refused = int((answers[:, 5] < 0).sum())
    print(f"{directory.name:36} {len(asked):5} pictures, {refused:3} refused, {path.stat().st_size / 1000:5.0f} kB")


CASES = (
    pixtral_12b,
    mistral_small_3_1,
    qwen2_vl_7b_without_limits,  # first of its class: transformers' defaults can be changed by a file read before
    qwen2_vl_7b,
    qwen2_5_vl_7b,
    qwen2_5_vl_7b_with_narrow_limits,
    gemma3_4b,
    siglip_so400m_384,
)


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "data" / "plans"
    for seed, case in enumerate(CASES, 11):
        make_table(case(), root / case.__name__, seed)


if __name__ == "__main__":
    main()
