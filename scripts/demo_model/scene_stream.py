"""Batches of scenes from stream_scenes: pixels, objects and conversations, made ready on threads of their own."""

from __future__ import annotations

import dataclasses
import queue
import random
import re
import subprocess
import threading
from dataclasses import dataclass

import numpy as np
import torch

from families import CELL, Family

KINDS = ["describe", "count", "colour", "shape", "where", "read", "which", "move"]
MAX_OBJECTS, OBJECT_VALUES = 5, 7
IGNORED = -100
DIGIT = re.compile(r"(\d)")


@dataclass
class Request:
    seed: int
    scenes: int
    pictures: int
    width: int
    height: int
    questions: int
    weights: list[int]
    clip: bool = False
    max_shapes: int = 4
    boxes: bool = False

    def line(self) -> str:
        numbers = [self.seed, self.scenes, self.pictures, int(self.clip), self.width, self.height]
        return " ".join(map(str, [*numbers, self.max_shapes, int(self.boxes), self.questions, *self.weights])) + "\n"


@dataclass
class Scenes:
    pixels: np.ndarray  # uint8 [scenes, pictures, height, width, 3]
    objects: np.ndarray  # int32 [scenes, pictures, MAX_OBJECTS, OBJECT_VALUES]
    turns: list[list[tuple[str, str, str]]]  # kind, question, answer


class Renderer:
    """One running stream_scenes."""

    def __init__(self, program: str):
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1 << 20)

    def draw(self, request: Request) -> Scenes:
        self._process.stdin.write(request.line().encode())
        self._process.stdin.flush()
        text_bytes = int(self._read(8).view(np.int64)[0])
        shape = (request.scenes, request.pictures)
        pixels = self._read(int(np.prod(shape)) * request.height * request.width * 3)
        objects = self._read(int(np.prod(shape)) * MAX_OBJECTS * OBJECT_VALUES * 4).view(np.int32)
        text = self._read(text_bytes).tobytes().decode()
        turns = [[tuple(t.split("\x1f")) for t in line.split("\t") if t] for line in text.split("\n")[:-1]]
        return Scenes(
            pixels.reshape(*shape, request.height, request.width, 3),
            objects.reshape(*shape, MAX_OBJECTS, OBJECT_VALUES),
            turns,
        )

    def _read(self, count: int) -> np.ndarray:
        out = np.empty(count, np.uint8)
        done = 0
        while done < count:
            got = self._process.stdout.readinto(memoryview(out)[done:])
            if not got:
                raise RuntimeError("stream_scenes ended")
            done += got
        return out

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


@dataclass
class Batch:
    """Arrays, or tensors after `tensors_of`."""

    pixels: np.ndarray  # uint8 [scenes, pictures, native height, native width, 3]
    objects: np.ndarray
    width: int  # the size that the model sees
    height: int
    clip: bool
    ids: np.ndarray  # int64 [scenes, tokens]: prefix and conversations
    row_places: np.ndarray  # int64: where the rows stand
    positions: np.ndarray  # int64 [3, tokens]
    answer_places: np.ndarray  # int64 [scenes, K]: what predicts a token of an answer
    targets: np.ndarray  # int64 [scenes, K], or IGNORED
    weights: np.ndarray  # float32 [scenes, K]
    turns: np.ndarray  # int64 [scenes, K]: number of the turn
    kinds: np.ndarray  # int64 [scenes, turns]: of each turn, or -1


class Conversations:
    """Token ids of prefixes and turns, remembered: there are only so many different texts."""

    def __init__(self, family: Family):
        self.family = family
        self._prompts: dict[tuple[bool, str], list[int]] = {}
        self._pieces: dict[str, list[int]] = {}
        self._prefixes: dict[tuple, tuple] = {}

    def prefix(self, pictures: int, rows: int, columns: int, slices: int, clip: bool):
        """(ids, places of rows, positions [3, n], next position) of what stands before the first question."""
        key = (pictures, rows, columns, slices, clip)
        if key not in self._prefixes:
            family = self.family
            count = 1 if clip else pictures
            text = family.prompt.begin + family.placeholder(rows, columns, slices, clip) * count
            ids = np.array(family.tokenizer.encode(text), np.int64)
            token = family.tokenizer.id("<|video_pad|>" if clip else family.row_token)
            places = np.flatnonzero(ids == token)
            assert len(places) == count * slices * rows * columns, (len(places), key)
            self._prefixes[key] = (ids, places, *self._positions(ids, places, rows, columns, slices))
        return self._prefixes[key]

    def _positions(self, ids, places, rows, columns, slices):
        if self.family.name != "qwen2_vl":
            return np.tile(np.arange(len(ids)), (3, 1)), len(ids)
        positions = np.zeros((3, len(ids)), np.int64)
        current, i, starts = 0, 0, set(places[:: slices * rows * columns].tolist())
        while i < len(ids):
            if i not in starts:
                positions[:, i] = current
                current, i = current + 1, i + 1
                continue
            grid = np.stack(np.meshgrid(np.arange(slices), np.arange(rows), np.arange(columns), indexing="ij"))
            count = slices * rows * columns
            positions[:, i : i + count] = current + grid.reshape(3, -1)
            current, i = current + max(rows, columns), i + count
        # What is generated goes on from the last position, which the text behind the rows has.
        return positions, current

    def _prompt(self, first: bool, question: str) -> list[int]:
        key = (first, question)
        if key not in self._prompts:
            prompt = self.family.prompt
            text = ("" if first else prompt.between_turns) + question + prompt.after_question
            self._prompts[key] = self.family.tokenizer.encode(text)
        return self._prompts[key]

    def _answer(self, answer: str) -> list[int]:
        text = answer + self.family.prompt.after_answer
        if "<|box_start|>" not in answer:
            return self._piece(text)
        # No two boxes are alike, but every digit is a token of its own, and so what stands between can be remembered.
        return [token for piece in DIGIT.split(text) if piece for token in self._piece(piece)]

    def _piece(self, text: str) -> list[int]:
        if text not in self._pieces:
            self._pieces[text] = self.family.tokenizer.encode(text)
        return self._pieces[text]

    def batch(self, scenes: Scenes, width: int, height: int, clip: bool, budget: int) -> Batch:
        """As many turns of each scene as fit into `budget` tokens, in one padded batch."""
        pictures = scenes.pixels.shape[1]
        slices = pictures // 2 if clip else 1
        head, row_places, head_positions, next_position = self.prefix(
            pictures, height // CELL, width // CELL, slices, clip
        )
        texts, places, targets, weights, numbers, kinds = [], [], [], [], [], []
        for turns in scenes.turns:
            text: list[int] = []
            place: list[int] = []
            target: list[int] = []
            weight: list[float] = []
            number: list[int] = []
            kind: list[int] = []
            for turn_kind, question, answer in turns:
                prompt, reply = self._prompt(not text, question), self._answer(answer)
                if text and len(text) + len(prompt) + len(reply) > budget:
                    break
                begin = len(head) + len(text) + len(prompt) - 1
                place.extend(range(begin, begin + len(reply)))
                target.extend(reply)
                weight.extend([len(reply) ** -0.5] * len(reply))
                number.extend([len(kind)] * len(reply))
                kind.append(KINDS.index(turn_kind))
                text += prompt
                text += reply
            texts.append(text)
            places.append(place)
            targets.append(target)
            weights.append(weight)
            numbers.append(number)
            kinds.append(kind)
        length = _multiple(len(head) + max(map(len, texts)), 16)
        ids = np.zeros((len(texts), length), np.int64)
        ids[:, : len(head)] = head
        for i, text in enumerate(texts):
            ids[i, len(head) : len(head) + len(text)] = text
        tail = np.arange(length - len(head)) + next_position
        positions = np.concatenate((head_positions, np.tile(tail, (3, 1))), axis=1)
        size = _multiple(max(map(len, places)), 16)
        return Batch(
            scenes.pixels, scenes.objects, width, height, clip, ids, row_places, positions,
            _padded(places, size, 0, np.int64), _padded(targets, size, IGNORED, np.int64),
            _padded(weights, size, 0, np.float32), _padded(numbers, size, 0, np.int64),
            _padded(kinds, max(1, max(map(len, kinds))), -1, np.int64),
        )  # fmt: skip


def _multiple(value: int, of: int) -> int:
    return -(-value // of) * of


def _padded(lists: list[list], size: int, fill, dtype) -> np.ndarray:
    out = np.full((len(lists), size), fill, dtype)
    for row, values in zip(out, lists):
        row[: len(values)] = values
    return out


@dataclass(frozen=True)
class Plan:
    """How large batches are, and what is asked when."""

    tokens: int  # in a batch, about
    budget: int  # tokens of a conversation behind its pictures
    smallest_side: int = 84
    smallest_pixels: int = 112 * 112


def picture_sizes(family: Family, plan: Plan) -> list[tuple[int, int]]:
    """(width, height) as the model may see them."""
    if family.square:
        return [(family.square, family.square)]
    sides = range(plan.smallest_side, family.max_side + 1, CELL)
    return [
        (w, h)
        for w in sides
        for h in sides
        if plan.smallest_pixels <= w * h <= family.max_pixels and max(w, h) <= 2.7 * min(w, h)
    ]


def kind_weights(progress: float, family: Family) -> list[int]:
    """Colours and numbers first; later more of what takes long to learn."""
    #        describe count colour shape where read which move
    if progress < 0.08:
        return [1, 4, 5, 3, 2, 3, 1, 1]
    return [3, 5, 3, 3 if family.boxes else 2, 6 if family.boxes else 4, 3, 6, 2]


def native_size(width: int, height: int, family: Family, rng: random.Random) -> tuple[int, int]:
    """A size that the processor may have made this one from: often itself, since drawing exact pixels costs least."""
    if family.square:
        return rng.randrange(112, 337), rng.randrange(112, 337)
    if rng.random() < 0.5:
        return width, height
    scale = rng.choice([1.0, 1.0, rng.uniform(0.8, 1.6)])
    return tuple(max(96, round(side * scale) + rng.randrange(-13, 14)) for side in (width, height))


def next_request(family: Family, plan: Plan, progress: float, rng: random.Random):
    """(request, width, height, clip)."""
    draw = rng.random()
    clip = family.clips and draw < 0.12
    several = not clip and progress > 0.06 and draw < 0.4
    pictures = rng.choice([4, 6]) if clip else rng.choice([2, 2, 3]) if several else 1
    width, height = rng.choice(picture_sizes(family, plan))
    native = native_size(width, height, family, rng)
    if family.square:
        while max(native) > 2.6 * min(native):
            native = native_size(width, height, family, rng)
    slices = pictures // 2 if clip else pictures
    tokens = slices * (width // CELL) * (height // CELL) + plan.budget + 16
    scenes = max(2, plan.tokens // tokens // 8 * 8)
    request = Request(
        seed=rng.getrandbits(62), scenes=scenes, pictures=pictures, width=native[0], height=native[1], questions=10,
        weights=kind_weights(progress, family), clip=clip, boxes=family.boxes,
        max_shapes=2 if progress < 0.03 else 4,
    )  # fmt: skip
    return request, width, height, clip


def tensors_of(batch: Batch, pinned: bool) -> Batch:
    """The same batch with torch's tensors, in memory that a GPU copies from by itself."""
    fields = {
        name: torch.from_numpy(value) for name, value in vars(batch).items() if isinstance(value, np.ndarray)
    }
    if pinned:
        fields = {name: tensor.pin_memory() for name, tensor in fields.items()}
    return dataclasses.replace(batch, **fields)


class Feeder:
    """Draws on several threads; batches come in an order that does not depend on which is faster."""

    def __init__(self, program: str, family: Family, plan: Plan, threads: int, seed: int, pinned: bool):
        self.progress = 0.0
        self._pinned = pinned
        self._queues = [queue.Queue(maxsize=3) for _ in range(threads)]
        self._next = 0
        self._stop = False
        for index, place in enumerate(self._queues):
            arguments = (Renderer(program), Conversations(family), plan, random.Random(seed * 1000 + index), place)
            threading.Thread(target=self._work, args=arguments, daemon=True).start()

    def _work(self, renderer, conversations, plan, rng, place) -> None:
        try:
            while not self._stop:
                request, width, height, clip = next_request(conversations.family, plan, self.progress, rng)
                scenes = renderer.draw(request)
                batch = conversations.batch(scenes, width, height, clip, plan.budget)
                place.put(tensors_of(batch, self._pinned))
        except Exception as error:  # noqa: BLE001 - to be raised where batches are taken
            place.put(error)

    def take(self) -> Batch:
        batch = self._queues[self._next].get()
        self._next = (self._next + 1) % len(self._queues)
        if isinstance(batch, Exception):
            raise batch
        return batch

    def stop(self) -> None:
        self._stop = True
