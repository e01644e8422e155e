"""Writes a checkpoint with random weights in the file format of the released models.

config.json and the processor's file are given as they are to stand in the folder; the model is built by transformers
from that very config.json, so that keys left out act through transformers' defaults.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

from tiny_tokenizers import TinyTokenizer

MODEL_CLASSES = {
    "llava": "LlavaForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "gemma3": "Gemma3ForConditionalGeneration",
    "siglip": "SiglipModel",
    "siglip_vision_model": "SiglipVisionModel",
}

# The name layouts of weights.md: "hub" as first released, "resaved" as written by transformers 4.52 and later,
# "canonical" as version 5 names its modules, "fresh" as version 5 saves a model that it built from a config.
LAYOUTS = ("hub", "resaved", "canonical", "fresh")


@dataclass(frozen=True)
class Checkpoint:
    config: dict  # config.json
    processor_files: dict[str, dict]  # file name -> content
    tokenizer: TinyTokenizer | None
    layout: str = "hub"
    dtype: torch.dtype = torch.float32
    shards: int = 1


def model_class(model_type: str):
    return getattr(transformers, MODEL_CLASSES[model_type])


def build_model(config_directory: Path, seed: int):
    """The model of config.json with every parameter drawn anew."""
    config = transformers.AutoConfig.from_pretrained(config_directory)
    model = model_class(config.model_type)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_draw(name, parameter, config.model_type, seed))
    model.tie_weights()
    return model


def _draw(name: str, parameter: torch.Tensor, model_type: str, seed: int) -> torch.Tensor:
    """Values that keep activations near one and make every bias, norm and position count.

    Drawn by name, so that a tensor does not depend on the others of the model.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + zlib.crc32(name.encode())) % 2**63)
    noise = torch.randn(parameter.shape, generator=generator)
    is_norm = "norm" in name or "ln_" in name
    if is_norm and name.endswith("weight"):
        gemma_norm = model_type == "gemma3" and ("language_model" in name or "mm_soft_emb_norm" in name)
        return 0.1 * noise + (0.0 if gemma_norm else 1.0)
    if parameter.ndim < 2:
        return 0.1 * noise
    if "position_embedding" in name or "embed_tokens" in name or "token_embedding" in name:
        return 0.5 * noise
    fan_in = parameter.shape[0] if name.endswith("mm_input_projection_weight") else math.prod(parameter.shape[1:])
    # Attention logits with a spread above one: a softmax that is nearly flat would hide a wrong mask.
    gain = 1.4 if any(part in name for part in ("q_proj", "k_proj", "qkv")) else 1.0
    return gain / math.sqrt(fan_in) * noise


def rename(name: str, model_type: str, layout: str) -> str:
    """The name under which `layout` stores the parameter that transformers 5 calls `name`."""
    if model_type == "siglip":
        return name
    if model_type == "siglip_vision_model":
        return name if layout in ("canonical", "fresh") else "vision_model." + name
    if model_type in ("qwen2_vl", "qwen2_5_vl"):
        if layout in ("canonical", "resaved"):
            return name
        return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
    if model_type == "gemma3" and layout in ("hub", "resaved"):
        name = name.replace("model.vision_tower.", "model.vision_tower.vision_model.")
    if layout in ("hub", "fresh"):
        if name.startswith("model.language_model."):
            return "language_model.model." + name.removeprefix("model.language_model.")
        return "language_model." + name if name.startswith("lm_head") else name.removeprefix("model.")
    return name


def hub_tensors(model, layout: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors that a file holds: named after `layout`, tied ones once."""
    parameters = dict(model.named_parameters())  # names a tied tensor once, as released files do
    model_type = model.config.model_type
    return {rename(n, model_type, layout): p.detach().to(dtype).contiguous() for n, p in parameters.items()}


def write_tensors(tensors: dict[str, torch.Tensor], directory: Path, shards: int = 1) -> None:
    if shards == 1:
        _save(tensors, directory / "model.safetensors")
        return
    total = sum(t.nbytes for t in tensors.values())
    parts: list[dict[str, torch.Tensor]] = [{} for _ in range(shards)]
    done = 0
    for name, tensor in tensors.items():
        parts[min(shards - 1, done * shards // total)][name] = tensor
        done += tensor.nbytes
    weight_map = {}
    for i, part in enumerate(parts, 1):
        file = f"model-{i:05d}-of-{shards:05d}.safetensors"
        _save(part, directory / file)
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(directory / "model.safetensors.index.json", index)


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # the library makes files that only their owner may read


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def write_checkpoint(checkpoint: Checkpoint, directory: Path, seed: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for old in (*directory.glob("*.json"), *directory.glob("model*.safetensors")):
        old.unlink()
    write_json(directory / "config.json", checkpoint.config)
    for file, content in checkpoint.processor_files.items():
        write_json(directory / file, content)
    if checkpoint.tokenizer:
        checkpoint.tokenizer.save(directory)
    model = build_model(directory, seed)
    write_tensors(hub_tensors(model, checkpoint.layout, checkpoint.dtype), directory, checkpoint.shards)
