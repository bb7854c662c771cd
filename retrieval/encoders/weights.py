"""Weights in a safetensors file, read without torch: what its header says, and a digest of its tensors."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from retrieval.errors import EncoderError, first_line
from retrieval.files.remembered import remembered, sha256_of
from retrieval.installed import VERSION

Shapes = dict[str, tuple[int, ...]]
_MOST_HEADER = 8 * 2**20  # bytes; a thousand tensors need a tenth of a megabyte
# As torch prints the types: fingerprints were computed with torch first.
_TYPES = {
    "F64": "torch.float64",
    "F32": "torch.float32",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
    "I64": "torch.int64",
    "I32": "torch.int32",
    "I16": "torch.int16",
    "I8": "torch.int8",
    "U8": "torch.uint8",
    "BOOL": "torch.bool",
}


def stored_shapes(path: Path) -> Shapes:
    """Name -> shape of each tensor of a safetensors file, from its header alone.

    Raises EncoderError for a file whose header is too large, or does not describe exactly the bytes that follow it.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            (header,) = struct.unpack("<Q", file.read(8))
        if header > min(_MOST_HEADER, size - 8):
            raise SafetensorError(f"it has {size:,} bytes but declares a header of {header:,}")
        with safe_open(path, framework="np") as weights:  # checks that the tensors fill the file
            return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, struct.error) as error:
        raise EncoderError(f"{path.name} is not a readable safetensors file: {first_line(error)}") from error


def stored_size(path: Path) -> int:
    """Bytes of all tensors of a file that `stored_shapes` accepts."""
    with path.open("rb") as file:
        (header,) = struct.unpack("<Q", file.read(8))
        return os.fstat(file.fileno()).st_size - 8 - int(header)


def stored_tensors(path: Path) -> Iterator[tuple[str, str, tuple[int, ...], bytes]]:
    """Name, type as torch prints it, shape and bytes of each tensor of a file that `stored_shapes` accepts, by name."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, tensor in sorted(header.items()):
            start, end = tensor["data_offsets"]
            file.seek(8 + length + start)
            yield name, _TYPES.get(tensor["dtype"], tensor["dtype"]), tuple(tensor["shape"]), file.read(end - start)


def int8_fingerprint(float32: str, engine: str, exported: Path) -> str:
    """SHA-256 hex digest of an encoder in int8: of its float32 fingerprint, its engine and its exported network."""
    return hashlib.sha256(f"{float32} int8 {engine} {sha256_of(exported)}".encode()).hexdigest()


def fingerprint_of_files(facts: list[Any], weights: Sequence[Path]) -> str:
    """`fingerprint_of` the tensors in files that `stored_shapes` accepts, remembered for large ones."""
    others = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    tensors = (tensor for path in weights for tensor in stored_tensors(path))
    return remembered(weights, f"fingerprint {VERSION} {others}", lambda: fingerprint_of(facts, tensors))


def fingerprint_of(facts: list[Any], tensors: Iterator[tuple[str, str, tuple[int, ...], Any]]) -> str:
    """SHA-256 hex digest of preprocessing, shape and weights: equal for encoders that give the same vectors.

    `facts` are the encoder's name, dimension, preprocessing and, if it is not linear, its head; `tensors` are sorted by
    name, as `stored_tensors` gives them.
    """
    # Through JSON, which makes a tuple of timm's defaults equal to a list read back from a file.
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, dtype, shape, content in tensors:
        digest.update(f"{name} {dtype} {shape}".encode())
        digest.update(content)
    return digest.hexdigest()
