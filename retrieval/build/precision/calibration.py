"""Quantizing the encoder of a build, calibrated on images of its source."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path

from retrieval.arrays import Floats
from retrieval.build.shards import FETCHED, QUANTIZED
from retrieval.console import say
from retrieval.encoders.base import resize_of
from retrieval.encoders.engines.base import Name
from retrieval.encoders.engines.choose import asked
from retrieval.encoders.image import Encoder
from retrieval.errors import EncoderError, ImageError, SourceError
from retrieval.files.storing import whole
from retrieval.images.door.views import View
from retrieval.images.open import open_views
from retrieval.sources.base import RawImage, Source
from retrieval.sources.lists.ahead import Fetched, ahead

IMAGES = 300
"""As many images of a source set the ranges of the integers."""
_MOST_READ = 2**30  # bytes of images that are read only to choose among them


def check_int8(encoder: Encoder) -> Name:
    """The engine of an encoder in int8, before it is made: ONNX Runtime, unless OpenVINO was asked for.

    Raises EncoderError if int8 is not possible: for torch, or for an encoder that is in int8 already; and
    MissingExtraError without NNCF.
    """
    from retrieval.encoders.network.quantize import check_installed  # imports torch, which only int8 needs here

    engine = asked()
    if engine == "torch":
        raise EncoderError("int8 needs the engine onnx or openvino, not torch: leave out the engine, or build float32.")
    check_float32(encoder)
    check_installed()
    return "openvino" if engine == "openvino" else "onnx"


def check_float32(encoder: Encoder) -> None:
    """Raise EncoderError for an encoder that is in int8 already: its file is part of another artifact."""
    if encoder.precision != "float32":
        raise EncoderError(
            f"the encoder {encoder.name} is in int8 already, for the images of another artifact: build with its "
            "network in float32, `Encoder.of(encoder.model)`."
        )


def quantized(encoder: Encoder, engine: Name, source: Source, work: Path, limit: int | None) -> tuple[Encoder, Path]:
    """The encoder in int8, and the file with its network in the work folder of a build, where a later try finds it.

    Raises EncoderError if its network cannot be exported or quantized, and SourceError if no image can be read.
    """
    path = work / f"{QUANTIZED}{encoder.fingerprint[:16]}.onnx"
    if not path.exists():
        from retrieval.encoders.network.quantize import quantize

        exported = encoder.network.exported
        if exported is None:
            raise EncoderError(f"{encoder.name} cannot be exported, so it cannot compute in int8: build float32.")
        pixels = calibration_pixels(encoder, source, work, limit)
        say(f"quantizing {encoder.name} on {len(pixels):,} images")
        work.mkdir(parents=True, exist_ok=True)
        with whole(path) as unfinished:
            quantize(exported, unfinished, pixels)
    return encoder.in_int8(path, engine), path


def calibration_pixels(encoder: Encoder, source: Source, work: Path, limit: int | None) -> list[Floats]:
    """Up to 300 images of a source as the network sees them, each (3, H, W) float32; the same in each call.

    They are spread over a source on this machine, and the first ones of another. Raises SourceError if none can be
    read.
    """

    def prepared(raw: RawImage) -> Floats | None:
        try:
            return encoder.preprocess(open_views(raw.read(), [View(resize=resize_of(encoder))])[0])
        except ImageError:
            return None

    with (
        closing(ahead(islice(_chosen(source, limit), IMAGES), Fetched(work / FETCHED))) as rows,
        ThreadPoolExecutor() as pool,
    ):
        pixels = [one for one in pool.map(prepared, rows) if one is not None]
    if not pixels:
        raise SourceError("int8 has to be calibrated on images of the source, and none of them can be read.")
    return pixels


def _chosen(source: Source, limit: int | None) -> Iterator[RawImage]:
    """The rows of a source: its first ones, if images come over the network, else a random choice of all."""
    rows = islice(source.rows(), limit)
    if "revision" in source.about:
        yield from rows
        return
    kept: list[RawImage] = []
    draw, read = random.Random(0), 0
    for number, raw in enumerate(rows):  # reservoir sampling: the number of rows may not be known
        if raw.fetch or read > _MOST_READ:
            yield from kept
            yield raw
            yield from rows
            return
        read += len(raw.data or b"")
        if number < IMAGES:
            kept.append(raw)
        elif (place := draw.randrange(number + 1)) < IMAGES:
            kept[place] = raw
    yield from kept
