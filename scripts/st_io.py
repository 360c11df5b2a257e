"""Read and write safetensors files with numpy alone: u64 LE header length, JSON header, data."""
import json
import struct

import numpy as np

DTYPES = {"F64": "<f8", "I64": "<i8", "F32": "<f4", "I32": "<i4", "F16": "<f2", "U8": "u1"}
NAMES = {np.dtype(v): k for k, v in DTYPES.items()}


def save(path, tensors, metadata=None):
    """Write {name: array}; bytes depend on the content alone (sorted by alignment, then name)."""
    arrays = {name: np.asarray(a) for name, a in tensors.items()}
    order = sorted(arrays, key=lambda n: (-arrays[n].itemsize, n))
    header = {}
    if metadata is not None:
        header["__metadata__"] = {k: str(metadata[k]) for k in sorted(metadata)}
    offset = 0
    for name in order:
        a = arrays[name]
        header[name] = {"dtype": NAMES[a.dtype.newbyteorder("<") if a.itemsize > 1 else a.dtype],
                        "shape": list(a.shape), "data_offsets": [offset, offset + a.nbytes]}
        offset += a.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            f.write(arrays[name].tobytes())


def load(path):
    """Return ({name: array}, metadata) of a well-formed file."""
    with open(path, "rb") as f:
        raw = f.read()
    (n,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8:8 + n])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, t in header.items():
        begin, end = t["data_offsets"]
        data = np.frombuffer(raw[8 + n + begin:8 + n + end], DTYPES[t["dtype"]])
        tensors[name] = data.reshape(t["shape"])
    return tensors, metadata
