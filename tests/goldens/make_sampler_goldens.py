"""What transformers' logits processors make of random logits: tests/data/text/sampler.safetensors.

    python tests/goldens/make_sampler_goldens.py [FILE]

  logits               float32 [rows, vocabulary], spread like a language model's
  history              int64 [rows, ids]: prompt and answer, for the repetition penalty
  penalised.repetition float32 [rows, vocabulary]: logits after sequence bias and repetition penalty
  <case>               float32 [rows, vocabulary]: probabilities after the warpers of CASES, in generate's order; 0 where
                       an id was dropped
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from transformers import LogitsProcessorList
from transformers.generation import logits_process as warpers

ROWS, VOCABULARY = 12, 256
BIAS = {(3,): 2.5, (7,): -4.0, (250,): float("-inf")}
REPETITION_PENALTY = 1.3

CASES = {
    "temperature": [warpers.TemperatureLogitsWarper(0.7)],
    "top_k": [warpers.TopKLogitsWarper(5)],
    "top_p": [warpers.TopPLogitsWarper(0.8)],
    "min_p": [warpers.MinPLogitsWarper(0.1)],
    "typical": [warpers.TypicalLogitsWarper(0.6)],
    "all": [
        warpers.TemperatureLogitsWarper(1.7),
        warpers.TopKLogitsWarper(60),
        warpers.TopPLogitsWarper(0.95),
        warpers.MinPLogitsWarper(0.02),
        warpers.TypicalLogitsWarper(0.9),
    ],
}


def main() -> None:
    default = Path(__file__).parents[1] / "data" / "text" / "sampler.safetensors"
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    generator = torch.Generator().manual_seed(12)
    spread = torch.linspace(0.5, 6, ROWS)[:, None]
    logits = torch.randn(ROWS, VOCABULARY, generator=generator) * spread
    logits[1, 20] = logits[1].max()  # a tie at the top
    history = torch.randint(0, VOCABULARY, (ROWS, 40), generator=generator)
    tensors = {"logits": logits, "history": history}
    penalties = LogitsProcessorList(
        [warpers.SequenceBiasLogitsProcessor(BIAS), warpers.RepetitionPenaltyLogitsProcessor(REPETITION_PENALTY)]
    )
    tensors["penalised.repetition"] = penalties(history, logits.clone())
    for name, case in CASES.items():
        tensors[name] = LogitsProcessorList(case)(history, logits.clone()).softmax(-1)
    maker = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(value.numpy()) for name, value in tensors.items()}
    save_file(arrays, path, metadata={"made_with": maker})
    path.chmod(0o644)
    for name in CASES:
        print(f"{name:12} ids left {[int((row > 0).sum()) for row in tensors[name]]}")


if __name__ == "__main__":
    main()
