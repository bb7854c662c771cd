"""What a text encoder asks of the two networks behind it, its towers, and how these read words and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from PIL import Image

from retrieval.arrays import Floats
from retrieval.encoders.preprocess import check_data_config

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
# The Hub's names for the exported towers of such a model.
TEXT_TOWER, IMAGE_TOWER = "onnx/text_model.onnx", "onnx/vision_model.onnx"
OWN_TOKENIZER = "onnx/tokenizer.json"  # of a model whose own tokenizer is of another form
OWN_KEY = "lookalike"  # in config.json, for what transformers' own format cannot hold
IDS, MASK = "input_ids", "attention_mask"  # inputs of the exported text tower
_MOST_WORDS = 4_096  # tokens
_LENGTHS = (8, 16, 32)  # tokens
_MOST_ID = 2**31 - 1


class Towers(Protocol):
    """The text tower and the image tower of one model. Called from one thread only."""

    def texts(self, texts: list[str]) -> Floats:
        """N texts to (N, D) float32 embeddings before normalisation; a text that is too long is cut off."""

    def images(self, images: Sequence[Image.Image]) -> Floats:
        """N RGB images to (N, D) float32 embeddings before normalisation."""


@dataclass(frozen=True)
class Reading:
    """How the exported towers read words and pictures."""

    words: int
    """The most tokens of a text."""
    fixed: bool
    """Whether each text is padded to that many tokens, as SigLIP was trained; else to the next of a few lengths."""
    pad: int
    """The token that a text is padded with."""
    masked: bool
    """Whether the text tower is told which tokens are padding."""
    pictures: dict[str, Any]
    """timm's preprocessing configuration (see `retrieval.encoders.preprocess`)."""

    def __post_init__(self) -> None:
        """Raises ValueError or TypeError for values that no model has."""
        if type(self.words) is not int or not 1 <= self.words <= _MOST_WORDS:
            raise ValueError(f"texts of {self.words} tokens are not possible, only 1 to {_MOST_WORDS:,}")
        if type(self.pad) is not int or not 0 <= self.pad <= _MOST_ID:
            raise ValueError(f"the padding {self.pad} is no token")
        if type(self.fixed) is not bool or type(self.masked) is not bool:
            raise TypeError("fixed and masked must be true or false")
        check_data_config(self.pictures)

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many tokens a text can have when it is padded, in increasing order."""
        return (self.words,) if self.fixed else (*(length for length in _LENGTHS if length < self.words), self.words)

    def facts(self) -> dict[str, Any]:
        """As JSON holds it; `Reading(**facts)` gives it back."""
        return asdict(self)
