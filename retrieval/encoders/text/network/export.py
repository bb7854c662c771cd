"""Export: the two towers of a text model to ONNX, held against torch before they are used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from retrieval.encoders.engines.base import EMBEDDING, PIXELS
from retrieval.encoders.network.export import distance, write_onnx
from retrieval.encoders.text.exported import ExportedTowers
from retrieval.encoders.text.network.model import Network
from retrieval.encoders.text.network.tokenizer import as_fast
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
from retrieval.errors import ArtifactError, EncoderError
from retrieval.files.held import temporary_folder
from retrieval.files.storing import storing

_MOST_DIFFERENCE = 1e-5  # of a score, as for the encoder of pictures
_AT_ONCE = 8
_LONG = "a photo of a small red car on wet grass in front of an old house, seen from above, with two people in it"
# Short, long and too long; capitals, signs, other scripts, and spaces in odd places.
_TEXTS = [
    *(_LONG[start : start + length] for length in (1, 5, 11, 20, 35, 60) for start in (0, 13, 29)),
    _LONG,
    " ".join([_LONG] * 30),
    *(
        "Two  RED shirts, size 42!",
        "don't-stop",
        "é日本 🙂",
        "½ ﬁne ＡＢＣ\u3000x",
        "ΣΑΣ İß",
        "a\tb\n c ",
        "!?",
        "1,234.50 $",
        "a red shirt\u200b",
        "\ufeffa red shirt\ufeff \u200b",
    ),
    *("naïve café", "красная машина", "赤い車", "سيارة حمراء", "a_b|c", "</s> <pad>", "e\u0301 \u200b \u202e"),
]


class _Text(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Any:
        return self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output


class _Picture(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.model.get_image_features(pixel_values=pixels).pooler_output


def export_towers(network: Network, folder: Path, pictures: Sequence[Image.Image]) -> dict[str, Any]:
    """See `TextEncoder.export`."""
    if (reading := network.reading) is None:
        raise EncoderError("only transformers can prepare its pictures and texts")
    with temporary_folder() as place:
        found = _written(network, reading, place, pictures)
        for path in (place / Path(TEXT_TOWER).parent).iterdir():
            target = folder / path.relative_to(place)
            target.parent.mkdir(exist_ok=True)
            with storing(target, ArtifactError, needed=path.stat().st_size):
                shutil.copyfile(path, target)
    return {"texts": len(_TEXTS), "images": len(pictures), "largest_difference": float(f"{found:.1g}")}


def _written(network: Network, reading: Reading, place: Path, pictures: Sequence[Image.Image]) -> float:
    """Write the towers, and what they need to be loaded, into an empty folder; the most by which a score differs."""
    (place / TEXT_TOWER).parent.mkdir()
    (place / CONFIG).write_text(json.dumps({OWN_KEY: {"reads": reading.facts()}}), encoding="utf-8")
    if network.processor.tokenizer.is_fast:
        (place / TOKENIZER).write_text(network.processor.tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    else:
        as_fast(network.processor.tokenizer).save(str(place / OWN_TOKENIZER))
    _export_text(network, reading, place / TEXT_TOWER)
    if pictures:
        noise = torch.rand((2, *reading.pictures["input_size"]), generator=torch.Generator().manual_seed(0))
        write_onnx(_Picture(network.model), {PIXELS: noise}, place / IMAGE_TOWER, [EMBEDDING])
    try:
        exported = ExportedTowers(place, "onnx")
    except ValueError as error:  # of files that are larger than any that would be loaded
        raise EncoderError(f"its exported form would not be loaded: {error}") from error
    if (found := _compared(network, exported, pictures)) > _MOST_DIFFERENCE:
        raise EncoderError(f"the exported towers move a score by {found:.1g}, more than {_MOST_DIFFERENCE:.0e}")
    return found


def _export_text(network: Network, reading: Reading, path: Path) -> None:
    tokens = network.tokens(["a red hat", "x"])
    inputs = {name: tokens[name] for name in (IDS, MASK)[: 1 + reading.masked]}
    write_onnx(_Text(network.model), inputs, path, [EMBEDDING], also_dynamic={1: "words"})


def _compared(network: Network, exported: ExportedTowers, pictures: Sequence[Image.Image]) -> float:
    """The most by which a score differs between torch and the exported towers, for texts and these pictures."""
    found = [_by_parts(network.texts, exported.texts, _TEXTS), _by_parts(network.images, exported.images, pictures)]
    return max(found)


def _by_parts(one: Any, other: Any, items: Sequence[Any]) -> float:
    parts = [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]
    parts.append(items[:1])  # one alone: an export can be right for several only
    found: list[float] = [distance(one(list(part)), other(list(part))) for part in parts if part]
    return max(found, default=0.0)
