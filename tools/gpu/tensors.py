"""Reads files of safetensors (https://github.com/huggingface/safetensors) without a package for it."""

from __future__ import annotations

import json
import struct
from array import array
from pathlib import Path

CODES = {"F32": "f", "U32": "I"}


class Tensor:
    """Values with their shape."""

    def __init__(self, kind: str, shape: list[int], data: bytes) -> None:
        self.kind = kind
        self.shape = shape
        self.data = data

    def values(self) -> array:
        """The values in a row."""
        values = array(CODES[self.kind])
        values.frombytes(self.data)
        return values


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by their names."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    begin = 8 + length
    tensors = {}
    for name, about in header.items():
        if name != "__metadata__":
            first, last = about["data_offsets"]
            data = content[begin + first : begin + last]
            tensors[name] = Tensor(about["dtype"], about["shape"], data)
    return tensors


def metadata(path: Path) -> dict:
    """What a checkpoint of this program says of itself."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["bninception"])
