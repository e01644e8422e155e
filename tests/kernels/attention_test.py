#!/usr/bin/env python3
"""Checks the attention kernels on a Hopper GPU against attention in float32.

usage: attention_test.py LIBRARY [--small] [--only TEXT]

LIBRARY as for kernels/bench/attention_bench.py. --small runs sizes that compute-sanitizer gets through, --only the checks whose name has TEXT.
Prints a line a check and exits with 1 if any failed.
"""

import argparse
import pathlib
import random
import sys
import traceback

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "kernels" / "bench"))
from attention_bench import NOT_SUPPORTED, SUCCESS, Call, Library, WindowCall, flash, prescale  # noqa: E402

HEAD_DIMS = (64, 72, 80, 128)
DTYPES = (torch.bfloat16, torch.float16)
LENGTHS = [1, 2, 15, 16, 63, 64, 65, 127, 129, 255, 257, 700, 1000, 1009, 0, 4096, 313, 3]
# ||out - ref|| / ||ref||: P and the result are rounded to the dtype once each, relative 2^-9 / sqrt(3) and 2^-12 / sqrt(3)
TOLERANCE = {torch.bfloat16: 3e-3, torch.float16: 4e-4}
LN2 = 0.6931471805599453


def random_qkv(tokens, heads, head_dim, dtype, spread=1.5):
    qkv = torch.randn(tokens, 3, heads, head_dim, device="cuda")
    qkv[:, :2] *= spread
    return qkv.to(dtype)


def hard_qkv(tokens, heads, head_dim, dtype):
    """Logits up to hundreds, growing along the sequence: the maximum of the first keys is far too low."""
    qkv = random_qkv(tokens, heads, head_dim, torch.float32, 7.0)
    qkv[:, 1] *= torch.linspace(0.02, 2, tokens, device="cuda")[:, None, None]
    return qkv.to(dtype)


def reference(qkv, lengths, scale=None):
    """[tokens, heads, head_dim] in float32, 4096 queries at a time"""
    scale = qkv.shape[-1] ** -0.5 if scale is None else scale
    parts, begin = [], 0
    for n in lengths:
        q, k, v = (x.transpose(0, 1).float() for x in qkv[begin : begin + n].unbind(1))
        rows = [(q[:, i : i + 4096] @ k.mT * scale).softmax(-1) @ v for i in range(0, n, 4096)]
        parts += [torch.cat(rows, 1).transpose(0, 1)] if n else []
        begin += n
    return torch.cat(parts)


def relative_error(out, expected):
    return ((out.float() - expected).norm() / expected.norm()).item()


def run(kind, library, qkv, lengths, **options):
    """The result, after checking that all of it was written and nothing beyond it."""
    tokens, guard = sum(lengths), 3
    whole = torch.full((tokens + guard, *qkv.shape[2:]), float("nan"), device="cuda", dtype=qkv.dtype)
    whole[tokens:] = 7
    kind(library, qkv, whole[:tokens], lengths, **options)()
    torch.cuda.synchronize()
    assert bool((whole[tokens:] == 7).all()), "wrote past the last token"
    return whole[:tokens]


def assert_close(out, expected, lengths, dtype, factor=1.0):
    error = relative_error(out, expected)
    begin, worst = 0, {}
    for n in lengths:
        if n:
            worst[n] = relative_error(out[begin : begin + n], expected[begin : begin + n])
        begin += n
    limit = factor * TOLERANCE[dtype]
    bad = {n: f"{e:.1e}" for n, e in worst.items() if not e < 1.5 * limit}  # few rows average less
    assert error < limit and not bad, f"error {error:.2e}, by length {bad}"
    return error


def assert_same_bits(a, b, what):
    different = (a.view(torch.int16) != b.view(torch.int16)).reshape(len(a), -1).any(1)
    first = different.nonzero()[0].item() if different.any() else 0
    assert not different.any(), f"{what}: {int(different.sum())} of {len(a)} rows differ, first {first}: {a[first].flatten()[:4]} {b[first].flatten()[:4]}"


class Checks:
    def __init__(self, library, small, only):
        self.library, self.small, self.only, self.ran, self.failed = library, small, only, 0, 0

    def check(self, name, function):
        if self.only not in name:
            return
        self.ran += 1
        torch.manual_seed(7)
        random.seed(7)
        try:
            note = function()
            print(f"ok    {name}" + (f": {note}" if note else ""), flush=True)
        except Exception as problem:
            self.failed += 1
            print(f"FAIL  {name}: {problem}", flush=True)
            if not isinstance(problem, AssertionError):
                traceback.print_exc()

    def cases(self):
        for head_dim in HEAD_DIMS:
            for dtype in DTYPES[:1] if self.small and head_dim != 64 else DTYPES:
                yield head_dim, dtype, f"d={head_dim} {str(dtype)[6:]}"

    # ---- full attention

    def equals_float32_on_mixed_lengths(self, head_dim, dtype):
        lengths = [1, 2, 65, 129, 255] if self.small else LENGTHS
        errors = []
        for make in (random_qkv, hard_qkv):
            qkv = make(sum(lengths), 3, head_dim, dtype)
            factor = 2.0 if make is hard_qkv else 1.0  # near one-hot rows: the rounding of one logit is not averaged
            out = run(Call, self.library, qkv, lengths)
            errors.append(assert_close(out, reference(qkv, lengths), lengths, dtype, factor))
            scaled = prescale(qkv)
            out = run(Call, self.library, scaled, lengths, prescaled=True)
            errors.append(assert_close(out, reference(scaled, lengths, LN2), lengths, dtype, factor))
        return "errors plain / prescaled, hard plain / prescaled " + " ".join(f"{e:.2e}" for e in errors)

    def equals_float32_on_32768_tokens(self, head_dim):
        qkv = random_qkv(32768, 2, head_dim, torch.bfloat16)
        return f"{assert_close(run(Call, self.library, qkv, [32768]), reference(qkv, [32768]), [32768], torch.bfloat16):.2e}"

    def finds_one_key_among_many(self, head_dim):
        # Query i is the indicator of key (7 i + 3) mod n in a random code: a swapped, missing or doubled key shows.
        n, heads = 1009, 2
        qkv = torch.randn(n, 3, heads, head_dim, device="cuda", dtype=torch.bfloat16)
        qkv[:, 1] = torch.randn(n, heads, head_dim, device="cuda").sign().bfloat16() * 2
        target = (7 * torch.arange(n, device="cuda") + 3) % n
        qkv[:, 0] = qkv[target, 1] * 4
        out = run(Call, self.library, qkv, [n])
        assert_same_bits(out, qkv[target, 2], "values of the named key")

    def takes_any_token_stride(self, head_dim):
        lengths, heads = [70, 200], 2
        wide = random_qkv(270, heads, head_dim + 8, torch.bfloat16)
        storage = torch.full((270, 3 * heads * head_dim + 40), float("nan"), device="cuda", dtype=torch.bfloat16)
        qkv = storage[:, : 3 * heads * head_dim].view(270, 3, heads, head_dim)
        qkv.copy_(wide[..., :head_dim])
        assert_close(run(Call, self.library, qkv, lengths), reference(qkv, lengths), lengths, torch.bfloat16)

    def same_bits_packed_and_alone(self, kind, head_dim, dtype, lengths, **options):
        for make in (random_qkv, hard_qkv):
            qkv = make(sum(lengths), 2, head_dim, dtype)
            if options.get("prescaled"):
                qkv = prescale(qkv)
            packed = run(kind, self.library, qkv, lengths, **options)
            begin = 0
            for n in lengths:
                if n:
                    alone = run(kind, self.library, qkv[begin : begin + n].clone(), [n], **options)
                    assert_same_bits(packed[begin : begin + n], alone, f"{make.__name__}, length {n}")
                begin += n

    def same_bits_for_any_plan(self, head_dim, dtype, prescaled):
        lengths = [640, 65, 1000, 257, 129]
        qkv = hard_qkv(sum(lengths), 7, head_dim, dtype)  # alone on a block: 77 tiles
        qkv = prescale(qkv) if prescaled else qkv
        results = [run(Call, self.library, qkv, lengths, prescaled=prescaled, sm_count=n) for n in (132, 1, 5, 31, 57)]
        results += [run(Call, self.library, qkv, lengths, prescaled=prescaled, units=n) for n in (1, 2, 3)]
        for other in results[1:]:
            assert_same_bits(results[0], other, "another plan")

    def same_bits_again(self, head_dim):
        lengths = [4096, 300, 1500]
        qkv = random_qkv(sum(lengths), 16, head_dim, torch.bfloat16)
        first = run(Call, self.library, qkv, lengths)
        for _ in range(20):
            assert_same_bits(first, run(Call, self.library, qkv, lengths), "another run")

    def neighbours_feel_no_nan(self, kind, head_dim, dtype, lengths, **options):
        clean = random_qkv(sum(lengths) + 64, 2, head_dim, dtype)
        expected = run(kind, self.library, clean[: sum(lengths)], lengths, **options)
        for broken in range(-1, len(lengths)):  # -1: memory behind the last token
            for bad in (float("nan"), float("inf"), -float("inf")):
                qkv = clean.clone()
                begin = sum(lengths[:broken]) if broken >= 0 else sum(lengths)
                end = begin + (lengths[broken] if broken >= 0 else 64)
                qkv[begin:end] = bad
                out = run(kind, self.library, qkv[: sum(lengths)], lengths, **options)
                keep = torch.ones(sum(lengths), dtype=torch.bool, device="cuda")
                keep[begin : min(end, len(keep))] = False
                assert_same_bits(out[keep], expected[keep], f"{bad} in sequence {broken}")
                if end > begin and broken >= 0:
                    assert bool(out[~keep].isnan().all()), f"{bad} in its own sequence is lost"

    def one_nan_stays_where_it_belongs(self, head_dim):
        # In q: its row alone. In v: its column of its sequence alone. Rows of a NaN key: all of its sequence.
        lengths, heads = [100, 77], 2
        clean = random_qkv(177, heads, head_dim, torch.bfloat16)
        expected = run(Call, self.library, clean, lengths)
        for part, at in ((0, (5, 0, 1, 3)), (1, (20, 1, 1, 3)), (2, (30, 2, 1, 3))):
            qkv = clean.clone()
            qkv[at] = float("nan")
            nan = torch.zeros_like(expected, dtype=torch.bool)
            if part == 0:
                nan[5, 1] = True
            elif part == 1:
                nan[:100, 1] = True
            else:
                nan[:100, 1, 3] = True
            out = run(Call, self.library, qkv, lengths)
            assert torch.equal(out.isnan(), nan), f"part {part}: NaN in {int(out.isnan().sum())} places, not {int(nan.sum())}"
            assert torch.equal(out[~nan], expected[~nan]), f"part {part}: others changed"

    def two_streams_do_not_meet(self):
        lengths = [1000, 300]
        inputs = [random_qkv(1300, 16, 80, torch.bfloat16) for _ in range(2)]
        expected = [run(Call, self.library, x, lengths) for x in inputs]
        streams = [torch.cuda.Stream() for _ in inputs]
        outs = [torch.zeros_like(x) for x in expected]
        calls = [Call(self.library, x, o, lengths) for x, o in zip(inputs, outs)]
        torch.cuda.synchronize()
        for _ in range(50):
            for stream, call in zip(streams, calls):
                with torch.cuda.stream(stream):
                    call()
        torch.cuda.synchronize()
        for out, right in zip(outs, expected):
            assert_same_bits(out, right, "two streams")

    def refuses_what_it_does_not_take(self):
        out = torch.zeros(64, 2, 96, device="cuda", dtype=torch.bfloat16)
        qkv = random_qkv(64, 2, 96, torch.bfloat16)
        for kind in (Call, WindowCall):
            assert kind(self.library, qkv, out, [64]).status() == NOT_SUPPORTED, "head_dim 96"
            odd = torch.zeros(64 * 400 + 8, device="cuda", dtype=torch.bfloat16)[4:]
            view = odd.as_strided((64, 3, 2, 64), (392, 128, 64, 1))
            assert kind(self.library, view, out, [64]).status() == NOT_SUPPORTED, "8-byte alignment"
            view = torch.zeros(64 * 400, device="cuda", dtype=torch.bfloat16).as_strided((64, 3, 2, 64), (388, 128, 64, 1))
            assert kind(self.library, view, out, [64]).status() == NOT_SUPPORTED, "token stride"
            view = torch.zeros(64 * 400, device="cuda", dtype=torch.bfloat16).as_strided((64, 3, 2, 64), (64, 128, 64, 1))
            assert kind(self.library, view, out, [64]).status() not in (SUCCESS, NOT_SUPPORTED), "overlapping tokens"
        assert WindowCall(self.library, random_qkv(65, 2, 64, torch.bfloat16), out, [65]).status() == NOT_SUPPORTED
        empty = random_qkv(1, 2, 64, torch.bfloat16)
        assert Call(self.library, empty, out, [0, 0]).status() == SUCCESS
        assert bool((out == 0).all()), "wrote something"
        torch.cuda.synchronize()

    # ---- windows

    def windows_equal_float32(self, head_dim, dtype):
        lengths = list(range(65)) if self.small else [random.randint(0, 64) for _ in range(300)] + list(range(65)) + [64] * 40
        errors = []
        for make in (random_qkv, hard_qkv):
            qkv = make(sum(lengths), 3, head_dim, dtype)
            out = run(WindowCall, self.library, qkv, lengths)
            errors.append(assert_close(out, reference(qkv, lengths), [sum(lengths)], dtype, 2.0 if make is hard_qkv else 1.0))
        scaled = prescale(random_qkv(sum(lengths), 3, head_dim, dtype))
        out = run(WindowCall, self.library, scaled, lengths, prescaled=True)
        errors.append(assert_close(out, reference(scaled, lengths, LN2), [sum(lengths)], dtype))
        return " ".join(f"{e:.2e}" for e in errors)

    def all(self):
        for head_dim, dtype, name in self.cases():
            self.check(f"{name}: equals float32 on mixed lengths", lambda: self.equals_float32_on_mixed_lengths(head_dim, dtype))
            for prescaled in (False, True):
                lengths = [65, 130] if self.small else [1, 300, 64, 65, 15, 1000, 0, 127, 512, 200]
                self.check(
                    f"{name} prescaled={prescaled}: same bits packed and alone",
                    lambda: self.same_bits_packed_and_alone(Call, head_dim, dtype, lengths, prescaled=prescaled),
                )
                if not self.small:
                    self.check(
                        f"{name} prescaled={prescaled}: same bits for any plan",
                        lambda: self.same_bits_for_any_plan(head_dim, dtype, prescaled),
                    )
            self.check(
                f"{name}: neighbours feel no NaN",
                lambda: self.neighbours_feel_no_nan(
                    Call, head_dim, dtype, [70, 3] if self.small else [100, 64, 50, 1, 200, 77], prescaled=dtype == DTYPES[0]
                ),
            )
            self.check(f"{name}: windows equal float32", lambda: self.windows_equal_float32(head_dim, dtype))
            self.check(
                f"{name}: windows have the same bits packed and alone",
                lambda: self.same_bits_packed_and_alone(WindowCall, head_dim, dtype, [64, 1, 17, 0, 50, 33]),
            )
            self.check(
                f"{name}: neighbouring windows feel no NaN",
                lambda: self.neighbours_feel_no_nan(WindowCall, head_dim, dtype, [64, 33, 1, 0, 50]),
            )
        for head_dim in HEAD_DIMS:
            self.check(f"d={head_dim}: one NaN stays where it belongs", lambda: self.one_nan_stays_where_it_belongs(head_dim))
            self.check(f"d={head_dim}: takes any token stride", lambda: self.takes_any_token_stride(head_dim))
            if not self.small:
                self.check(f"d={head_dim}: finds one key among many", lambda: self.finds_one_key_among_many(head_dim))
                self.check(f"d={head_dim}: same bits again", lambda: self.same_bits_again(head_dim))
                self.check(f"d={head_dim}: equals float32 on 32768 tokens", lambda: self.equals_float32_on_32768_tokens(head_dim))
        self.check("two streams do not meet", self.two_streams_do_not_meet)
        self.check("refuses what it does not take", self.refuses_what_it_does_not_take)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    checks = Checks(Library(arguments.library), arguments.small, arguments.only)
    checks.all()
    print(f"{checks.failed} of {checks.ran} failed")
    sys.exit(1 if checks.failed or not checks.ran else 0)


if __name__ == "__main__":
    main()
