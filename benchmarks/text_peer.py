"""transformers' side of text.py, in a process of its own: it answers each line of stdin with one JSON line.

    prefill TOKENS SALT | decode eager|compile BATCH TOKENS NEW SALT | picture FILE | limits TOKENS DTYPE IN,OUT...

as bench_text does; `limits` times a copy and products of these shapes. A failed request answers {"error": text}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from PIL import Image

import text_cases
from checkpoint_writer import model_class

LATE = 16
GREEDY = dict(do_sample=False, eos_token_id=None, pad_token_id=0, repetition_penalty=1.0)


class Clock(transformers.StoppingCriteria):
    """When the first new token was there, and when the last of those in which a compiled peer may still get ready."""

    def __init__(self, wait):
        self.wait, self.times, self.tokens = wait, {}, 0

    def __call__(self, input_ids, scores, **kwargs):
        self.tokens += 1
        if self.tokens in (1, LATE):
            self.wait()
            self.times[self.tokens] = time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class Peer:
    def __init__(self, arguments: argparse.Namespace):
        self.device = arguments.device
        self.text = arguments.text
        config = transformers.AutoConfig.from_pretrained(arguments.model)
        self.dtype = getattr(torch, arguments.dtype)
        kind = model_class(config.model_type)
        self.model = kind.from_pretrained(arguments.model, dtype=self.dtype, attn_implementation="sdpa")
        self.model = self.model.eval().to(self.device)
        self.vocabulary = config.get_text_config().vocab_size
        self.processor = transformers.AutoProcessor.from_pretrained(arguments.model)

    def wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def prompts(self, batch: int, tokens: int, salt: int) -> dict:
        """Ids that bench_text makes likewise."""
        span = self.vocabulary - text_cases.FIRST_ID
        rows = [[text_cases.FIRST_ID + (7919 * i + 104729 * row + 1299709 * salt) % span for i in range(tokens)]
                for row in range(batch)]  # fmt: skip
        ids = torch.tensor(rows, device=self.device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def generate(self, inputs: dict, new_tokens: int, **options):
        with torch.inference_mode():
            out = self.model.generate(**inputs, **GREEDY, max_new_tokens=new_tokens, **options)
        self.wait()
        return out[:, inputs["input_ids"].shape[1] :]

    def prefill(self, tokens: str, salt: str) -> dict:
        inputs = self.prompts(1, int(tokens), int(salt))
        self.wait()
        begin = time.perf_counter()
        ids = self.generate(inputs, 1)
        return {"ms": [1000 * (time.perf_counter() - begin)], "ids": ids.flatten().tolist()}

    def decode(self, kind: str, batch: str, tokens: str, new_tokens: str, salt: str) -> dict:
        inputs = self.prompts(int(batch), int(tokens), int(salt))
        options = self.compiled() if kind == "compile" else {}
        clock = Clock(self.wait)
        ids = self.generate(inputs, int(new_tokens), stopping_criteria=[clock], **options)
        end = time.perf_counter()
        answer = {"ms": [1000 * (end - clock.times[1])], "ids": ids.flatten().tolist()}
        if LATE in clock.times:
            answer |= {"late_ms": 1000 * (end - clock.times[LATE]), "late_steps": int(new_tokens) - LATE}
        return answer

    def compiled(self) -> dict:
        """On a GPU a static cache is enough for generate to compile its decoding; on the CPU it has to be told to."""
        config = transformers.CompileConfig()
        config._compile_all_devices = True
        return {"cache_implementation": "static", "compile_config": config}

    def picture(self, file: str) -> dict:
        begin = time.perf_counter()
        inputs = self.processor(images=[Image.open(file)], text=[self.text], return_tensors="pt").to(self.device)
        for key, value in inputs.items():
            if value.is_floating_point():
                inputs[key] = value.to(self.dtype)
        ids = self.generate(dict(inputs), 1)
        ms = 1000 * (time.perf_counter() - begin)
        return {"ms": [ms], "ids": ids.flatten().tolist(), "tokens": inputs["input_ids"].shape[1]}

    def best_seconds(self, work, calls: int) -> float:
        best = float("inf")
        for _ in range(4):
            begin = time.perf_counter()
            for _ in range(calls):
                work()
            self.wait()
            best = min(best, (time.perf_counter() - begin) / calls)
        return best

    def limits(self, tokens: str, dtype: str, *shapes: str) -> dict:
        """Bytes a second of a copy (read and written), seconds of each product of `tokens` rows in a short burst, and of
        all of them one after the other in a loop, where a GPU has come to the clock that its power allows."""
        kind, calls = getattr(torch, dtype), 2 if self.device == "cpu" else 10
        source = torch.zeros(1 << 29, dtype=torch.uint8, device=self.device)
        target = torch.ones_like(source)
        copy = 2 * source.numel() / self.best_seconds(lambda: target.copy_(source), calls)
        seconds, products = {}, []
        for shape in shapes:
            inner, out = map(int, shape.split(","))
            x = torch.randn(int(tokens), inner, dtype=kind, device=self.device)
            w = torch.randn(out, inner, dtype=kind, device=self.device) / inner**0.5
            products.append((x, w))
            seconds[shape] = self.best_seconds(lambda: torch.nn.functional.linear(x, w), calls)
        return {"copy": copy, "seconds": seconds, "in_a_loop": self.loop_seconds(products, calls)}

    def loop_seconds(self, products: list, calls: int, warm_up: float = 1.5) -> float:
        def some() -> None:
            for _ in range(calls):
                for x, w in products:
                    torch.nn.functional.linear(x, w)
            self.wait()

        end = time.perf_counter() + warm_up
        while time.perf_counter() < end:
            some()
        begin = time.perf_counter()
        for _ in range(4):
            some()
        return (time.perf_counter() - begin) / (4 * calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--text", required=True, help="the question with its placeholder")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    peer = Peer(arguments)
    where = f"{arguments.threads} threads" if arguments.device == "cpu" else torch.cuda.get_device_name()
    facts = {"transformers": transformers.__version__, "torch": torch.__version__, "where": where}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        try:
            answer = getattr(peer, command)(*words)
        except Exception as error:  # whatever the peer raises, such as out of memory
            answer = {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
