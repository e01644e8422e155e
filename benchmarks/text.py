#!/usr/bin/env python3
"""Language models: oriel against transformers' generate, from the same random weights.

    python benchmarks/text.py [--device cpu|cuda] [--model NAME...] [--parts prefill decode picture] [--threads N]
                              [--rounds N] [--layers N] [--dtype float32|bfloat16] [--peers eager compile]
                              [--build DIR] [--out FILE.jsonl]

On a GPU the models are as large as the released ones, in bfloat16. On the CPU they are cut to a few layers of the real
widths and to 32,768 ids, in float32 by default. Greedy ids are compared, and said to differ where they do: in bfloat16
two tokens of a random model may be too near to each other. `eager` is generate as it is (sdpa attention), `compile`
generate with a static cache, which transformers compiles for decoding. Prints one Markdown table a model; --out gets
every figure.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cases
import run
import text_cases

NEW_TOKENS = 64
PROMPT = 128  # of decode
BATCHES = (1, 8)
PEERS = {"cpu": ["eager"], "cuda": ["eager", "compile"]}


class Server:
    """A program that answers lines with JSON lines."""

    def __init__(self, command: list):
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.facts = self.read()

    def read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args[0]} ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, *words) -> dict:
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Bench:
    def __init__(self, name: str, arguments: argparse.Namespace, say):
        self.name, self.arguments, self.say = name, arguments, say
        self.title, _, _, _, mark = text_cases.MODELS[name]
        self.on_cpu = arguments.device == "cpu"
        self.layers = arguments.layers or (4 if self.on_cpu else None)
        self.dtype = arguments.dtype or ("float32" if self.on_cpu else "bfloat16")
        self.count = text_cases.counts(name, self.layers)
        self.peers = [kind for kind in arguments.peers if kind in PEERS[arguments.device]]
        self.prompt = 2048
        self.directory = self.checkpoint()
        texts = [f"{mark}{question}" for question in text_cases.QUESTIONS]
        self.picture = arguments.checkpoints / "picture.jpg"
        cases.write_picture((504, 504) if self.on_cpu else (1024, 768), self.picture)
        common = ["--model", self.directory, "--device", arguments.device, "--dtype", self.dtype]
        common += ["--threads", arguments.threads]
        ours = [arguments.build / "benchmarks" / "bench_text", *common, "--first-id", text_cases.FIRST_ID]
        ours += ["--tower"] if "picture" in arguments.parts else []
        self.ours = Server([*ours, "--text", texts[0], "--text", texts[1]])
        say("oriel is ready")
        self.peer = Server([sys.executable, Path(__file__).parent / "text_peer.py", *common, "--text", texts[0]])
        say("transformers is ready")

    def checkpoint(self) -> Path:
        full = "" if self.layers is None else f"_{self.layers}_layers"
        directory = self.arguments.checkpoints / f"{self.name}{full}"
        if not (directory / "complete").exists():
            self.say(f"writing random weights of {self.title}")
            text_cases.write(self.name, self.layers, directory, self.arguments.device)
        return directory

    def limits(self) -> dict:
        """Of the last layer, keys and values of all tokens are needed, and the rest of one."""
        shapes = {key: f"{a},{b}" for key, (a, b) in self.count["shapes"].items()}
        found = self.peer.ask("limits", self.prompt, self.dtype, *shapes.values())
        layer = sum(found["seconds"][shape] for shape in shapes.values())
        layers = self.count["layers"] - 1 + found["seconds"][shapes["qkv"]] / layer
        flop = 2 * self.prompt * self.count["layer"]
        return {"copy": found["copy"], "products_seconds": layer * layers, "products_flop_s": flop / layer,
                "loop_seconds": found["in_a_loop"] * layers, "loop_flop_s": flop / found["in_a_loop"]}  # fmt: skip

    def turns(self, what: str, ours: tuple, peers: dict[str, tuple], salted: bool = True) -> dict:
        """Every contender in each round, a first round unmeasured; each round has a prompt of its own."""
        result: dict = {"what": what, "oriel": [], **{kind: [] for kind in peers}, "same": {}, "errors": {}}
        for turn in range(self.arguments.rounds + 1):
            salt = (turn,) if salted else ()
            mine = self.ours.ask(*ours, *salt)
            result["answer"] = {key: value for key, value in mine.items() if key != "ids"}
            if turn > 0:
                result["oriel"].append(mine)
            for kind, words in peers.items():
                if kind in result["errors"]:
                    continue
                theirs = self.peer.ask(*words, *salt)
                if "error" in theirs:
                    result["errors"][kind] = theirs["error"]
                    continue
                if turn > 0:
                    result[kind].append(theirs)
                    result["same"].setdefault(kind, []).append(leading_equal(mine["ids"], theirs["ids"]))
        self.say(f"{self.title}: {what}: {in_milliseconds(result, peers)}")
        return result

    def measure(self) -> dict:
        parts, found = self.arguments.parts, {}
        found["limits"] = self.limits()
        self.say("limits of the machine")
        if "prefill" in parts:
            words = ("prefill", self.prompt)
            eager = {"eager": words} if "eager" in self.peers else {}
            found["prefill"] = self.turns(f"prefill, {self.prompt} tokens", words, eager)
        if "decode" in parts:
            for batch in BATCHES:
                words = (batch, PROMPT, NEW_TOKENS)
                peers = {kind: ("decode", kind, *words) for kind in self.peers}
                found[f"decode {batch}"] = self.turns(f"decode, batch {batch}", ("decode", *words), peers)
        if "picture" in parts:
            words = ("picture", self.picture)
            eager = {"eager": words} if "eager" in self.peers else {}
            found["picture"] = self.turns("picture and question", words, eager, salted=False)
        self.ours.close()
        self.peer.close()
        return {"model": self.name, "title": self.title, "layers": self.count["layers"], "dtype": self.dtype,
                "vocabulary": self.count["vocabulary"], "device": self.arguments.device, "prompt": self.prompt,
                "weights_read": self.count["read"], "prefill_flop": text_cases.prefill_flop(self.count, self.prompt),
                "cut": self.layers is not None, "facts": {"oriel": self.ours.facts, "peer": self.peer.facts},
                **found}  # fmt: skip


def leading_equal(ours: list, theirs: list) -> str:
    """How many ids agree before the first that does not."""
    equal = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if int(a) != int(b)), len(ours))
    return "all" if equal == len(ours) == len(theirs) else f"{equal} of {len(ours)}"


# --- the table ---


def milliseconds(answers: list[dict], key: str = "ms") -> float | None:
    return statistics.median(answer[key][0] for answer in answers) if answers else None


def in_milliseconds(entry: dict, peers: dict) -> str:
    """For those who can't wait for the table."""
    show = lambda kind: "none" if (ms := milliseconds(entry[kind])) is None else f"{ms:.1f} ms"  # noqa: E731
    return ", ".join(f"{kind} {show(kind)}" for kind in ("oriel", *peers))


def same_ids(entry: dict) -> str:
    said = [f"{kind}: {' / '.join(dict.fromkeys(rows))}" for kind, rows in entry["same"].items()]
    return "; ".join(said + [f"{kind}: {why}" for kind, why in entry["errors"].items()]) or "-"


def row(label: str, entry: dict, tokens: int, limit: str) -> list[str]:
    """Tokens a second, or milliseconds where `tokens` is 0."""
    ours = milliseconds(entry["oriel"])
    show = lambda ms: "-" if ms is None else f"{1000 * tokens / ms:.1f}" if tokens else f"{ms:.0f}"  # noqa: E731
    cells = [label, show(ours)]
    for kind in ("eager", "compile"):
        theirs = milliseconds(entry.get(kind, []))
        cells += [show(theirs), "-" if theirs is None else f"{theirs / ours:.2f}"]
    return [*cells, limit, same_ids(entry)]


def rows(found: dict) -> list[list[str]]:
    bytes_each = 4 if found["dtype"] == "float32" else 2
    limits, lines = found["limits"], []
    if entry := found.get("prefill"):
        seconds = milliseconds(entry["oriel"]) / 1000
        share = (f"its products alone take {100 * limits['products_seconds'] / seconds:.0f} %, "
                 f"in a loop {100 * limits['loop_seconds'] / seconds:.0f} %")  # fmt: skip
        lines.append(row(f"prefill of {found['prompt']}, tokens/s", entry, found["prompt"], share))
    for batch in BATCHES:
        if entry := found.get(f"decode {batch}"):
            steps = NEW_TOKENS - 1
            speed = found["weights_read"] * bytes_each * steps / (milliseconds(entry["oriel"]) / 1000)
            share = f"{100 * speed / limits['copy']:.0f} % of the copy"
            lines.append(row(f"decode, batch {batch}, tokens/s", entry, batch * steps, share))
    if entry := found.get("picture"):
        answer = entry["answer"]
        lines.append(row(f"picture and question, {answer['tokens']} tokens, ms", entry, 0, ""))
        again = {"oriel": [{"ms": one["again_ms"]} for one in entry["oriel"]], "same": {}, "errors": {}}
        label = f"second question, {answer['reused_tokens']} of {answer['again_tokens']} reused, ms"
        lines.append(row(label, again, 0, ""))
    return lines


def table(found: dict) -> str:
    limits, depth = found["limits"], found["layers"]
    size = f"{depth} layers of the real widths, {found['vocabulary']} ids" if found["cut"] else f"all {depth} layers"
    head = ["", "oriel", "eager", "times", "compile", "times", "of the limit", "equal ids"]
    peer = found["facts"]["peer"]
    lines = [f"{found['title']}, {size}, {found['dtype']}, {peer['where']}; transformers {peer['transformers']}, "
             f"torch {peer['torch']}",
             "",
             f"Copy {limits['copy'] / 1e9:.1f} GB/s (read and written), products of a layer {limits['products_flop_s'] / 1e12:.2f} "
             f"TFLOP/s in a burst, {limits['loop_flop_s'] / 1e12:.2f} in a loop; a decode step reads {found['weights_read'] / 1e6:.0f} M weights; the prefill is "
             f"{found['prefill_flop'] / 1e12:.2f} TFLOP.",
             "", "| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]  # fmt: skip
    return "\n".join(lines + ["| " + " | ".join(cells) + " |" for cells in rows(found)])


def build(directory: Path, device: str) -> None:
    configure = ["cmake", "-S", cases.ROOT, "-B", directory, "-DORIEL_BUILD_BENCHMARKS=ON"]
    if not (directory / "CMakeCache.txt").exists():
        configure += ["-DCMAKE_BUILD_TYPE=Release", "-DORIEL_BUILD_TESTS=OFF", "-DORIEL_BUILD_EXAMPLES=OFF"]
        configure += [f"-DORIEL_CUDA={'ON' if device == 'cuda' else 'OFF'}"]
    for command in (configure, ["cmake", "--build", directory, "--target", "bench_text"]):
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", nargs="+", choices=list(text_cases.MODELS), default=list(text_cases.MODELS))
    every = ["prefill", "decode", "picture"]
    parser.add_argument("--parts", nargs="+", choices=every, default=every)
    parser.add_argument("--peers", nargs="*", choices=["eager", "compile"], default=["eager", "compile"])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N", help="on the CPU (default: all)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="behind one to warm up (default: 3)")
    kinds = ["float32", "bfloat16"]
    parser.add_argument("--dtype", choices=kinds, help="(default: float32 on the CPU, bfloat16 on a GPU)")
    parser.add_argument("--layers", type=int, metavar="N", help="(default: 4 on the CPU, all on a GPU)")
    parser.add_argument("--build", type=Path, metavar="DIR", default=cases.ROOT / "build-bench")
    parser.add_argument("--no-build", action="store_true", help="take the program as it is")
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="(default: BUILD/checkpoints/text)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON lines")
    arguments = parser.parse_args()
    load, started, begin = os.getloadavg()[0], time.strftime("%Y-%m-%d %H:%M"), time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:4.0f} s] {text}", file=sys.stderr, flush=True)

    if not arguments.no_build:
        build(arguments.build, arguments.device)
    arguments.checkpoints = arguments.checkpoints or arguments.build / "checkpoints" / "text"
    arguments.checkpoints.mkdir(parents=True, exist_ok=True)
    print("\n".join(run.machine_lines(load, started)), flush=True)
    for name in arguments.model:
        found = Bench(name, arguments, say).measure()
        if arguments.out:
            with arguments.out.open("a") as out:
                out.write(json.dumps(found) + "\n")
        print("\n" + table(found), flush=True)


if __name__ == "__main__":
    main()
