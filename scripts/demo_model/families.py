"""What is particular to each family: its files, its prompt, and the sizes that its processor makes of a picture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers_of_families import FamilyTokenizer, gemma_tokenizer, qwen_tokenizer, tekken_tokenizer

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]
RESCALE = 0.00392156862745098
PATCH = 14
CELL = 28  # pixels a side of what becomes one row, in every family
WIDTH, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 192, 6, 2, 32, 4  # of every decoder
TOWER_WIDTH, TOWER_HEADS = 128, 4

QWEN_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "<|im_end|>\n{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in "
    "content or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}"
    "Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == "
    "'video' or 'video' in content %}{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video "
    "{{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}"
    "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% endif %}"
)
TEKKEN_TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{{- bos_token }}{%- for message in loop_messages %}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('After the optional system message, conversation roles must alternate "
    "user/assistant/user/assistant/...') }}{%- endif %}"
    "{%- if message['role'] == 'user' %}{%- if loop.last and system_message is defined %}"
    "{{- '[INST]' + system_message + '\n\n' }}{%- else %}{{- '[INST]' }}{%- endif %}{%- endif %}"
    "{%- if message['content'] is not string %}{%- for chunk in message['content'] %}"
    "{%- if chunk['type'] == 'text' %}{{- chunk['text'] }}"
    "{%- elif chunk['type'] == 'image' %}{{- '[IMG]' }}"
    "{%- else %}{{- raise_exception('Unrecognized content type!') }}{%- endif %}{%- endfor %}"
    "{%- else %}{{- message['content'] }}{%- endif %}"
    "{%- if message['role'] == 'user' %}{{- '[/INST]' }}{%- else %}{{- eos_token }}{%- endif %}{%- endfor %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n    {%- if messages[0]['content'] is string -%}\n"
    "        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}\n    {%- else -%}\n"
    "        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}\n    {%- endif -%}\n"
    "    {%- set loop_messages = messages[1:] -%}\n{%- else -%}\n    {%- set first_user_prefix = \"\" -%}\n"
    "    {%- set loop_messages = messages -%}\n{%- endif -%}\n{%- for message in loop_messages -%}\n"
    "    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}\n"
    "        {{ raise_exception(\"Conversation roles must alternate user/assistant/user/assistant/...\") }}\n"
    "    {%- endif -%}\n    {%- if (message['role'] == 'assistant') -%}\n        {%- set role = \"model\" -%}\n"
    "    {%- else -%}\n        {%- set role = message['role'] -%}\n    {%- endif -%}\n"
    "    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else \"\") }}\n"
    "    {%- if message['content'] is string -%}\n        {{ message['content'] | trim }}\n"
    "    {%- elif message['content'] is iterable -%}\n        {%- for item in message['content'] -%}\n"
    "            {%- if item['type'] == 'image' -%}\n                {{ '<start_of_image>' }}\n"
    "            {%- elif item['type'] == 'text' -%}\n                {{ item['text'] | trim }}\n"
    "            {%- endif -%}\n        {%- endfor -%}\n    {%- else -%}\n"
    "        {{ raise_exception(\"Invalid content type\") }}\n    {%- endif -%}\n    {{ '<end_of_turn>\n' }}\n"
    "{%- endfor -%}\n{%- if add_generation_prompt -%}\n    {{'<start_of_turn>model\n'}}\n{%- endif -%}\n"
)


@dataclass(frozen=True)
class Prompt:
    """The pieces of a conversation's text around pictures, questions and answers."""

    begin: str
    after_question: str
    after_answer: str  # the token that stops
    between_turns: str


@dataclass(frozen=True)
class Family:
    name: str
    model_class: str
    tokenizer: FamilyTokenizer
    prompt: Prompt
    config: dict
    files: dict[str, dict]  # beside config.json and the tokenizer's
    template: str
    mean: list[float]
    std: list[float]
    boxes: bool  # "where" is answered with a box
    clips: bool
    square: int  # the side that every picture gets, or 0: pictures keep their form
    max_pixels: int
    max_side: int

    def write(self, directory: Path) -> None:
        """Everything but the weights."""
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "config.json", self.config)
        for name, content in self.files.items():
            write_json(directory / name, content)
        write_json(directory / "chat_template.json", {"chat_template": self.template})
        self.tokenizer.save(directory)

    def placeholder(self, rows: int, columns: int, slices: int = 1, clip: bool = False) -> str:
        """What stands in the text for one picture of rows x columns."""
        if self.name == "qwen2_vl":
            pad = "<|video_pad|>" if clip else "<|image_pad|>"
            return "<|vision_start|>" + pad * (slices * rows * columns) + "<|vision_end|>"
        if self.name == "mistral3":
            return "[IMG_BREAK]".join(["[IMG]" * columns] * rows) + "[IMG_END]"
        return "\n\n<start_of_image>" + "<image_soft_token>" * (rows * columns) + "<end_of_image>\n\n"

    @property
    def row_token(self) -> str:
        return {"qwen2_vl": "<|image_pad|>", "mistral3": "[IMG]", "gemma3": "<image_soft_token>"}[self.name]

    def hub_name(self, name: str) -> str:
        """The released files' name of the parameter that transformers 5 calls `name`."""
        if self.name == "qwen2_vl":
            return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
        if name.startswith("model.language_model."):
            return "language_model.model." + name.removeprefix("model.language_model.")
        if self.name == "gemma3":
            name = name.replace("model.vision_tower.", "model.vision_tower.vision_model.")
        return name.removeprefix("model.")


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def qwen2_vl(corpus: list[str]) -> Family:
    tokenizer = qwen_tokenizer(corpus + ["system\nYou are a helpful assistant.", "user\n", "assistant\n"])
    token = tokenizer.id
    config = {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "vision_token_id": token("<|vision_pad|>"),
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": 384,
        "max_position_embeddings": 32768,
        "max_window_layers": LAYERS,
        "model_type": "qwen2_vl",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-06,
        # Slow enough that a question finds a picture's rows by what they show, from any distance (with 50 it learned
        # that late or never), and quicker than the released 1e6, which tells a head this narrow nothing.
        "rope_theta": 1000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": 6,
            "embed_dim": TOWER_WIDTH,
            "mlp_ratio": 3,
            "num_heads": TOWER_HEADS,
            "in_chans": 3,
            "hidden_size": WIDTH,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "spatial_patch_size": PATCH,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "vocab_size": len(tokenizer),
    }
    max_pixels = 224 * 224
    preprocessor = {
        "min_pixels": 112 * 112,
        "max_pixels": max_pixels,
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
    }
    generation = {
        "bos_token_id": token("<|endoftext|>"),
        "pad_token_id": token("<|endoftext|>"),
        "do_sample": True,
        "eos_token_id": [token("<|im_end|>"), token("<|endoftext|>")],
        "temperature": 0.01,
        "top_k": 1,
        "top_p": 0.001,
    }
    prompt = Prompt(
        begin="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
        after_question="<|im_end|>\n<|im_start|>assistant\n",
        after_answer="<|im_end|>",
        between_turns="\n<|im_start|>user\n",
    )
    return Family(
        "qwen2_vl", "Qwen2VLForConditionalGeneration", tokenizer, prompt, config,
        {"preprocessor_config.json": preprocessor, "generation_config.json": generation}, QWEN_TEMPLATE,
        CLIP_MEAN, CLIP_STD, boxes=True, clips=True, square=0, max_pixels=max_pixels, max_side=364,
    )  # fmt: skip


def mistral3(corpus: list[str]) -> Family:
    tokenizer = tekken_tokenizer(corpus)
    longest = 224
    config = {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "image_token_index": tokenizer.id("[IMG]"),
        "model_type": "mistral3",
        "multimodal_projector_bias": False,
        "projector_hidden_act": "gelu",
        "spatial_merge_size": 2,
        "text_config": {
            "attention_dropout": 0.0,
            "head_dim": HEAD_DIM,
            "hidden_act": "silu",
            "hidden_size": WIDTH,
            "initializer_range": 0.02,
            "intermediate_size": 384,
            "max_position_embeddings": 16384,
            "model_type": "mistral",
            "num_attention_heads": HEADS,
            "num_hidden_layers": LAYERS,
            "num_key_value_heads": KV_HEADS,
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0,
            "sliding_window": None,
            "use_cache": True,
            "vocab_size": len(tokenizer),
        },
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vision_config": {
            "attention_dropout": 0.0,
            "head_dim": TOWER_WIDTH // TOWER_HEADS,
            "hidden_act": "silu",
            "hidden_size": TOWER_WIDTH,
            "image_size": longest,
            "initializer_range": 0.02,
            "intermediate_size": 352,
            "model_type": "pixtral",
            "num_attention_heads": TOWER_HEADS,
            "num_channels": 3,
            "num_hidden_layers": 5,
            "patch_size": PATCH,
            "rope_theta": 10000.0,
        },
        "vision_feature_layer": -1,
    }
    preprocessor = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": CLIP_MEAN,
        "image_processor_type": "PixtralImageProcessor",
        "image_std": CLIP_STD,
        "patch_size": PATCH,
        "processor_class": "PixtralProcessor",
        "resample": 3,
        "rescale_factor": RESCALE,
        "size": {"longest_edge": longest},
    }
    processor = {
        "image_break_token": "[IMG_BREAK]",
        "image_end_token": "[IMG_END]",
        "image_token": "[IMG]",
        "patch_size": PATCH,
        "processor_class": "PixtralProcessor",
        "spatial_merge_size": 2,
    }
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 11}
    files = {
        "preprocessor_config.json": preprocessor,
        "processor_config.json": processor,
        "generation_config.json": generation,
    }
    prompt = Prompt(begin="<s>[INST]", after_question="[/INST]", after_answer="</s>", between_turns="[INST]")
    return Family(
        "mistral3", "Mistral3ForConditionalGeneration", tokenizer, prompt, config, files, TEKKEN_TEMPLATE,
        CLIP_MEAN, CLIP_STD, boxes=False, clips=False, square=0, max_pixels=longest * longest, max_side=longest,
    )  # fmt: skip


def gemma3(corpus: list[str]) -> Family:
    tokenizer = gemma_tokenizer(corpus + ["user", "model"])
    side, tokens = 224, 64
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": tokenizer.id("<start_of_image>"),
        "eoi_token_index": tokenizer.id("<end_of_image>"),
        "eos_token_id": [tokenizer.id("<eos>"), tokenizer.id("<end_of_turn>")],
        "image_token_index": tokenizer.id("<image_soft_token>"),
        "initializer_range": 0.02,
        "mm_tokens_per_image": tokens,
        "model_type": "gemma3",
        "text_config": {
            "head_dim": HEAD_DIM,
            "hidden_size": WIDTH,
            "intermediate_size": 384,
            "model_type": "gemma3_text",
            "num_attention_heads": HEADS,
            "num_hidden_layers": LAYERS,
            "num_key_value_heads": KV_HEADS,
            "query_pre_attn_scalar": HEAD_DIM,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 128,
            "sliding_window_pattern": 2,
            "vocab_size": len(tokenizer) + 7,  # released tables are padded too
        },
        "torch_dtype": "bfloat16",
        "vision_config": {
            "hidden_size": TOWER_WIDTH,
            "image_size": side,
            "intermediate_size": 512,
            "model_type": "siglip_vision_model",
            "num_attention_heads": TOWER_HEADS,
            "num_hidden_layers": 6,
            "patch_size": PATCH,
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
        "image_seq_length": tokens,
        "image_std": HALF,
        "pan_and_scan_max_num_crops": None,
        "pan_and_scan_min_crop_size": None,
        "pan_and_scan_min_ratio_to_activate": None,
        "processor_class": "Gemma3Processor",
        "resample": 2,
        "rescale_factor": RESCALE,
        "size": {"height": side, "width": side},
    }
    generation = {
        "bos_token_id": 2,
        "do_sample": True,
        "eos_token_id": [tokenizer.id("<eos>"), tokenizer.id("<end_of_turn>")],
        "pad_token_id": 0,
        "top_k": 64,
        "top_p": 0.95,
    }
    files = {
        "preprocessor_config.json": preprocessor,
        "processor_config.json": {"image_seq_length": tokens, "processor_class": "Gemma3Processor"},
        "generation_config.json": generation,
    }
    prompt = Prompt(
        begin="<bos><start_of_turn>user\n",
        after_question="<end_of_turn>\n<start_of_turn>model\n",
        after_answer="<end_of_turn>",
        between_turns="\n<start_of_turn>user\n",
    )
    return Family(
        "gemma3", "Gemma3ForConditionalGeneration", tokenizer, prompt, config, files, GEMMA_TEMPLATE,
        HALF, HALF, boxes=False, clips=False, square=side, max_pixels=side * side, max_side=side,
    )  # fmt: skip


FAMILIES = {"qwen2_vl": qwen2_vl, "mistral3": mistral3, "gemma3": gemma3}


def written_family(name: str) -> Family:
    """What can be said of a family without its corpus: for models that are written already."""
    return FAMILIES[name](["?"])
