"""The language models that text.py measures: real widths with random weights, and the questions they are asked."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import cases

sys.path.insert(0, str(cases.ROOT / "tests" / "goldens"))

SEED = 1
SHARD_BYTES = 4 << 30
FIRST_ID = 2000  # above every special token of the small tokenizers
QUESTIONS = ("Describe the image.", "Which is larger, the temple or the flower? Answer in one sentence.")

# name -> title, function of tests/goldens/family_configs.py, its arguments, the text model's, and the placeholder
MODELS = {
    "qwen2_vl": (
        "Qwen2-VL-7B", "qwen2_vl",
        dict(cases.QWEN, mlp_ratio=4, max_pixels=cases.MEGA1_0, top={}),
        dict(intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
             vocab_size=152064, max_position_embeddings=32768,
             rope_scaling={"mrope_section": [16, 24, 24], "type": "mrope"}),
        "<|vision_start|><|image_pad|><|vision_end|>",
    ),
    "mistral": (
        "Pixtral with Mistral-7B", "pixtral",
        dict(cases.PIXTRAL, text_width=4096, top={"tie_word_embeddings": False}),
        dict(intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
             head_dim=128, vocab_size=32768, max_position_embeddings=32768, rope_theta=1000000.0,
             tie_word_embeddings=False),
        "[IMG]",
    ),
    "gemma3_4b": (
        "Gemma 3 4B", "gemma3", dict(cases.GEMMA3),
        dict(intermediate_size=10240, num_hidden_layers=34, num_attention_heads=8, num_key_value_heads=4,
             head_dim=256, query_pre_attn_scalar=256, vocab_size=262208, sliding_window=1024,
             sliding_window_pattern=6, rope_scaling={"rope_type": "linear", "factor": 8.0}),
        "<start_of_image>",
    ),
}  # fmt: skip


def cut(text: dict, vision: dict, layers: int | None) -> tuple[dict, dict]:
    """Real widths, but so few layers, and a vocabulary that does not outweigh them."""
    if layers is None:
        return text, vision
    few = {"num_hidden_layers": layers, "vocab_size": min(text["vocab_size"], 32768)}
    if "sliding_window_pattern" in text:  # the last layer stays one without a window
        few["sliding_window_pattern"] = min(layers, text["sliding_window_pattern"])
    return {**text, **few}, {**vision, "layers": layers}


def settings(name: str, layers: int | None):
    """(config, processor files, tokenizer)."""
    import family_configs

    _, family, vision, text, _ = MODELS[name]
    text, vision = cut(text, vision, layers)
    return getattr(family_configs, family)(**vision, text=text)


def counts(name: str, layers: int | None) -> dict:
    """What the text model reads and multiplies, in numbers of weights."""
    _, _, vision, text, _ = MODELS[name]
    text, vision = cut(text, vision, layers)
    width, heads, kv = vision["text_width"], text["num_attention_heads"], text["num_key_value_heads"]
    head_dim = text.get("head_dim", width // heads)
    shapes = {  # input, output of one layer's products; gate and up are one
        "qkv": (width, (heads + 2 * kv) * head_dim),
        "out": (heads * head_dim, width),
        "gate and up": (width, 2 * text["intermediate_size"]),
        "down": (text["intermediate_size"], width),
    }
    layer = sum(a * b for a, b in shapes.values())
    head = width * text["vocab_size"]
    depth = text["num_hidden_layers"]
    pattern = text.get("sliding_window_pattern")  # a layer without a window ends each group of so many
    windows = [text["sliding_window"] if pattern and (i + 1) % pattern else None for i in range(depth)]
    return {
        "shapes": shapes, "layer": layer, "head": head, "layers": depth, "read": depth * layer + head,
        "attention": heads * head_dim, "windows": windows, "vocabulary": text["vocab_size"],
    }  # fmt: skip


def pairs(tokens: int, window: int | None) -> float:
    """Of queries and keys: half the square, since it is causal, without what lies outside of a window."""
    outside = max(0, tokens - window) if window else 0
    return (tokens * tokens - outside * outside) / 2


def prefill_flop(count: dict, tokens: int) -> float:
    """Products of all tokens, their scores and values, and one row of logits; of the last layer, only keys and values
    of all tokens."""
    width, out = count["shapes"]["qkv"]
    attention = sum(2 * 2 * count["attention"] * pairs(tokens, window) for window in count["windows"][:-1])
    products = (count["layers"] - 1) * 2 * tokens * count["layer"] + 2 * tokens * width * out
    return products + attention + 2 * count["head"]


def write(name: str, layers: int | None, directory: Path, device: str) -> None:
    """Weights in bfloat16, drawn where that is fast: the values depend on the device, both sides read the same file."""
    import torch
    import transformers
    from checkpoint_writer import model_class, rename, write_json
    from safetensors.torch import save_file

    config, files, tokenizer = settings(name, layers)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", config)
    for file, content in files.items():
        write_json(directory / file, content)
    tokenizer.save(directory)
    parsed = transformers.AutoConfig.from_pretrained(directory)
    with torch.device("meta"):
        model = model_class(parsed.model_type)(parsed)
    generator = torch.Generator(device).manual_seed(SEED)
    shard, size, index = {}, 0, {}

    def flush() -> None:
        nonlocal shard, size
        file = f"model-{len(set(index.values())) + 1:05d}.safetensors"
        save_file(shard, directory / file, metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, file))
        shard, size = {}, 0

    for parameter_name, parameter in model.named_parameters():
        tensor = draw(parameter_name, parameter.shape, generator, device, parsed)
        shard[rename(parameter_name, parsed.model_type, "hub")] = tensor
        size += tensor.nbytes
        if size > SHARD_BYTES:
            flush()
    flush()
    write_json(directory / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    (directory / "complete").touch()


def draw(name: str, shape, generator, device: str, config):
    """Activations stay near one, and so does the softmax' spread."""
    import torch

    kind = torch.float32 if device == "cpu" else torch.bfloat16  # what each draws fast
    noise = torch.randn(shape, generator=generator, device=device, dtype=kind)
    is_gemma = config.model_type == "gemma3"  # which scales embeddings by the root of their width, and norms by 1 + weight
    if len(shape) < 2:
        is_offset = is_gemma and "vision" not in name
        noise = noise * 0.1 + (1 if "norm" in name and name.endswith("weight") and not is_offset else 0)
    elif "embed_tokens" in name:
        noise = noise * (shape[1] ** -0.5 if is_gemma else 0.5)
    else:
        noise = noise / math.sqrt(math.prod(shape[1:]))
    return noise.to("cpu", torch.bfloat16)
