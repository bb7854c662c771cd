"""The exported towers of a text model: ONNX Runtime or OpenVINO, `tokenizers` and Pillow; torch is not imported."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrieval.arrays import Floats
from retrieval.encoders.engines.base import EMBEDDING, ExportedEngine, most_at_once
from retrieval.encoders.engines.choose import open_exported
from retrieval.encoders.engines.opened import NetworkFile
from retrieval.encoders.engines.trusted import Signature, check_exported, of_pictures
from retrieval.encoders.preprocess import Transform
from retrieval.encoders.text.limits import check_files, check_growth
from retrieval.encoders.text.towers import (
    CONFIG,
    IDS,
    IMAGE_TOWER,
    MASK,
    OWN_KEY,
    OWN_TOKENIZER,
    TEXT_TOWER,
    TOKENIZER,
    Reading,
)
from retrieval.errors import EncoderError
from retrieval.untrusted.strict_json import parse_json


class ExportedTowers:
    """The towers in a folder, run by one engine."""

    def __init__(self, folder: Path, engine: str) -> None:
        """Raises EncoderError, ValueError or another error if the files are invalid."""
        check_files(folder)
        self._engine, self.reading = engine, reading_of(folder)
        self._tokenizer = _tokenizer(folder, self.reading)
        inputs = dict.fromkeys((IDS, MASK)[: 1 + self.reading.masked], ("int64", (None,)))
        words = Signature(inputs, ([EMBEDDING],), 1, self.reading.lengths)
        # Opened and checked now, as another file may take its place; an engine reads it when a picture comes. The check
        # comes before the other tower, which stays in memory.
        place = folder / IMAGE_TOWER
        self._pictures = _checked(place, of_pictures(self.reading.pictures["input_size"])) if place.exists() else None
        self._texts = open_exported(_checked(folder / TEXT_TOWER, words), engine)
        self.dim = self._texts.dim
        if not hasattr(os, "fork") and self._pictures:  # on Windows, a file that is open could not be replaced
            self._images  # noqa: B018

    def texts(self, texts: list[str]) -> Floats:
        """See `Towers`."""
        return np.concatenate([self._text(text) for text in texts])

    def _text(self, text: str) -> Floats:
        """One alone is as fast as its share of several, and only lengths that were checked occur."""
        with panicking():
            line = self._tokenizer.encode(text).ids
        length = next(length for length in self.reading.lengths if length >= len(line))
        ids = np.full((1, length), self.reading.pad, np.int64)
        ids[0, : len(line)] = line
        inputs = {IDS: ids, MASK: (np.arange(length) < len(line)).astype(np.int64)[None]}
        found: Floats = self._texts.run([EMBEDDING], inputs if self.reading.masked else {IDS: ids})[0]
        return found

    def images(self, images: Sequence[Image.Image]) -> Floats:
        """See `Towers`."""
        most = most_at_once(self.reading.pictures["input_size"], self._images.pixels_at_once)
        pixels = [self._transform(image) for image in images]
        parts = [np.stack(pixels[start : start + most]) for start in range(0, len(pixels), most)]
        return np.concatenate([self._images.embed(part) for part in parts])

    @cached_property
    def _images(self) -> ExportedEngine:  # searches by words do not need it
        if self._pictures is None:
            raise EncoderError(f"the text model has no {IMAGE_TOWER}, so it cannot embed pictures.")
        return open_exported(self._pictures, self._engine)

    @cached_property
    def _transform(self) -> Transform:
        return Transform(self.reading.pictures)


def _checked(path: Path, signature: Signature) -> NetworkFile:
    file = NetworkFile(path)
    check_exported(file, signature)
    return file


def reading_of(folder: Path) -> Reading:
    """How the exported towers in a folder read words and pictures, from its config.json; raises ValueError."""
    return Reading(**own_facts(folder)["reads"])


def own_facts(folder: Path) -> dict[str, Any]:
    """What `TextEncoder.save` wrote into config.json besides the model; empty if it did not write it."""
    return dict(parse_json((folder / CONFIG).read_bytes()).get(OWN_KEY) or {})


def _tokenizer(folder: Path, reading: Reading) -> Any:
    from tokenizers import Tokenizer  # late: most artifacts have no text model

    own = folder / OWN_TOKENIZER
    with panicking():
        made = Tokenizer.from_file(str(own if own.exists() else folder / TOKENIZER))
        check_growth(made.normalizer)
        made.encode_special_tokens = True  # such as `</s>` in a query: these letters, not the end of a text
        made.no_padding()
        made.enable_truncation(reading.words)
        if not made.encode("size").ids:
            raise ValueError("it finds no token in a word")
    return made


@contextmanager
def panicking() -> Iterator[None]:
    """Raise what `tokenizers` raises for a file that makes no sense as an EncoderError, its panics as well."""
    try:
        yield
    except BaseException as error:  # a panic is not an Exception
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise EncoderError(f"its tokenizer cannot be used: {error}") from error
        raise
