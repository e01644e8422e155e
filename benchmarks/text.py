#!/usr/bin/env python3
"""Language models: oriel against transformers' generate, from the same random weights.

    python benchmarks/text.py [--device cpu|cuda] [--model NAME...] [--parts prefill decode picture] [--threads N]
                              [--rounds N] [--layers N] [--dtype float32|bfloat16] [--peers eager compile]
                              [--compile-seconds N] [--request-seconds N] [--build DIR] [--out FILE.jsonl]

On a GPU the models are as large as the released ones, in bfloat16. On the CPU they are cut to a few layers of the
real widths and to 32,768 ids, in float32 by default. Greedy ids are compared, and said to differ where they do: in
bfloat16 two tokens of a random model may be too near to each other. `eager` is generate as it is (sdpa attention),
`compile` generate with a static cache, which transformers compiles for decoding (on the CPU only if told to, as it is
here): for each batch in a process of its own, side by side, and before any of these is timed. A peer that takes
longer than its limit, or ends, is given up for what it was asked, and the reason stands in the table. Figures are
told as they come, with a Markdown table a model behind its last; --out gets every figure. What failed is told again
at the end, and the exit code is 1 then.
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
from gpu_compiled import Lines

NEW_TOKENS = 64
PROMPT = 128  # of decode
BATCHES = (1, 8)
REQUEST_SECONDS = {"cpu": 3600, "cuda": 90}
LOAD_SECONDS = 240  # of a model


class NoAnswer(Exception):
    """Why there is none. The program has ended."""


class Server:
    """A program that answers lines with JSON lines, each within so many seconds. When it did not, or has ended, the
    next request starts it anew."""

    def __init__(self, command: list, seconds: float):
        self.command, self.seconds = [str(part) for part in command], seconds
        self.facts: dict = {}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.lines = Lines(self.process.stdout)
        self.is_ready = False

    def wait_until_ready(self) -> None:
        if self.process is None:
            self.start()
        if not self.is_ready:
            self.facts = self.read(LOAD_SECONDS)
            self.is_ready = True

    def say(self, *words) -> None:
        try:
            self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        except BrokenPipeError:
            pass  # its end is noticed where its answer is missing

    def read(self, seconds: float) -> dict:
        end = time.monotonic() + seconds
        while (line := self.lines.next(end - time.monotonic())) and not line.startswith(b"{"):
            print(line.decode(errors="replace"), file=sys.stderr, flush=True)  # of a library that talks
        if line:
            return json.loads(line)
        name = Path(self.command[1] if self.command[0] == sys.executable else self.command[0]).name
        if line is None:
            self.end()
            raise NoAnswer(f"{name} took over {seconds:.0f} s")
        raise NoAnswer(f"{name} ended with {self.end()}")

    def ask(self, *words) -> dict:
        self.wait_until_ready()
        self.say(*words)
        return self.read(self.seconds)

    def end(self) -> int | None:
        """The exit code, if it ended by itself."""
        if self.process is None:
            return None
        try:
            self.process.stdin.close()
            code = self.process.wait(0.5)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
            code = self.process.wait()
        self.process.stdout.close()
        self.process = None
        return code


class Bench:
    def __init__(self, name: str, arguments: argparse.Namespace, say):
        self.name, self.arguments, self.say = name, arguments, say
        self.title, _, _, _, mark = text_cases.MODELS[name]
        self.on_cpu = arguments.device == "cpu"
        self.layers = arguments.layers or (4 if self.on_cpu else None)
        self.dtype = arguments.dtype or ("float32" if self.on_cpu else "bfloat16")
        self.count = text_cases.counts(name, self.layers)
        self.peers = arguments.peers
        self.prompt = 2048
        self.directory = self.checkpoint()
        texts = [f"{mark}{question}" for question in text_cases.QUESTIONS]
        self.picture = arguments.checkpoints / "picture.jpg"
        cases.write_picture((504, 504) if self.on_cpu else (1024, 768), self.picture)
        common = ["--model", self.directory, "--device", arguments.device, "--dtype", self.dtype]
        common += ["--threads", arguments.threads]
        ours = [arguments.build / "benchmarks" / "bench_text", *common, "--first-id", text_cases.FIRST_ID]
        ours += ["--tower"] if "picture" in arguments.parts else []
        self.ours = Server([*ours, "--text", texts[0], "--text", texts[1]], arguments.request_seconds)
        self.peer_command = [sys.executable, Path(__file__).parent / "text_peer.py", *common, "--text", texts[0]]
        self.peer = Server(self.peer_command, arguments.request_seconds)
        self.compiled: dict[int, Server] = {}
        self.problems: list[str] = []

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
        if "error" in found:
            raise NoAnswer(found["error"])
        layer = sum(found["seconds"][shape] for shape in shapes.values())
        layers = self.count["layers"] - 1 + found["seconds"][shapes["qkv"]] / layer
        flop = 2 * self.prompt * self.count["layer"]
        return {"copy": found["copy"], "products_seconds": layer * layers, "products_flop_s": flop / layer,
                "loop_seconds": found["in_a_loop"] * layers, "loop_flop_s": flop / found["in_a_loop"]}  # fmt: skip

    def compile_decoding(self) -> dict[int, str]:
        """Starts a process for each batch and has it compile its decoding; batch -> why it could not."""
        reasons: dict[int, str] = {}
        end = time.monotonic() + LOAD_SECONDS + self.arguments.compile_seconds
        self.compiled = {batch: Server(self.peer_command, self.arguments.request_seconds) for batch in BATCHES}

        def give_up(batch: int, reason: str) -> None:
            reasons[batch] = reason
            self.compiled.pop(batch).end()

        for step in ("load", "compile"):
            if step == "compile":
                end = time.monotonic() + self.arguments.compile_seconds
                for batch, server in self.compiled.items():
                    server.say("decode", "compile", batch, PROMPT, NEW_TOKENS, 0)
            for batch, server in list(self.compiled.items()):
                try:
                    if step == "load":
                        server.wait_until_ready()
                    elif "error" in (answer := server.read(max(0.0, end - time.monotonic()))):
                        give_up(batch, answer["error"])
                except NoAnswer as problem:
                    give_up(batch, f"not compiled: {problem}")
        return reasons

    def turns(self, what: str, ours: tuple, peers: dict[str, tuple], salted: bool = True) -> dict:
        """Every contender in each round, a first round unmeasured; each round has a prompt of its own. A peer is a
        server and what it is asked, or None and the reason."""
        result: dict = {"what": what, "oriel": [], **{kind: [] for kind in peers}, "same": {}, "errors": {}}
        result["errors"] = {kind: words for kind, (server, words) in peers.items() if server is None}
        for turn in range(self.arguments.rounds + 1):
            salt = (turn,) if salted else ()
            mine = self.ours.ask(*ours, *salt)
            result["answer"] = {key: value for key, value in mine.items() if key != "ids"}
            if turn > 0:
                result["oriel"].append(mine)
            for kind, (server, words) in peers.items():
                if kind not in result["errors"]:
                    self.ask_peer(kind, server, (*words, *salt), mine, turn > 0, result)
        self.say(f"{self.title}: {what}: {in_milliseconds(result, peers)}")
        self.problems += [f"{self.title}: {what}, {kind}: {why}" for kind, why in result["errors"].items()]
        return result

    @staticmethod
    def ask_peer(kind: str, server: Server, words: tuple, mine: dict, counts: bool, result: dict) -> None:
        try:
            theirs = server.ask(*words)
        except NoAnswer as problem:
            theirs = {"error": str(problem)}
        if "error" in theirs:
            result["errors"][kind] = theirs["error"]
        elif counts:
            result[kind].append(theirs)
            result["same"].setdefault(kind, []).append(leading_equal(mine["ids"], theirs["ids"]))

    def decode(self, found: dict) -> None:
        reasons = {}
        if "compile" in self.peers:
            reasons = self.compile_decoding()
            self.say(f"{self.title}: compiled for batches {', '.join(map(str, self.compiled)) or 'none'}")
        for batch in BATCHES:
            words = (batch, PROMPT, NEW_TOKENS)
            peers = {"eager": (self.peer, ("decode", "eager", *words))} if "eager" in self.peers else {}
            if "compile" in self.peers:
                server = self.compiled.get(batch)
                peers["compile"] = (server, ("decode", "compile", *words) if server else reasons[batch])
            found[f"decode {batch}"] = self.turns(f"decode, batch {batch}", ("decode", *words), peers)

    def measure(self) -> dict:
        """All that is there when something fails, which stands in `problems` then."""
        found: dict = {}
        try:
            self.measure_parts(found)
        except NoAnswer as problem:
            self.problems.append(f"{self.title}: {problem}")
            self.say(self.problems[-1])
        for server in (self.ours, self.peer, *self.compiled.values()):
            server.end()
        return {"model": self.name, "title": self.title, "layers": self.count["layers"], "dtype": self.dtype,
                "vocabulary": self.count["vocabulary"], "device": self.arguments.device, "prompt": self.prompt,
                "weights_read": self.count["read"], "prefill_flop": text_cases.prefill_flop(self.count, self.prompt),
                "cut": self.layers is not None, "facts": {"oriel": self.ours.facts, "peer": self.peer.facts},
                "problems": self.problems, **found}  # fmt: skip

    def measure_parts(self, found: dict) -> None:
        """Compiled decoding comes last: it takes the longest."""
        parts = self.arguments.parts
        self.ours.wait_until_ready()
        self.peer.wait_until_ready()
        self.say("oriel and transformers are ready")
        try:
            found["limits"] = self.limits()
            self.say(f"limits of the machine: {limits_line(found['limits'])}")
        except NoAnswer as problem:
            self.problems.append(f"{self.title}: limits of the machine: {problem}")
        if "prefill" in parts:
            words = ("prefill", self.prompt)
            eager = {"eager": (self.peer, words)} if "eager" in self.peers else {}
            found["prefill"] = self.turns(f"prefill, {self.prompt} tokens", words, eager)
        if "picture" in parts:
            words = ("picture", self.picture)
            eager = {"eager": (self.peer, words)} if "eager" in self.peers else {}
            found["picture"] = self.turns("picture and question", words, eager, salted=False)
        if "decode" in parts:
            self.decode(found)


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
    limits, lines = found.get("limits"), []
    if entry := found.get("prefill"):
        ms = milliseconds(entry["oriel"])
        share = "-"
        if limits:
            share = f"{100_000 * limits['products_seconds'] / ms:.0f} %, {100_000 * limits['loop_seconds'] / ms:.0f} %"
        lines.append(row(f"prefill of {found['prompt']}, tokens/s", entry, found["prompt"], share))
    for batch in BATCHES:
        if entry := found.get(f"decode {batch}"):
            steps, ms = NEW_TOKENS - 1, milliseconds(entry["oriel"])
            speed = found["weights_read"] * bytes_each * steps / (ms / 1000)
            share = f"{100 * speed / limits['copy']:.0f} %" if limits else "-"
            lines.append(row(f"decode, batch {batch}, tokens/s", entry, batch * steps, share))
    if entry := found.get("picture"):
        answer = entry["answer"]
        lines.append(row(f"picture and question, {answer['tokens']} tokens, ms", entry, 0, ""))
        again = {"oriel": [{"ms": [one["again_ms"][0]]} for one in entry["oriel"]], "same": {}, "errors": {}}
        label = f"second question, {answer['reused_tokens']} of {answer['again_tokens']} reused, ms"
        lines.append(row(label, again, 0, ""))
    return lines


def late_tokens(found: dict) -> list[str]:
    """Of a peer whose first steps take longer, as where a CUDA graph is recorded for each answer's cache."""
    said, steps = [], 0
    for batch in BATCHES:
        for kind in ("eager", "compile"):
            late = [one for one in found.get(f"decode {batch}", {}).get(kind, []) if "late_ms" in one]
            if late:
                steps = late[0]["late_steps"]
                speed = statistics.median(1000 * batch * steps / one["late_ms"] for one in late)
                said.append(f"{kind}, batch {batch}: {speed:.1f}")
    return ["", f"Tokens/s of the last {steps} steps alone: {'; '.join(said)}."] if said else []


def limits_line(limits: dict) -> str:
    return (f"copy {limits['copy'] / 1e9:.1f} GB/s (read and written), products of a layer "
            f"{limits['products_flop_s'] / 1e12:.2f} TFLOP/s in a burst, {limits['loop_flop_s'] / 1e12:.2f} in a loop")


def table(found: dict) -> str:
    limits, depth = found.get("limits"), found["layers"]
    size = f"{depth} layers of the real widths, {found['vocabulary']} ids" if found["cut"] else f"all {depth} layers"
    of_limit = "of the limit (prefill: its products alone, in a burst and in a loop; decode: the speed of a copy)"
    head = ["", "oriel", "eager", "times", "compile", "times", of_limit, "equal ids"]
    peer = found["facts"]["peer"]
    told = limits_line(limits) if limits else "limits of the machine unknown"
    lines = [f"{found['title']}, {size}, {found['dtype']}, {peer.get('where')}; transformers "
             f"{peer.get('transformers')}, torch {peer.get('torch')}",
             "",
             f"{told[0].upper()}{told[1:]}; a decode step reads {found['weights_read'] / 1e6:.0f} M weights; the "
             f"prefill is {found['prefill_flop'] / 1e12:.2f} TFLOP.",
             "", "| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]  # fmt: skip
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows(found)), *late_tokens(found)])


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
    parser.add_argument("--dtype", choices=["float32", "bfloat16"],
                        help="(default: float32 on the CPU, bfloat16 on a GPU)")  # fmt: skip
    parser.add_argument("--layers", type=int, metavar="N", help="(default: 4 on the CPU, all on a GPU)")
    parser.add_argument("--compile-seconds", type=float, default=150, metavar="N",
                        help="limit of the batches that compile side by side (default: 150)")  # fmt: skip
    parser.add_argument("--request-seconds", type=float, metavar="N",
                        help="limit of every other request (default: 90 on a GPU)")  # fmt: skip
    parser.add_argument("--build", type=Path, metavar="DIR", default=cases.ROOT / "build-bench")
    parser.add_argument("--no-build", action="store_true", help="take the program as it is")
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="(default: BUILD/checkpoints/text)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON lines")
    arguments = parser.parse_args()
    arguments.request_seconds = arguments.request_seconds or REQUEST_SECONDS[arguments.device]
    load, started, begin = os.getloadavg()[0], time.strftime("%Y-%m-%d %H:%M"), time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:4.0f} s] {text}", file=sys.stderr, flush=True)

    if not arguments.no_build:
        build(arguments.build, arguments.device)
    arguments.checkpoints = arguments.checkpoints or arguments.build / "checkpoints" / "text"
    arguments.checkpoints.mkdir(parents=True, exist_ok=True)
    print("\n".join(run.machine_lines(load, started)), flush=True)
    problems = []
    for name in arguments.model:
        found = Bench(name, arguments, say).measure()
        problems += found["problems"]
        if arguments.out:
            with arguments.out.open("a") as out:
                out.write(json.dumps(found) + "\n")
        print("\n" + table(found), flush=True)
    if problems:
        print("\n" + "\n".join(f"FAILED: {problem}" for problem in problems))
        sys.exit(1)


if __name__ == "__main__":
    main()
