"""Limits for text models from strangers, looked at before a file is parsed: sizes, and texts that would grow."""

from __future__ import annotations

import json
import math
from base64 import b64decode
from pathlib import Path
from typing import Any

MOST_SIDE = 2_048  # pixels
_MOST_BYTES = {".json": 2**26, ".txt": 2**26, ".model": 2**26}  # a tokenizer of 256,000 words has half of that
_MOST_GROWTH = 100  # times that a text may become longer: one sign of Arabic is 18 letters in another form


def check_files(folder: Path) -> None:
    """Raise ValueError for a file that is too large to be a model's."""
    for path in (*folder.iterdir(), *folder.glob("onnx/*")):
        if path.suffix in _MOST_BYTES and (size := path.stat().st_size) > _MOST_BYTES[path.suffix]:
            raise ValueError(f"{path.name} has {size:,} bytes, more than {_MOST_BYTES[path.suffix]:,}")


def check_growth(normalizer: Any) -> None:
    """Raise ValueError for a normalizer of `tokenizers`, or None, that makes texts very much longer."""
    _check(_growth(json.loads(normalizer.__getstate__())) if normalizer else 1)


def check_table(table: bytes) -> None:
    """Raise ValueError for SentencePiece's table of characters if one of them becomes very many."""
    _check(_longest(table))


def _check(growth: int) -> None:
    if growth > _MOST_GROWTH:
        raise ValueError(f"its tokenizer makes texts {growth:,} times as long, and {_MOST_GROWTH} is the most")


def _growth(normalizer: dict[str, Any]) -> int:
    """How many times longer a text can become, as a normalizer replaces or puts letters in front."""
    longest = max((len(str(normalizer.get(name, ""))) for name in ("content", "prepend")), default=1)
    table = b64decode(str(normalizer.get("precompiled_charsmap") or ""))
    return max(longest, _longest(table), 1) * math.prod(_growth(part) for part in normalizer.get("normalizers", []))


def _longest(table: bytes) -> int:
    """The most bytes that one character becomes: after a trie, whose size comes first, its texts end with NUL."""
    size = int.from_bytes(table[:4], "little")
    return max(map(len, table[4 + size :].split(b"\0")), default=0)
