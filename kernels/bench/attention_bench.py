#!/usr/bin/env python3
"""Times the attention kernels against torch's flash and cuDNN attention in one run, replayed from CUDA graphs.

usage: attention_bench.py LIBRARY... [--json FILE] [--heights]

LIBRARY is built from kernels/attention*.{cu,cpp}, kernels/tensor_map.cpp and attention_bench.cpp:

    nvcc -O3 -std=c++20 -gencode arch=compute_90a,code=sm_90a -shared -Xcompiler -fPIC -o libattention.so \\
        kernels/attention*.cu kernels/attention*.cpp kernels/tensor_map.cpp kernels/bench/attention_bench.cpp

With several, they take turns. Every result is compared with the flash kernel's before anything is timed. cuDNN is asked
in two ways: a batch of equal lengths, and packed sequences. For these torch does work in front of each call that no
graph can hold, so that the kernel's own time is taken, as the profiler has it, from calls in a row.
--heights times the plan's choice against tiles of each height instead, in microseconds. Needs torch, numpy and a Hopper
GPU.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys

import numpy
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

LOG2E = 1.4426950408889634
SUCCESS, NOT_SUPPORTED = 0, 801


class Library:
    def __init__(self, path):
        self.name = os.path.basename(path)
        self.c = ctypes.CDLL(os.path.abspath(path))
        pointer, i32, i64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
        self.c.oriel_attention_plan.restype = i64
        self.c.oriel_attention_plan.argtypes = [pointer, i64, i32, i32, i32, i32, pointer, i64, pointer]
        self.c.oriel_attention_plan_bytes.restype = i64
        self.c.oriel_attention_plan_bytes.argtypes = [i64, i64, i32, i32, i32]
        self.c.oriel_attention_sm90.argtypes = [pointer, pointer, pointer, ctypes.c_float, pointer, i32, pointer]
        self.c.oriel_attention_window.argtypes = [pointer, pointer, pointer, ctypes.c_float, pointer, i32, i32, pointer]

    def plan(self, lengths, heads, head_dim, sm_count, units=0):
        """(bytes on the device, blocks); tiles of `units` units of 64 queries, 0: of the height that the plan chooses"""
        cu = offsets(lengths)
        capacity = self.c.oriel_attention_plan_bytes(int(cu[-1]), len(lengths), heads, head_dim, sm_count)
        if units:
            capacity = 16 * heads * sum((n + 63) // 64 for n in lengths) + 4 * sm_count + 32
        data, blocks = numpy.zeros(max(capacity, 16), numpy.uint8), ctypes.c_int32()
        size = self.c.oriel_attention_plan(
            cu.ctypes.data, len(lengths), heads, head_dim, sm_count, units, data.ctypes.data, capacity,
            ctypes.byref(blocks),
        )
        assert 0 <= size <= capacity, (size, capacity)
        return torch.from_numpy(data[: max(size, 16)].copy()).cuda(), blocks.value


def offsets(lengths):
    return numpy.concatenate([[0], numpy.cumsum(lengths)]).astype(numpy.int32)


class Call:
    """One attention over qkv [tokens, 3, heads, head_dim] (a view with any token stride) into out [tokens, heads, head_dim]."""

    def __init__(self, library, qkv, out, lengths, scale=None, prescaled=False, sm_count=None, units=0):
        _, _, heads, head_dim = qkv.shape
        self.library, self.qkv, self.out = library, qkv, out
        self.scale = head_dim**-0.5 if scale is None else scale
        sizes = [qkv.stride(0), sum(lengths), heads, head_dim, int(qkv.dtype == torch.float16), int(prescaled)]
        self.sizes = (ctypes.c_int64 * 6)(*sizes)
        self.prepare(lengths, heads, head_dim, sm_count, units)

    def prepare(self, lengths, heads, head_dim, sm_count, units):
        sm_count = sm_count or torch.cuda.get_device_properties(0).multi_processor_count
        self.device_plan, self.blocks = self.library.plan(lengths, heads, head_dim, sm_count, units)

    def status(self):
        stream = torch.cuda.current_stream().cuda_stream
        return self.library.c.oriel_attention_sm90(
            self.qkv.data_ptr(), self.out.data_ptr(), self.sizes, self.scale, self.device_plan.data_ptr(), self.blocks,
            stream,
        )

    def __call__(self):
        status = self.status()
        assert status == SUCCESS, f"cudaError {status}"
        return self.out


class WindowCall(Call):
    def prepare(self, lengths, heads, head_dim, sm_count, units):
        self.cu, self.windows, self.longest = torch.from_numpy(offsets(lengths)).cuda(), len(lengths), max(lengths)

    def status(self):
        stream = torch.cuda.current_stream().cuda_stream
        return self.library.c.oriel_attention_window(
            self.qkv.data_ptr(), self.out.data_ptr(), self.sizes, self.scale, self.cu.data_ptr(), self.windows,
            self.longest, stream,
        )


def prescale(qkv):
    """q * head_dim^-1/2 * log2(e), rounded once: as a rotary kernel delivers it"""
    scaled = qkv.clone()
    scaled[:, 0] = (qkv[:, 0].float() * (LOG2E * qkv.shape[-1] ** -0.5)).to(qkv.dtype)
    return scaled


def flash(qkv, lengths):
    cu, longest = torch.from_numpy(offsets(lengths)).cuda(), max(lengths)
    q, k, v = qkv.unbind(1)
    return lambda: torch.ops.aten._flash_attention_forward(q, k, v, cu, cu, longest, longest, 0.0, False, False)[0]


def cudnn(qkv, lengths):
    """cuDNN's attention over a batch; None where lengths differ."""
    if len(set(lengths)) > 1:
        return None
    batch = qkv.view(len(lengths), lengths[0], *qkv.shape[1:])
    q, k, v = (batch[:, :, i].transpose(1, 2) for i in range(3))

    def run():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v)

    return run


def cudnn_packed(qkv, lengths, dense=False):
    """cuDNN's attention over packed sequences; `dense`: of q, k and v that were copied apart before."""
    cu, longest = torch.from_numpy(offsets(lengths)).cuda(), max(lengths)
    q, k, v = (x.contiguous() if dense else x for x in qkv.unbind(1))
    return lambda: torch.ops.aten._cudnn_attention_forward(q, k, v, None, cu, cu, longest, longest, True)[0]


def relative_error(found, expected):
    """Of cuDNN's batches, too, which are [batch, heads, length, head_dim]."""
    if found.dim() == 4:
        found = found.transpose(1, 2).reshape(expected.shape)
    return ((found.float() - expected).norm() / expected.norm()).item()


def cudnn_packed_that_works(qkv, lengths, expected):
    """(the call, or None; why not)"""
    reasons = []
    for dense in (False, True):
        try:
            call = cudnn_packed(qkv, lengths, dense)
            if (error := relative_error(call(), expected)) < 6e-3:
                return call, None
            reasons.append(f"its result is {error:.1e} from flash attention's")
        except Exception as error:  # whatever torch raises
            reasons.append(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}")
    return None, "; ".join(dict.fromkeys(reasons))


def probe_cudnn_packed():
    """What would end this process, such as memory touched that is not there, ends another one instead."""
    try:
        done = subprocess.run([sys.executable, __file__, "--probe-cudnn"], capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return "the probe took over 120 s"
    return f"the probe ended with {done.returncode}: {done.stderr.strip()[-600:]}" if done.returncode else None


def probe():
    for head_dim in HEAD_DIMS:
        for lengths in (CASES["16x256"], CASES["mix16"]):
            qkv = torch.randn(sum(lengths), 3, HEADS, head_dim, device="cuda", dtype=torch.bfloat16)
            call, reason = cudnn_packed_that_works(qkv, lengths, flash(qkv, lengths)().float())
            if call:
                kernel_milliseconds(call, "cudnn", 4)
            else:
                print(f"d={head_dim}: {reason}", file=sys.stderr)


def graph_of(call, repetitions):
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repetitions):
            call()
    graph.replay()
    torch.cuda.synchronize()
    return graph


def milliseconds(calls, repetitions, rounds=7):
    """Median of a call, all taking turns so that the card's temperature is shared."""
    graphs = {name: graph_of(call, repetitions) for name, call in calls.items()}
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, graph in graphs.items():
            begin, end = torch.cuda.Event(True), torch.cuda.Event(True)
            begin.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            times[name].append(begin.elapsed_time(end) / repetitions)
    return {name: statistics.median(t) for name, t in times.items()}


def kernel_milliseconds(call, name, repetitions):
    """Of the kernels of a call that have `name` in theirs; their mean."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(repetitions):
            call()
        torch.cuda.synchronize()
    found = [event for event in profile.key_averages() if name in event.key.lower()]
    assert found, [event.key for event in profile.key_averages()]
    return sum(event.self_device_time_total for event in found) / repetitions / 1e3


CASES = {
    "1x4096": [4096],
    "1x16384": [16384],
    "16x256": [256] * 16,
    "4x1024": [1024] * 4,
    "8x4096": [4096] * 8,
    "mix8": [4096, 1536, 1536, 441, 2560, 1024, 3136, 1200],
    "mix16": [256, 1008, 140, 729, 324, 1296, 192, 576, 900, 400, 1024, 484, 660, 529, 768, 640],
}
HEADS = 16
HEAD_DIMS = (64, 72, 80, 128)


def bench_full(libraries, head_dim, records, packed_problem):
    """packed_problem: why cuDNN is not asked for packed sequences, or None"""
    rows = {}
    for case, lengths in CASES.items():
        qkv = torch.randn(sum(lengths), 3, HEADS, head_dim, device="cuda", dtype=torch.bfloat16)
        scaled = prescale(qkv)
        calls = {"flash": flash(qkv, lengths)}
        expected = calls["flash"]().float()
        if peer := cudnn(qkv, lengths):
            calls["cudnn, a batch"] = peer
        packed, reason = (None, packed_problem) if packed_problem else cudnn_packed_that_works(qkv, lengths, expected)
        if not packed and not packed_problem:
            print(f"d={head_dim:<4}cudnn, packed, {case}: {reason}", flush=True)
        for library in libraries:
            for name, x, folded in (("", qkv, False), (" q prescaled", scaled, True)):
                out = torch.empty(sum(lengths), HEADS, head_dim, device="cuda", dtype=torch.bfloat16)
                calls[library.name + name] = Call(library, x, out, lengths, prescaled=folded)
        for name, call in calls.items():
            assert (error := relative_error(call(), expected)) < 6e-3, (case, name, error)
        work = sum(4 * n * n * head_dim * HEADS for n in lengths)
        repetitions = max(4, min(50, int(6e12 / work)))
        times = milliseconds(calls, repetitions)
        if packed:
            times["cudnn, packed, its kernel alone"] = kernel_milliseconds(packed, "cudnn", repetitions)
        for name, ms in times.items():
            rows.setdefault(name, {})[case] = work / ms / 1e9
            records.append({"head_dim": head_dim, "case": case, "path": name, "ms": ms, "tflops": work / ms / 1e9})
    for name, row in rows.items():
        cells = "".join(f"{row[case]:9.0f}" if case in row else f"{'-':>9}" for case in CASES)
        print(f"d={head_dim:<4}{name:34}{cells}", flush=True)


SHORT_CASES = [[n] for n in (256, 324, 512, 576, 729, 1024, 1296)] + [[256] * 16, [1024] * 4]


def bench_heights(library, head_dim, records):
    """What tile_cost in attention_plan.cpp stands for: the plan's choice should be near the best of its row."""
    for lengths in SHORT_CASES:
        scaled = prescale(torch.randn(sum(lengths), 3, HEADS, head_dim, device="cuda", dtype=torch.bfloat16))
        calls = {}
        for units in range(5):
            out = torch.empty(sum(lengths), HEADS, head_dim, device="cuda", dtype=torch.bfloat16)
            calls[units] = Call(library, scaled, out, lengths, prescaled=True, units=units)
        chosen = calls[0]()
        assert all(torch.equal(call(), chosen) for call in calls.values()), "heights give other bits"
        times = milliseconds(calls, 200)
        case = f"{len(lengths)} x {lengths[0]}"
        cells = "".join(f"{1e3 * times[u]:8.2f} ({calls[u].blocks:3})" for u in range(5))
        print(f"d={head_dim:<4}{case:10}{cells}", flush=True)
        records += [{"head_dim": head_dim, "case": case, "units": u, "ms": ms} for u, ms in times.items()]


def bench_windows(library, head_dim, records, copy_rate):
    lengths = [64] * 324  # 20,736 tokens: four pictures of 1008 x 1008 in patches of 14
    tokens = sum(lengths)
    qkv = torch.randn(tokens, 3, HEADS, head_dim, device="cuda", dtype=torch.bfloat16)
    calls = {
        "flash": flash(qkv, lengths),
        library.name: WindowCall(library, qkv, torch.empty_like(qkv[:, 0]).contiguous(), lengths),
    }
    expected = calls["flash"]().float()
    error = ((calls[library.name]().float() - expected).norm() / expected.norm()).item()
    assert error < 6e-3, error
    size = 8 * tokens * HEADS * head_dim
    for name, ms in milliseconds(calls, 50).items():
        rate = size / ms / 1e9
        print(f"d={head_dim:<4}{name:34} 324 windows of 64: {ms * 1e3:6.1f} us {rate:5.2f} TB/s {rate / copy_rate:4.0%} of copy")
        records.append({"head_dim": head_dim, "case": "324x64", "path": name, "ms": ms, "tbs": rate})


def measure_copy():
    """TB/s read and written, at the size of the windows' case"""
    a = torch.randn(106 * 2**20 // 2, device="cuda", dtype=torch.bfloat16)
    b = torch.empty_like(a)
    return 4 * a.numel() / milliseconds({"copy": lambda: b.copy_(a)}, 20)["copy"] / 1e9


def measure_product():
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / milliseconds({"product": lambda: a @ b}, 10)["product"] / 1e9


def bench_all(libraries, records):
    copy_rate = measure_copy()
    print(f"8192^3 product {measure_product():.0f} TFLOP/s, copy {copy_rate:.2f} TB/s; bf16, {HEADS} heads, TFLOP/s:")
    print(" " * 40 + "".join(f"{case:>9}" for case in CASES))
    if packed_problem := probe_cudnn_packed():
        print(f"cudnn, packed, is left out: {packed_problem}")
    for head_dim in HEAD_DIMS:
        bench_full(libraries, head_dim, records, packed_problem)
    for head_dim in (64, 72, 80):
        bench_windows(libraries[0], head_dim, records, copy_rate)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("libraries", nargs="*")
    parser.add_argument("--json")
    parser.add_argument("--heights", action="store_true")
    parser.add_argument("--probe-cudnn", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    torch.manual_seed(1)
    if arguments.probe_cudnn:
        return probe()
    if not arguments.libraries:
        parser.error("a library is needed")
    libraries = [Library(path) for path in arguments.libraries]
    records = []
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    if arguments.heights:
        print(f"us (blocks), bf16, {HEADS} heads: the plan's choice, then tiles of 1, 2, 3, 4 units of 64 queries")
        for head_dim in (64, 72, 80):
            bench_heights(libraries[0], head_dim, records)
    else:
        bench_all(libraries, records)
    if arguments.json:
        with open(arguments.json, "w") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


if __name__ == "__main__":
    main()
