#!/usr/bin/env python3
"""Times causal attention of one prompt over a cache against torch's flash attention, replayed from CUDA graphs.

usage: causal_attention_bench.py LIBRARY

LIBRARY is built from kernels/*attention_{plan,schedule}.cpp, causal_attention_sm90.cu, tensor_map.cpp and
causal_attention_bench.cpp. Every result is compared with the flash kernel's before anything is timed. Work is counted as
4 head_dim for each key that a query sees. Needs torch, numpy and a Hopper GPU.
"""

import ctypes
import sys

import numpy
import torch
from attention_bench import milliseconds

# queries, history, heads, kv_heads, head_dim, window (0: none)
CASES = [
    (128, 0, 28, 4, 128, 0),
    (512, 0, 28, 4, 128, 0),
    (1024, 0, 28, 4, 128, 0),
    (2048, 0, 28, 4, 128, 0),
    (4096, 0, 28, 4, 128, 0),
    (8192, 0, 28, 4, 128, 0),
    (32768, 0, 28, 4, 128, 0),
    (2048, 2048, 28, 4, 128, 0),
    (2048, 6000, 28, 4, 128, 0),
    (256, 4000, 28, 4, 128, 0),
    (4096, 0, 32, 8, 128, 1024),
    (2048, 0, 32, 8, 64, 0),
    (8192, 0, 32, 8, 64, 0),
    (2048, 0, 16, 8, 256, 0),
    (8192, 0, 16, 8, 256, 0),
    (4096, 0, 16, 8, 256, 1024),
]


def load(path):
    library = ctypes.CDLL(path)
    pointer, i32, i64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    library.oriel_causal_attention_plan.restype = i64
    library.oriel_causal_attention_plan.argtypes = [pointer, pointer, i64, pointer]
    library.oriel_causal_attention.argtypes = [pointer] * 5 + [ctypes.c_float, pointer, i32, pointer]
    return library


class Call:
    """q [queries, heads, head_dim], k and v [keys, kv_heads, head_dim], of any token stride"""

    def __init__(self, library, q, k, v, window, prescaled):
        queries, heads, head_dim = q.shape
        keys, kv_heads, _ = k.shape
        self.library, self.tensors, self.prescaled = library, (q, k, v), prescaled
        self.out = torch.empty(queries, heads, head_dim, device="cuda", dtype=q.dtype)
        sm_count = torch.cuda.get_device_properties(0).multi_processor_count
        sizes = numpy.array([0, 0, queries, keys, 1, heads, kv_heads, head_dim, window, sm_count], numpy.int32)
        data, blocks = numpy.zeros(64 + 4 * sm_count + 32 * heads * (queries // 64 + 2), numpy.uint8), ctypes.c_int32()
        size = library.oriel_causal_attention_plan(sizes.ctypes.data, data.ctypes.data, len(data), ctypes.byref(blocks))
        assert size > 0
        self.plan, self.blocks = torch.from_numpy(data[:size].copy()).cuda(), blocks.value
        self.sizes = (ctypes.c_int64 * 9)(
            q.stride(0), k.stride(0), v.stride(0), queries, keys, heads, kv_heads, head_dim, int(prescaled)
        )

    def __call__(self):
        q, k, v = (x.data_ptr() for x in self.tensors)
        status = self.library.oriel_causal_attention(
            q, k, v, self.out.data_ptr(), self.sizes, self.out.shape[-1] ** -0.5, self.plan.data_ptr(), self.blocks,
            torch.cuda.current_stream().cuda_stream,
        )
        assert status == 0, f"cudaError {status}"
        return self.out


def flash(q, k, v, window):
    def run():
        return torch.ops.aten._flash_attention_forward(
            q[None], k[None], v[None], None, None, len(q), len(k), 0.0, True, False,
            window_size_left=window - 1 if window else None, window_size_right=0 if window else None,
        )[0][0]

    return run


def work(queries, history, heads, head_dim, window):
    seen = numpy.arange(history + 1, history + queries + 1)
    return 4 * head_dim * heads * int((numpy.minimum(seen, window) if window else seen).sum())


def main():
    library = load(sys.argv[1])
    torch.manual_seed(1)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; bf16: us, TFLOP/s; flash, ours, ours q prescaled")
    for queries, history, heads, kv_heads, head_dim, window in CASES:
        qkv = torch.randn(queries, heads + 2 * kv_heads, head_dim, device="cuda", dtype=torch.bfloat16)
        cache = torch.randn(2, history + queries, kv_heads, head_dim, device="cuda", dtype=torch.bfloat16)
        q, (k, v) = qkv[:, :heads], cache
        scaled = (q.float() * head_dim**-0.5 * 1.4426950408889634).bfloat16()
        calls = {
            "flash": flash(q, k, v, window),
            "ours": Call(library, q, k, v, window, False),
            "scaled": Call(library, scaled, k, v, window, True),
        }
        expected = calls["flash"]().float()
        for name in ("ours", "scaled"):
            error = ((calls[name]().float() - expected).norm() / expected.norm()).item()
            assert error < 6e-3, (queries, history, head_dim, window, name, error)
        flop = work(queries, history, heads, head_dim, window)
        times = milliseconds(calls, max(3, min(50, int(2e12 / flop))))
        cells = "".join(f"{1e3 * ms:10.1f} ({flop / ms / 1e9:4.0f})" for ms in times.values())
        case = f"{queries} behind {history}, {heads}/{kv_heads} x {head_dim}" + (f", window {window}" if window else "")
        print(f"{case:40}{cells}   {calls['ours'].blocks} blocks", flush=True)


if __name__ == "__main__":
    main()
