"""A file of the safetensors package, rewritten by oriel, must give the package the same tensors and metadata."""

import pathlib
import subprocess
import sys
import tempfile

SKIPPED = 77

try:
    import numpy
    from safetensors import safe_open
    from safetensors.numpy import save_file
except ImportError as error:
    print(f"skipped: {error}; scripts/setup --tests installs what this test needs")
    sys.exit(SKIPPED)


def sample_tensors():
    random = numpy.random.default_rng(5)
    dtypes = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
    tensors = {
        f"layers.{i}.{dtype}": random.integers(0, 100, size=(3, i + 1)).astype(dtype) for i, dtype in enumerate(dtypes)
    }
    tensors["scalar"] = numpy.array(2.5, dtype="f4")
    tensors["empty"] = numpy.zeros((0, 4), dtype="f4")
    tensors['quoted "name" \\ é 图'] = numpy.arange(5, dtype="u1")
    return tensors


def check(path, tensors, metadata):
    """Compares every name, dtype, shape and byte."""
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == metadata, (file.metadata(), metadata)
        assert sorted(file.keys()) == sorted(tensors), (sorted(file.keys()), sorted(tensors))
        for name, expected in tensors.items():
            found = file.get_tensor(name)
            assert found.dtype == expected.dtype, (name, found.dtype, expected.dtype)
            assert found.shape == expected.shape, (name, found.shape, expected.shape)
            assert found.tobytes() == expected.tobytes(), name


def main():
    rewrite = sys.argv[1]
    tensors = sample_tensors()
    metadata = {"format": "pt", "note": 'two\nlines and a "quote"'}
    with tempfile.TemporaryDirectory() as directory:
        theirs = pathlib.Path(directory, "theirs.safetensors")
        ours = pathlib.Path(directory, "ours.safetensors")
        save_file(tensors, theirs, metadata)
        subprocess.run([rewrite, theirs, ours], check=True)
        check(ours, tensors, metadata)
    print(f"{len(tensors)} tensors are equal")


if __name__ == "__main__":
    main()
