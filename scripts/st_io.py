"""Read and write safetensors files with numpy alone: u64 LE header length, JSON header, data."""
import json
import struct

import numpy as np

DTYPES = {"F64": "<f8", "I64": "<i8", "F32": "<f4", "I32": "<i4", "F16": "<f2", "U8": "u1"}
NAMES = {np.dtype(v): k for k, v in DTYPES.items()}


class Bfloat16(np.ndarray):
    """The bits of bfloat16 numbers, as uint16; numpy has no such type."""


def bfloat16(a):
    """The nearest bfloat16 numbers of a float32 array, ties to even."""
    bits = np.asarray(a, "<f4").view("<u4")
    return np.asarray((bits + 0x7FFF + (bits >> 16 & 1)) >> 16, "<u2").view(Bfloat16)


def float32(a):
    """The values of a Bfloat16 array."""
    return (np.asarray(a).astype("<u4") << 16).view("<f4")


def type_name(a):
    return "BF16" if isinstance(a, Bfloat16) else NAMES[a.dtype.newbyteorder("<") if a.itemsize > 1 else a.dtype]


def save(path, tensors, metadata=None):
    """Write {name: array}; bytes depend on the content alone (sorted by alignment, then name)."""
    arrays = {name: np.asanyarray(a) for name, a in tensors.items()}
    order = sorted(arrays, key=lambda n: (-arrays[n].itemsize, n))
    header = {}
    if metadata is not None:
        header["__metadata__"] = {k: str(metadata[k]) for k in sorted(metadata)}
    offset = 0
    for name in order:
        a = arrays[name]
        header[name] = {"dtype": type_name(a), "shape": list(a.shape), "data_offsets": [offset, offset + a.nbytes]}
        offset += a.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            f.write(arrays[name].tobytes())


def load(path):
    """Return ({name: array}, metadata) of a well-formed file; BF16 as float32."""
    with open(path, "rb") as f:
        raw = f.read()
    (n,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8:8 + n])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, t in header.items():
        begin, end = t["data_offsets"]
        bits = t["dtype"] == "BF16"
        data = np.frombuffer(raw[8 + n + begin:8 + n + end], "<u2" if bits else DTYPES[t["dtype"]])
        data = float32(data) if bits else data
        tensors[name] = data.reshape(t["shape"])
    return tensors, metadata
