"""transformers' tower under torch.compile: one static shape a call, each within a limit of time.

Runs in processes of their own, since a compilation can't be stopped otherwise: python benchmarks/gpu_compiled.py TOWER
DIRECTORY, calls as JSON on stdin, one JSON line a call on stdout.
"""

from __future__ import annotations

import json
import logging
import selectors
import subprocess
import sys
import time
from pathlib import Path

MODES = {"qwen2_5_vl": "default"}  # CUDA graphs fail over its windows of many lengths
MODE = "reduce-overhead"


def measure(tower: str, directory: Path, calls: dict, repeats: int, seconds: float) -> dict[str, dict]:
    """call -> {"ms": [...]} or {"reason": why there are none}; a "note" where CUDA graphs were left out."""
    results: dict[str, dict] = {}
    while left := {call: pictures for call, pictures in calls.items() if call not in results}:
        run_worker(tower, directory, left, repeats, seconds, results)
    return results


def run_worker(tower: str, directory: Path, calls: dict, repeats: int, seconds: float, results: dict) -> None:
    """Adds results until all calls are done, the worker dies, or one call takes too long."""
    command = [sys.executable, __file__, tower, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as worker:
        worker.stdin.write(json.dumps({"calls": calls, "repeats": repeats}).encode())
        worker.stdin.close()
        lines = Lines(worker.stdout)
        try:
            if not lines.next(seconds):
                results.update(dict.fromkeys(calls, {"reason": "transformers' tower did not load"}))
                return
            for call in calls:
                line = lines.next(seconds)
                if not line:
                    results[call] = {"reason": f"took over {seconds:.0f} s" if line is None else "the process ended"}
                    return
                results[call] = json.loads(line)
        finally:
            worker.kill()


class Lines:
    """Lines of a pipe, each waited for at most so long: None if none came, nothing if no more will."""

    def __init__(self, pipe):
        self.pipe, self.rest = pipe, b""
        self.selector = selectors.DefaultSelector()
        self.selector.register(pipe, selectors.EVENT_READ)

    def next(self, seconds: float) -> bytes | None:
        end = time.monotonic() + seconds
        while b"\n" not in self.rest:
            if not self.selector.select(max(0.0, end - time.monotonic())):
                return None
            if not (some := self.pipe.read(1 << 16)):
                return b""
            self.rest += some
        line, self.rest = self.rest.split(b"\n", 1)
        return line


class CudaGraphNotes(logging.Handler):
    """What torch says about graphs that it does not make."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        logging.getLogger("torch._inductor").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "cudagraph" in text.lower():
            self.found.append(text.splitlines()[0][:200])


def answer(peer, tower: str, pictures: list, repeats: int, notes: CudaGraphNotes) -> dict:
    import gpu

    torch = peer.torch
    torch._dynamo.reset()
    notes.found.clear()
    try:
        inputs = peer.inputs([tuple(size) for size in pictures])
        work = torch.compile(peer.features, mode=MODES.get(tower, MODE), dynamic=False)
        result = {"ms": gpu.timed(torch, lambda: work(inputs), 3, repeats)}
    except Exception as error:  # whatever the peer raises, such as out of memory
        result = {"reason": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"}
    torch.cuda.empty_cache()
    return {**result, "note": notes.found[0]} if notes.found else result


def main() -> None:
    import gpu

    tower, directory = sys.argv[1], Path(sys.argv[2])
    wanted = json.load(sys.stdin)
    peer = gpu.Peer(tower, directory)
    peer.load(peer.torch.bfloat16)
    notes = CudaGraphNotes()
    print("loaded", flush=True)
    for pictures in wanted["calls"].values():
        print(json.dumps(answer(peer, tower, pictures, wanted["repeats"], notes)), flush=True)


if __name__ == "__main__":
    main()
