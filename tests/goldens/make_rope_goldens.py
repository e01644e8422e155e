"""The rotary frequencies of transformers for the rope types that stretch, in the released sizes.

    python tests/goldens/make_rope_goldens.py

Writes tests/data/text/rope.json: for each case the keys of a Llama's text_config, and from transformers' own functions
the frequencies and the factor of cos and sin.
"""

from __future__ import annotations

import json
from pathlib import Path

import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

SIZES = {"hidden_size": 1024, "num_attention_heads": 8, "head_dim": 128, "max_position_embeddings": 131072}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
CASES = [
    {"rope_theta": 1000000.0, "rope_scaling": YARN},  # as Qwen's page proposes
    {"rope_theta": 1000000.0, "rope_scaling": {**YARN, "type": "yarn", "truncate": False}},
    {"rope_theta": 10000.0, "rope_scaling": {**YARN, "factor": 40, "mscale": 1.0, "mscale_all_dim": 0.5}},
    {"rope_theta": 10000.0, "rope_scaling": {**YARN, "mscale": 0.707}},
    {"rope_theta": 1000000000.0, "rope_scaling": {**YARN, "beta_fast": 16, "beta_slow": 2, "attention_factor": 0.9}},
    {"rope_theta": 10000.0, "rope_scaling": {**YARN, "beta_fast": None, "beta_slow": 0, "truncate": None}},
    {"rope_theta": 10000.0, "rope_scaling": {**YARN, "factor": None}},
    {"rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": 1.0}},
    {"rope_theta": 10000.0, "rope_scaling": {**YARN, "factor": 0.5, "original_max_position_embeddings": 4}},
    {"rope_theta": 10000.0, "rope_scaling": YARN, "original_max_position_embeddings": 1024},
    {"rope_theta": 10000.0, "rope_scaling": {"rope_type": "dynamic", "factor": 8.0}},
    {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                              "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}},
]  # fmt: skip


def main() -> None:
    cases = []
    for case in CASES:
        text = {**SIZES, **json.loads(json.dumps(case))}
        config = transformers.LlamaConfig(**json.loads(json.dumps(text)))
        kind = config.rope_parameters["rope_type"]
        frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
        cases.append({"text_config": text, "frequencies": frequencies.double().tolist(), "factor": float(factor)})
    path = Path(__file__).parents[1] / "data" / "text" / "rope.json"
    made_with = f"transformers {transformers.__version__}"
    path.write_text(json.dumps({"made_with": made_with, "cases": cases}, indent=None) + "\n")
    for case in cases:
        print(case["text_config"]["rope_scaling"], case["factor"], case["frequencies"][40])


if __name__ == "__main__":
    main()
