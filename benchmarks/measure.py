"""Measuring: equality first, then warm processes that take turns."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cases

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(cases.ROOT / "tests" / "parity"))

FEATURE_TOLERANCE = 1e-5  # of the largest value: what the README promises for float32
ROUNDS = 5
SECONDS_PER_TURN = 0.15  # short work is repeated within a turn, so that a switch of processes does not show
MOST_PER_TURN = 10


class PeerError(RuntimeError):
    """A peer cannot do what it was asked for."""


class Worker:
    """A process that says one JSON line when it is ready and one for every line that it is given."""

    def __init__(self, command: list, environment: dict[str, str]):
        self._process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.facts = self._read()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args[0]} ended with code {self._process.wait()}")
        return json.loads(line)

    def ask(self, request: int | dict) -> dict:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_) -> None:
        self.close()


@dataclass
class Setup:
    build: Path
    checkpoints: Path
    scratch: Path
    environment: dict[str, str]
    quick: bool
    rounds: int
    loads: int
    tower_seconds: float
    say: Callable[[str], None]

    def program(self, name: str) -> Path:
        return self.build / "benchmarks" / name

    def picture(self, size: tuple[int, int]) -> Path:
        path = self.checkpoints / "pictures" / f"{size[0]}x{size[1]}.bmp"
        if not path.exists():
            cases.write_picture(size, path)
        return path


Contenders = dict[str, Callable[[int], dict]]  # name -> function from a count of runs to lists of milliseconds


def warm_up(contenders: Contenders) -> dict[str, int]:
    """Runs each once, and returns how many of its runs make a turn."""
    seconds = {name: run(1)["ms"][0] / 1000 for name, run in contenders.items()}
    return {name: max(1, min(MOST_PER_TURN, int(SECONDS_PER_TURN / max(s, 1e-6)))) for name, s in seconds.items()}


def take_turns(contenders: Contenders, repeats: dict[str, int], rounds: int, seconds: float = float("inf")) -> dict:
    """Every contender in every round, so that a change of the machine's mood meets all of them.

    After two rounds it ends when the next one would exceed `seconds`. Returns all lists of each: {name: {key: [ms]}}.
    """
    samples: dict[str, dict[str, list[float]]] = {name: {} for name in contenders}
    begin = time.monotonic()
    for done in range(rounds):
        if done >= 2 and (time.monotonic() - begin) * (done + 1) / done > seconds:
            break
        for name, run in contenders.items():
            for key, milliseconds in run(repeats[name]).items():
                samples[name].setdefault(key, []).extend(milliseconds)
    return samples


# --- preprocessing ---


PEERS = {"torchvision": "torchvision", "pil": "pillow", "hf-processors-rs": "torchvision"}  # peer -> whose pixels


class Preprocessing:
    """One processor and one picture: which peers take part, and what their pixels are."""

    def __init__(self, setup: Setup, case: cases.ProcessorCase, size: tuple[int, int], peers: list[str]):
        self.setup, self.case, self.size, self.peers = setup, case, size, peers
        self.model = setup.checkpoints / "settings" / case.checkpoint
        cases.write_settings(case.checkpoint, self.model)
        self.picture = setup.picture(size)
        self.problems: dict[str, str] = {}  # of peers that are left out: why
        self._truth: dict[str, object] = {}

    def request(self, peer: str, threads: int, repeats: int, dump: Path | None = None) -> dict:
        return {"peer": peer, "model": str(self.model), "picture": str(self.picture), "threads": threads,
                "repeats": repeats, "dump": str(dump) if dump else None}  # fmt: skip

    def check(self, worker: Worker) -> None:
        """Compares every peer's pixels with ours, bit for bit, and leaves out those that differ."""
        import numpy as np
        from comparisons import difference

        out = self.setup.scratch / "peer.npy"
        for peer in list(self.peers):
            try:
                worker.ask(self.request(peer, threads=1, repeats=0, dump=out))
            except PeerError as error:
                self._leave_out(peer, str(error))
                continue
            pixels = np.load(out)
            out.unlink()
            if found := difference(self._ours(PEERS[peer]), pixels):
                self._leave_out(peer, f"not equal: ours {found}")
        self._truth.clear()

    def _ours(self, resize: str):
        from safetensors.numpy import load_file

        if resize not in self._truth:
            out = self.setup.scratch / "ours.safetensors"
            self.start(resize, threads=2, keep_memory=False, dump=out).close()
            self._truth[resize] = load_file(out)["pixels"]
            out.unlink()
        return self._truth[resize]

    def _leave_out(self, peer: str, why: str) -> None:
        self.problems[peer] = why
        self.peers.remove(peer)

    def start(self, resize: str, threads: int, keep_memory: bool, dump: Path | None = None) -> Worker:
        command = [self.setup.program("bench_preprocess"), "--model", self.model, "--picture", self.picture]
        command += ["--resize", resize, "--threads", threads, "--serve"]
        command += ["--keep-memory"] * keep_memory + (["--dump", dump] if dump else [])
        return Worker(command, self.setup.environment)

    def measure(self, worker: Worker, threads: int, keep_memory: bool) -> dict:
        peers = [p for p in self.peers if p != "pil" or (threads == 1 and not keep_memory)]  # it has one thread
        contenders = {
            peer: lambda count, peer=peer: worker.ask(self.request(peer, threads, count)) for peer in peers
        }  # fmt: skip
        ours = {name: self.start(name, threads, keep_memory) for name in {"torchvision", *(PEERS[p] for p in peers)}}
        try:
            for name, process in ours.items():
                contenders[f"oriel {name}"] = process.ask
            samples = take_turns(contenders, warm_up(contenders), self.setup.rounds)
            facts = ours["torchvision"].facts
        finally:
            for process in ours.values():
                process.close()
        return {"title": self.case.title, "large": self.case.large, "picture": list(self.size), "threads": threads,
                "memory": "kept" if keep_memory else "fresh", "facts": facts, "samples": samples,
                "problems": self.problems}  # fmt: skip


def preprocessing(setup: Setup, threads: list[int]) -> dict:
    with (
        Worker([sys.executable, HERE / "peers.py", "preprocess"], setup.environment) as fresh,
        Worker([sys.executable, HERE / "peers.py", "preprocess", "--keep-memory"], setup.environment) as kept,
    ):
        peers = [p for p in PEERS if p != "hf-processors-rs" or fresh.facts["versions"][p]]
        results = []
        for case in cases.PROCESSORS:
            for size in cases.PROCESSOR_PICTURES[: 1 if setup.quick else None]:
                setup.say(f"{case.title}, {size[0]} x {size[1]}")
                work = Preprocessing(setup, case, size, list(peers))
                work.check(fresh)
                for count in threads:
                    for worker, keep_memory in ((fresh, False), (kept, True)):
                        results.append(work.measure(worker, count, keep_memory))
        return {"preprocess": results, "versions": fresh.facts["versions"]}


# --- towers ---


def make_checkpoint(setup: Setup, name: str) -> Path:
    """Writes the random weights unless the folder holds exactly what would be written."""
    directory = setup.checkpoints / ("quick" if setup.quick else "full") / name
    recipe = json.dumps([cases.checkpoint(name, setup.quick)[:2], cases.SEED], sort_keys=True)
    mark = directory / "recipe.txt"
    if not mark.exists() or mark.read_text() != recipe:
        setup.say(f"making random weights in {directory} (once)")
        mark.unlink(missing_ok=True)
        command = [sys.executable, HERE / "cases.py", name, directory, *(["--quick"] if setup.quick else [])]
        subprocess.run(command, check=True, env=setup.environment)
        mark.write_text(recipe)
    return directory


def read_once(path: Path) -> int:
    """Brings a file into the page cache; returns its size."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass
    return path.stat().st_size


def relative_distance(a, b) -> float:
    """The largest difference in units of the largest magnitude of b; NaN if either holds one."""
    import numpy as np

    if a.shape != b.shape:
        raise ValueError(f"rows {list(a.shape)}, expected {list(b.shape)}")
    return float(np.abs(a.astype(np.float64) - b).max() / np.abs(b).max())


def tower(setup: Setup, name: str, threads: int) -> dict:
    import numpy as np
    from safetensors.numpy import load_file

    case = cases.TOWERS[name]
    model, picture = make_checkpoint(setup, name), setup.picture(case.size)
    setup.say(f"{case.title}, {case.size[0]} x {case.size[1]}")
    file_bytes = read_once(model / "model.safetensors")
    common = ["--model", model, "--picture", picture, "--threads", threads, "--loads", setup.loads]
    dump = setup.scratch / "ours.safetensors"
    result = {"name": name, "title": case.title, "picture": list(case.size), "goal": case.goal, "threads": threads,
              "file_bytes": file_bytes}  # fmt: skip
    with (
        Worker([setup.program("bench_tower"), *common, "--serve", "--dump", dump], setup.environment) as ours,
        Worker([sys.executable, HERE / "peers.py", "tower", *common], setup.environment) as peer,
    ):
        rows, first = {"oriel": load_file(dump)["rows"]}, {}
        for path in ("sdpa", "eager"):
            out = setup.scratch / "peer.npy"
            first[path] = peer.ask({"peer": path, "repeats": 1, "dump": str(out)})["ms"][0]
            rows[path] = np.load(out)
        distances = {path: relative_distance(rows["oriel"], rows[path]) for path in first}
        result |= {"oriel": ours.facts, "transformers": peer.facts | {"first_ms": [first["sdpa"]]},
                   "distances": distances, "peer_distance": relative_distance(rows["eager"], rows["sdpa"])}  # fmt: skip
        if not all(distance <= FEATURE_TOLERANCE for distance in distances.values()):  # also if NaN
            return result | {"problem": f"rows differ by {distances} of their scale", "samples": {}}
        # sdpa is transformers' default. Eager attention takes part unless it has lost already.
        contenders: Contenders = {"oriel": ours.ask}
        for path in first:
            if path == "sdpa" or first[path] < 1.2 * first["sdpa"]:
                contenders[path] = lambda count, path=path: peer.ask({"peer": path, "repeats": count})
        turn = dict.fromkeys(contenders, 1)  # all are warm already
        result["samples"] = take_turns(contenders, turn, 2 * setup.rounds, setup.tower_seconds)
        result["samples"].setdefault("eager", {"ms": [first["eager"]]})
    return result
