"""What transformers computes for a picture and a checkpoint folder: pixels, grid, token ids, hidden states, rows.

Pictures are PIL images that are RGB already and stand upright. Rows of pixels and of hidden states are in the order of
transformers' processor: merge blocks for Qwen, raster for the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

from checkpoint_writer import model_class

_IMAGE_TOKEN = {
    "llava": "[IMG]",
    "mistral3": "[IMG]",
    "qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "gemma3": "<start_of_image>",
}
_VIDEO_TOKEN = "<|vision_start|><|video_pad|><|vision_end|>"


@dataclass
class Processed:
    pixels: np.ndarray  # float32 [patches, row]: one row a patch, ordered (channel, [frame,] y, x)
    grid: np.ndarray  # int64 [3]: frames, rows, columns of patches before merging
    token_ids: np.ndarray  # int64: from the picture's first special token to its last; empty for a plain tower


@dataclass
class Embedded:
    rows: list[np.ndarray]  # one a picture, float32 [tokens, hidden]
    hidden: list[np.ndarray] = field(default_factory=list)  # by index in hidden_states: float32 [patches, width]


class TowerTruth:
    def __init__(
        self, directory: Path, *, dtype=torch.float32, attention="eager", backend="torchvision", device="cpu"
    ):
        self.directory = Path(directory)
        self.config = transformers.AutoConfig.from_pretrained(self.directory)
        self.model_type = self.config.model_type
        self.is_qwen = self.model_type.startswith("qwen")
        self.patch = getattr(self.config, "vision_config", self.config).patch_size
        self._load_processor(backend)
        self._dtype, self._attention, self._device, self._model = dtype, attention, device, None

    def _load_processor(self, backend: str) -> None:
        if self.model_type in _IMAGE_TOKEN:
            self.processor = transformers.AutoProcessor.from_pretrained(self.directory)
            image_processor = transformers.AutoImageProcessor.from_pretrained(self.directory, backend=backend)
            self.processor.image_processor = image_processor
        else:  # a plain SigLIP tower: its processor has nothing to say about tokens
            self.processor = transformers.AutoImageProcessor.from_pretrained(self.directory, backend=backend)

    @property
    def model(self):
        if self._model is None:
            self._model, loading = model_class(self.model_type).from_pretrained(
                self.directory, dtype=self._dtype, attn_implementation=self._attention, output_loading_info=True
            )
            unused = {key: value for key, value in loading.items() if value}
            if unused:
                raise RuntimeError(f"{self.directory}: the file does not fit the model: {unused}")
            self._model.eval().to(self._device)
        return self._model

    # --- the processor ---

    def _call_processor(self, images: list[Image.Image], **options):
        if self.model_type not in _IMAGE_TOKEN:
            return self.processor(images=images, return_tensors="pt", **options)
        text = ["".join([_IMAGE_TOKEN[self.model_type]] * len(images))]
        return self.processor(images=[images], text=text, return_tensors="pt", **options)

    def process(self, image: Image.Image, **options) -> Processed:
        inputs = self._call_processor([image], **options)
        ids = inputs["input_ids"][0] if "input_ids" in inputs else torch.empty(0, dtype=torch.long)
        if self.is_qwen:
            return Processed(inputs["pixel_values"].numpy(), inputs["image_grid_thw"][0].numpy(), self._span(ids))
        pixels, grid = _raster_rows(inputs["pixel_values"][0], self.patch)
        return Processed(pixels, grid, self._span(ids))

    def _span(self, ids: torch.Tensor) -> np.ndarray:
        """Cuts off what the tokenizer puts around the picture: the beginning of the text, Gemma's newlines."""
        if not len(ids):
            return ids.numpy()
        picture = {self.processor.tokenizer.convert_tokens_to_ids(t) for t in _PICTURE_TOKENS}
        hits = [i for i, token in enumerate(ids.tolist()) if token in picture]
        return ids[hits[0] : hits[-1] + 1].numpy().astype(np.int64)

    # --- the model ---

    def embed(self, images: list[Image.Image], *, record_hidden=False, **options) -> Embedded:
        """All pictures in one call. Rows are float32 whatever dtype the model computes in."""
        if self.model_type == "mistral3" and len(images) == 1:
            # transformers 5.17 fails on one picture of one token: it squeezes the row away. Two pictures are two rows.
            doubled = self.embed([images[0], images[0]], record_hidden=record_hidden, **options)
            return Embedded(doubled.rows[:1], [state[: len(state) // 2] for state in doubled.hidden])
        inputs = self._call_processor(images, **options).to(self._device)
        recorder = _HiddenStates(self.model, inputs) if record_hidden else None
        with torch.no_grad():
            rows = self._features(inputs)
        rows = [row.float().cpu().numpy() for row in rows]
        return Embedded(rows, recorder.states() if recorder else [])

    def _features(self, inputs):
        if self.is_qwen:
            return self.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output
        if self.model_type in ("llava", "mistral3"):
            sizes = inputs["image_sizes"]
            output = self.model.get_image_features(
                pixel_values=inputs["pixel_values"],
                image_sizes=sizes,
                vision_feature_layer=self.config.vision_feature_layer,
                **(
                    {"vision_feature_select_strategy": self.config.vision_feature_select_strategy}
                    if self.model_type == "llava"
                    else {}
                ),
            )
            return output.pooler_output
        if self.model_type == "gemma3":
            return self.model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
        tower = getattr(self.model, "vision_model", self.model)
        return tower(pixel_values=inputs["pixel_values"].to(self._dtype)).last_hidden_state

    # --- video (Qwen only) ---

    def _call_video(self, frames: np.ndarray):
        video = torch.from_numpy(frames).permute(0, 3, 1, 2)
        return self.processor(
            videos=[video], text=[_VIDEO_TOKEN], return_tensors="pt", do_sample_frames=False, cap_pixels_per_frame=False
        )

    def process_video(self, frames: np.ndarray) -> Processed:
        """frames: uint8 [T, h, w, 3]."""
        inputs = self._call_video(frames)
        ids = self._span(inputs["input_ids"][0])
        return Processed(inputs["pixel_values_videos"].numpy(), inputs["video_grid_thw"][0].numpy(), ids)

    def embed_video(self, frames: np.ndarray) -> np.ndarray:
        inputs = self._call_video(frames)
        with torch.no_grad():
            output = self.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
        return output.pooler_output[0].float().numpy()


_PICTURE_TOKENS = (
    "[IMG]",
    "[IMG_BREAK]",
    "[IMG_END]",
    "<|vision_start|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_end|>",
    "<start_of_image>",
    "<image_soft_token>",
    "<end_of_image>",
)


def _raster_rows(image: torch.Tensor, patch: int) -> tuple[np.ndarray, np.ndarray]:
    """image [3, h, w] -> rows [patches, 3 * patch * patch]; what does not fill a patch at the right and bottom falls."""
    channels, height, width = image.shape
    rows, columns = height // patch, width // patch
    cut = image[:, : rows * patch, : columns * patch]
    blocks = cut.reshape(channels, rows, patch, columns, patch).permute(1, 3, 0, 2, 4)
    flat = blocks.reshape(rows * columns, channels * patch * patch).contiguous()
    return flat.numpy(), np.array([1, rows, columns], dtype=np.int64)


class _HiddenStates:
    """Forward hooks on the first layer's input and every layer's output, put back into the processor's patch order."""

    def __init__(self, model, inputs):
        self._states: list[torch.Tensor] = []
        self._unpermute = None
        layers = self._layers(model)
        layers[0].register_forward_pre_hook(self._before, with_kwargs=True)
        for layer in layers:
            layer.register_forward_hook(self._after)
        if model.config.model_type == "qwen2_5_vl":
            self._unpermute = _window_order(inputs["image_grid_thw"], model.config.vision_config)

    @staticmethod
    def _layers(model):
        root = getattr(model, "model", model)
        for path in ("visual.blocks", "vision_tower.transformer.layers", "vision_tower.encoder.layers",
                     "vision_model.encoder.layers", "encoder.layers"):  # fmt: skip
            try:
                return root.get_submodule(path)
            except AttributeError:
                continue
        raise LookupError(f"no vision layers in {type(model).__name__}")

    def _before(self, _module, args, kwargs):
        self._record(args[0] if args else kwargs["hidden_states"])

    def _after(self, _module, _args, output):
        self._record(output[0] if isinstance(output, tuple) else output)

    def _record(self, state: torch.Tensor):
        self._states.append(state.detach().reshape(-1, state.shape[-1]).float().clone())

    def states(self) -> list[np.ndarray]:
        out = []
        for state in self._states:
            if self._unpermute is not None:
                restored = torch.empty_like(state)
                restored[self._unpermute] = state
                state = restored
            out.append(state.numpy())
        return out


def _window_order(grids: torch.Tensor, config) -> torch.Tensor:
    """order[i] = the patch, counted in the processor's order, that stands at place i inside Qwen2.5's tower."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import get_vision_window_index

    merge = config.spatial_merge_size
    cells, _ = get_vision_window_index(
        grids, spatial_merge_size=merge, window_size=config.window_size, patch_size=config.patch_size, kwargs={}
    )
    unit = merge * merge
    return (cells[:, None] * unit + torch.arange(unit)).reshape(-1)
