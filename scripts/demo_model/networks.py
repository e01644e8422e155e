"""The forward passes for training: whole batches of one shape, on one flat buffer of parameters.

transformers' modules take pictures one by one and ask the GPU for lengths; here all pictures of a batch have one size,
so that every operation is one call. Names and arithmetic are those of transformers' modules, with which the finished
model is compared before it is tested.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from families import CELL, HEAD_DIM, HEADS, KV_HEADS, LAYERS, PATCH, TOWER_HEADS, TOWER_WIDTH, WIDTH, Family

ALIGNMENT = 64  # elements: every parameter begins where matrix products like to read


class Parameters:
    """All parameters in one float32 buffer, so that casts, norms and updates are single calls."""

    def __init__(self, shapes: dict[str, torch.Size], device: torch.device):
        self.shapes = shapes
        self.sizes: list[int] = []
        for shape in shapes.values():
            self.sizes.append(-(-math.prod(shape) // ALIGNMENT) * ALIGNMENT)
        self.flat = torch.zeros(sum(self.sizes), device=device, requires_grad=True)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        pieces = flat.split(self.sizes)
        return {
            name: piece[: math.prod(shape)].view(shape) for (name, shape), piece in zip(self.shapes.items(), pieces)
        }


def initial_value(name: str, shape: torch.Size, family: str, generator: torch.Generator) -> Tensor:
    if "norm" in name or "ln_" in name or name.endswith(".bias"):
        gemma_norm = family == "gemma3" and ("language_model" in name or "mm_soft_emb_norm" in name)
        return torch.zeros(shape) if name.endswith("bias") or gemma_norm else torch.ones(shape)
    noise = torch.randn(shape, generator=generator)
    if "embed_tokens" in name or "position_embedding" in name:
        return noise * WIDTH**-0.5
    fan_in = shape[0] if name.endswith("mm_input_projection_weight") else math.prod(shape[1:])
    into_residual = any(part in name for part in ("o_proj", "out_proj", "attn.proj", "down_proj", "fc2"))
    return noise * (0.3 if into_residual else 0.7) * fan_in**-0.5


def linear(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    return F.linear(x, p[name + ".weight"], p.get(name + ".bias"))


def rms_norm(x: Tensor, weight: Tensor, eps: float, offset: float = 0.0) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * (weight.float() + offset)).to(x.dtype)


def layer_norm(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[name + ".weight"], p[name + ".bias"], 1e-6)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [batch, heads, tokens, dim]; cos and sin [tokens, dim]."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


def heads_first(x: Tensor, heads: int) -> Tensor:
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = False, mask: Tensor | None = None) -> Tensor:
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
    return out.transpose(1, 2).flatten(2)


def angles_to_tables(angles: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    both = torch.cat((angles, angles), dim=-1)
    tables = both.cos().to(dtype), both.sin().to(dtype)
    for table in tables:
        torch._dynamo.maybe_mark_dynamic(table, 0)
    return tables


# The blocks: parameters under their names within the block, so that one compiled function serves all layers.


def qwen_block(x: Tensor, p: dict[str, Tensor], cos: Tensor, sin: Tensor) -> Tensor:
    h = linear(layer_norm(x, p, "norm1"), p, "attn.qkv")
    q, k, v = h.view(x.shape[0], x.shape[1], 3, TOWER_HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
    scale = (TOWER_WIDTH // TOWER_HEADS) ** -0.5
    x = x + linear(attend(rotate(q, cos, sin), rotate(k, cos, sin), v, scale), p, "attn.proj")
    h = linear(layer_norm(x, p, "norm2"), p, "mlp.fc1")
    return x + linear(h * torch.sigmoid(1.702 * h), p, "mlp.fc2")


def pixtral_block(x: Tensor, p: dict[str, Tensor], cos: Tensor, sin: Tensor) -> Tensor:
    h = rms_norm(x, p["attention_norm.weight"], 1e-5)
    q, k, v = (heads_first(linear(h, p, f"attention.{n}_proj"), TOWER_HEADS) for n in "qkv")
    scale = (TOWER_WIDTH // TOWER_HEADS) ** -0.5
    x = x + linear(attend(rotate(q, cos, sin), rotate(k, cos, sin), v, scale), p, "attention.o_proj")
    h = rms_norm(x, p["ffn_norm.weight"], 1e-5)
    h = F.silu(linear(h, p, "feed_forward.gate_proj")) * linear(h, p, "feed_forward.up_proj")
    return x + linear(h, p, "feed_forward.down_proj")


def siglip_block(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    h = layer_norm(x, p, "layer_norm1")
    q, k, v = (heads_first(linear(h, p, f"self_attn.{n}_proj"), TOWER_HEADS) for n in "qkv")
    x = x + linear(attend(q, k, v, (TOWER_WIDTH // TOWER_HEADS) ** -0.5), p, "self_attn.out_proj")
    h = F.gelu(linear(layer_norm(x, p, "layer_norm2"), p, "mlp.fc1"), approximate="tanh")
    return x + linear(h, p, "mlp.fc2")


def _decoder_attention(h: Tensor, p: dict[str, Tensor], cos: Tensor, sin: Tensor, norm, causal, mask) -> Tensor:
    q = heads_first(linear(h, p, "self_attn.q_proj"), HEADS)
    k = heads_first(linear(h, p, "self_attn.k_proj"), KV_HEADS)
    v = heads_first(linear(h, p, "self_attn.v_proj"), KV_HEADS)
    if norm:
        q = norm(q, p["self_attn.q_norm.weight"])
        k = norm(k, p["self_attn.k_norm.weight"])
    k, v = (y.repeat_interleave(HEADS // KV_HEADS, dim=1) for y in (rotate(k, cos, sin), v))
    out = attend(rotate(q, cos, sin), k, v, HEAD_DIM**-0.5, causal, mask)
    return linear(out, p, "self_attn.o_proj")


def llama_block(x: Tensor, p: dict[str, Tensor], cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    h = rms_norm(x, p["input_layernorm.weight"], eps)
    x = x + _decoder_attention(h, p, cos, sin, None, True, None)
    h = rms_norm(x, p["post_attention_layernorm.weight"], eps)
    return x + linear(F.silu(linear(h, p, "mlp.gate_proj")) * linear(h, p, "mlp.up_proj"), p, "mlp.down_proj")


def gemma_norm(x: Tensor, weight: Tensor) -> Tensor:
    return rms_norm(x, weight, 1e-6, offset=1.0)


def gemma_block(x: Tensor, p: dict[str, Tensor], cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
    h = _decoder_attention(gemma_norm(x, p["input_layernorm.weight"]), p, cos, sin, gemma_norm, False, mask)
    x = x + gemma_norm(h, p["post_attention_layernorm.weight"])
    h = gemma_norm(x, p["pre_feedforward_layernorm.weight"])
    h = F.gelu(linear(h, p, "mlp.gate_proj"), approximate="tanh") * linear(h, p, "mlp.up_proj")
    return x + gemma_norm(linear(h, p, "mlp.down_proj"), p["post_feedforward_layernorm.weight"])


class Network:
    """Forward of one family. `compile` wraps the blocks, the only place where time goes."""

    def __init__(self, family: Family, compiled: bool):
        self.family, self.compiled = family, compiled
        wrap = (lambda f: torch.compile(f)) if compiled else (lambda f: f)
        names = {"qwen2_vl": qwen_block, "mistral3": pixtral_block, "gemma3": siglip_block}
        self.tower_block = wrap(names[family.name])
        self.decoder_block = wrap(gemma_block if family.name == "gemma3" else llama_block)
        self.mean = torch.tensor(family.mean) * 255
        self.std = torch.tensor(family.std) * 255

    def prepare(self, p: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds, under each block's prefix, the block's parameters by their short names."""
        self._blocks: dict[str, dict[str, Tensor]] = {}
        for prefix, count in self._block_prefixes().items():
            for layer in range(count):
                full = f"{prefix}{layer}."
                self._blocks[full] = {n.removeprefix(full): t for n, t in p.items() if n.startswith(full)}
        return p

    def _block_prefixes(self) -> dict[str, int]:
        vision = self.family.config["vision_config"]
        depth = vision.get("depth") or vision["num_hidden_layers"]
        tower = {
            "qwen2_vl": "model.visual.blocks.",
            "mistral3": "model.vision_tower.transformer.layers.",
            "gemma3": "model.vision_tower.encoder.layers.",
        }[self.family.name]
        return {tower: depth, "model.language_model.layers.": LAYERS}

    def _run_blocks(self, x: Tensor, first: bool, block, *arguments) -> Tensor:
        prefix, count = list(self._block_prefixes().items())[0 if first else 1]
        for layer in range(count):
            if self.compiled:  # one compilation for all sizes of batches and pictures
                torch._dynamo.maybe_mark_dynamic(x, (0, 1))
            x = block(x, self._blocks[f"{prefix}{layer}."], *(a(layer) if callable(a) else a for a in arguments))
        return x

    # pixels uint8 [pictures, frames, 3, height, width] -> rows [pictures, slices, rows * columns, WIDTH]

    def rows(self, p: dict[str, Tensor], pixels: Tensor, dtype: torch.dtype) -> Tensor:
        mean, std = (t.to(pixels.device).view(3, 1, 1) for t in (self.mean, self.std))
        values = ((pixels.float() - mean) / std).to(dtype)
        return {"qwen2_vl": self._qwen_rows, "mistral3": self._mistral_rows, "gemma3": self._gemma_rows}[
            self.family.name
        ](p, values)

    def _qwen_rows(self, p: dict[str, Tensor], values: Tensor) -> Tensor:
        pictures, frames, _, height, width = values.shape
        if frames == 1:
            values = values.expand(-1, 2, -1, -1, -1)
        slices, bh, bw = max(1, frames // 2), height // CELL, width // CELL
        x = values.reshape(pictures, slices, 2, 3, bh, 2, PATCH, bw, 2, PATCH)
        x = x.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(pictures * slices, bh * bw * 4, -1)
        x = F.linear(x, p["model.visual.patch_embed.proj.weight"].flatten(1))
        device = values.device
        row = torch.arange(bh * 2, device=device).view(bh, 1, 2, 1).expand(bh, bw, 2, 2).flatten()
        column = torch.arange(bw * 2, device=device).view(1, bw, 1, 2).expand(bh, bw, 2, 2).flatten()
        half = TOWER_WIDTH // TOWER_HEADS // 2
        inverse = 10000.0 ** (-torch.arange(0, half, 2, device=device).float() / half)
        tables = angles_to_tables(torch.cat((row[:, None] * inverse, column[:, None] * inverse), -1), x.dtype)
        x = self._run_blocks(x, True, self.tower_block, *tables)
        x = layer_norm(x, p, "model.visual.merger.ln_q").view(pictures * slices, bh * bw, -1)
        x = linear(F.gelu(linear(x, p, "model.visual.merger.mlp.0")), p, "model.visual.merger.mlp.2")
        return x.view(pictures, slices, bh * bw, -1)

    def _mistral_rows(self, p: dict[str, Tensor], values: Tensor) -> Tensor:
        pictures, _, _, height, width = values.shape
        gh, gw = height // PATCH, width // PATCH
        x = values.reshape(pictures, 3, gh, PATCH, gw, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(pictures, gh * gw, -1)
        x = F.linear(x, p["model.vision_tower.patch_conv.weight"].flatten(1))
        x = rms_norm(x, p["model.vision_tower.ln_pre.weight"], 1e-5)
        device = values.device
        row = torch.arange(gh, device=device).view(gh, 1).expand(gh, gw).flatten()
        column = torch.arange(gw, device=device).view(1, gw).expand(gh, gw).flatten()
        dim = TOWER_WIDTH // TOWER_HEADS
        inverse = 10000.0 ** (-torch.arange(0, dim, 2, device=device).float() / dim)
        angles = torch.cat((row[:, None] * inverse[::2], column[:, None] * inverse[1::2]), -1)
        x = self._run_blocks(x, True, self.tower_block, *angles_to_tables(angles, x.dtype))
        head = "model.multi_modal_projector."
        x = rms_norm(x, p[head + "norm.weight"], 1e-5)
        x = x.view(pictures, gh // 2, 2, gw // 2, 2, -1).permute(0, 1, 3, 5, 2, 4).reshape(pictures, gh * gw // 4, -1)
        x = linear(x, p, head + "patch_merger.merging_layer")
        return linear(F.gelu(linear(x, p, head + "linear_1")), p, head + "linear_2").unsqueeze(1)

    def _gemma_rows(self, p: dict[str, Tensor], values: Tensor) -> Tensor:
        pictures, _, _, height, width = values.shape
        gh, gw = height // PATCH, width // PATCH
        x = values.reshape(pictures, 3, gh, PATCH, gw, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(pictures, gh * gw, -1)
        head = "model.vision_tower.embeddings."
        x = F.linear(x, p[head + "patch_embedding.weight"].flatten(1), p[head + "patch_embedding.bias"])
        x = self._run_blocks(x + p[head + "position_embedding.weight"], True, self.tower_block)
        x = layer_norm(x, p, "model.vision_tower.post_layernorm")
        x = x.view(pictures, gh // 2, 2, gw // 2, 2, -1).mean(dim=(2, 4)).view(pictures, gh * gw // 4, -1)
        x = gemma_norm(x, p["model.multi_modal_projector.mm_soft_emb_norm.weight"])
        return (x @ p["model.multi_modal_projector.mm_input_projection_weight"]).unsqueeze(1)

    # ids [batch, tokens] with `rows` [batch, n, WIDTH] at the places `row_places` -> hidden [batch, tokens, WIDTH]

    def hidden(self, p: dict[str, Tensor], ids: Tensor, rows: Tensor, row_places: Tensor, positions: Tensor) -> Tensor:
        """`positions` [3, tokens], the same in the whole batch; the rows stand at the same places everywhere."""
        table = p["model.language_model.embed_tokens.weight"]
        x = F.embedding(ids, table)
        gemma = self.family.name == "gemma3"
        if gemma:
            x = x * torch.tensor(WIDTH**0.5, dtype=x.dtype)
        x = x.index_copy(1, row_places, rows)
        if gemma:
            x = self._gemma_layers(x, row_places, positions[0])
            return gemma_norm(x, p["model.language_model.norm.weight"])
        text = self.family.config.get("text_config", self.family.config)
        inverse = text["rope_theta"] ** (-torch.arange(0, HEAD_DIM, 2, device=x.device).float() / HEAD_DIM)
        sections = self.family.config.get("rope_scaling", {}).get("mrope_section", [HEAD_DIM // 2, 0, 0])
        axis = torch.repeat_interleave(torch.arange(3), torch.tensor(sections)).to(x.device)
        tables = angles_to_tables(positions.float()[axis].T * inverse, x.dtype)
        x = self._run_blocks(x, False, self.decoder_block, *tables, text["rms_norm_eps"])
        return rms_norm(x, p["model.language_model.norm.weight"], text["rms_norm_eps"])

    def _gemma_layers(self, x: Tensor, row_places: Tensor, positions: Tensor) -> Tensor:
        text = self.family.config["text_config"]
        device = x.device
        exponents = torch.arange(0, HEAD_DIM, 2, device=device).float() / HEAD_DIM
        count = positions.shape[0]
        i, j = torch.arange(count, device=device)[:, None], torch.arange(count, device=device)[None, :]
        # A picture's rows see each other in both directions: number the runs of neighbouring rows.
        is_row = torch.zeros(count, dtype=torch.bool, device=device).index_fill(0, row_places, True)
        begins = is_row & ~torch.cat((is_row.new_zeros(1), is_row[:-1]))
        block = torch.where(is_row, begins.cumsum(0), -1)
        full = (j <= i) | ((block[:, None] == block[None, :]) & is_row[:, None])
        sliding = full & (j > i - text["sliding_window"])
        full, sliding = full[None, None], sliding[None, None]
        for mask in (full, sliding):
            torch._dynamo.maybe_mark_dynamic(mask, (2, 3))
        full_tables = angles_to_tables(positions.float()[:, None] * (1e6**-exponents / 8), x.dtype)
        sliding_tables = angles_to_tables(positions.float()[:, None] * (1e4**-exponents), x.dtype)

        def is_full(layer: int) -> bool:
            return (layer + 1) % text["sliding_window_pattern"] == 0

        return self._run_blocks(
            x,
            False,
            self.decoder_block,
            lambda layer: (full_tables if is_full(layer) else sliding_tables)[0],
            lambda layer: (full_tables if is_full(layer) else sliding_tables)[1],
            lambda layer: full if is_full(layer) else sliding,
        )

    @staticmethod
    def logits(p: dict[str, Tensor], hidden: Tensor) -> Tensor:
        return F.linear(hidden, p["model.language_model.embed_tokens.weight"])
