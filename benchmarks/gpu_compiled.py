"""transformers' tower under torch.compile: one static shape a call, each in a process of its own.

Several calls of a tower are compiled side by side, each within a limit of time (a compilation can't be stopped but with
its process), and timed one by one when all of these are ready: python benchmarks/gpu_compiled.py TOWER DIRECTORY, the
call as one JSON line on stdin, a JSON line when it is compiled; "go" on stdin, a JSON line with the milliseconds.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

MODES = {"qwen2_5_vl": "default"}  # CUDA graphs fail over its windows of many lengths
MODE = "reduce-overhead"
SECONDS_TO_TIME = 60.0


def measure(
    tower: str, directory: Path, calls: dict, repeats: int, seconds: float, together: int
) -> dict[str, dict]:
    """call -> {"ms": [...]} or {"reason": why there are none}; a "note" where CUDA graphs were left out."""
    results: dict[str, dict] = {}
    waiting = iter(calls.items())
    while some := list(islice(waiting, together)):
        workers = {call: Worker(tower, directory, pictures, repeats) for call, pictures in some}
        end = time.monotonic() + seconds
        failed = {call: reason for call, worker in workers.items() if (reason := worker.compile_until(end, seconds))}
        for call, worker in workers.items():
            results[call] = failed.get(call) or worker.time_alone()
            worker.end()
    return results


class Worker:
    """The process of one call."""

    def __init__(self, tower: str, directory: Path, pictures: list, repeats: int):
        command = [sys.executable, __file__, tower, str(directory)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.lines = Lines(self.process.stdout)
        self.say(json.dumps({"pictures": pictures, "repeats": repeats}))

    def say(self, text: str) -> None:
        try:
            self.process.stdin.write(f"{text}\n".encode())
        except BrokenPipeError:
            pass  # its end is noticed where its answer is missing

    def compile_until(self, end: float, seconds: float) -> dict | None:
        """Why there is no compiled call; ended then, so that it does not disturb the others."""
        line = self.lines.next(end - time.monotonic())
        if line and "reason" not in (answer := json.loads(line)):
            return None
        self.end()
        if line:
            return answer
        return {"reason": f"took over {seconds:.0f} s" if line is None else "the process ended"}

    def time_alone(self) -> dict:
        self.say("go")
        line = self.lines.next(SECONDS_TO_TIME)
        return json.loads(line) if line else {"reason": "compiled, but gave no times"}

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


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


def answer(work) -> dict:
    """What `work` returns, or why it failed."""
    try:
        return work()
    except Exception as error:  # whatever the peer raises, such as out of memory
        return {"reason": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"}


def main() -> None:
    tower, directory = sys.argv[1], Path(sys.argv[2])
    wanted = json.loads(sys.stdin.readline())
    # Other calls of the tower share kernels with this one, and a second run finds those of the first.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"oriel-torch-compile-{os.getuid()}"))
    import gpu

    peer = gpu.Peer(tower, directory)
    torch = peer.torch
    notes = CudaGraphNotes()
    ready: dict = {}

    def compile_call() -> dict:
        peer.load(torch.bfloat16)
        inputs = peer.inputs([tuple(size) for size in wanted["pictures"]])
        work = torch.compile(peer.features, mode=MODES.get(tower, MODE), dynamic=False)
        ready["call"] = lambda: work(inputs)
        gpu.timed(torch, ready["call"], 0, 3)
        return {}

    def time_call() -> dict:
        return {"ms": gpu.timed(torch, ready["call"], 3, wanted["repeats"])}

    print(json.dumps(answer(compile_call)), flush=True)
    if sys.stdin.readline().strip() != "go":
        return
    result = answer(time_call)
    print(json.dumps({**result, "note": notes.found[0]} if notes.found else result), flush=True)


if __name__ == "__main__":
    main()
