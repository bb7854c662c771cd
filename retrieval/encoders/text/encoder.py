"""Text encoder: a CLIP or SigLIP model, which embeds texts and images as unit vectors in one space.

CLIP: Radford et al., 2021 (https://arxiv.org/abs/2103.00020). SigLIP: Zhai et al., 2023
(https://arxiv.org/abs/2303.15343). It is saved in the format of `transformers`. Beside it, the exported towers give the
same vectors without torch and `transformers`. Weights are read only from safetensors and ONNX, and code shipped with a
model is never run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from retrieval.arrays import Floats, Vectors
from retrieval.encoders.base import ImageEncoder
from retrieval.encoders.engines.choose import asked
from retrieval.encoders.presets.licences import licence_of_text_model
from retrieval.encoders.text.exported import ExportedTowers, own_facts
from retrieval.encoders.text.fingerprint import fingerprint_of_files
from retrieval.encoders.text.limits import check_files
from retrieval.encoders.text.towers import TEXT_TOWER, Towers
from retrieval.encoders.unit import check_shape, unit_rows
from retrieval.errors import EncoderError, MissingExtraError, QueryError, first_line, short
from retrieval.files.held import temporary_folder
from retrieval.forking import Batches, OneThread
from retrieval.installed import needs

if TYPE_CHECKING:
    from retrieval.encoders.text.network.model import Network

_BATCH = 8
_LONGEST = 2_048  # characters: more than any of the models reads, yet fast to tokenize
_T = TypeVar("_T")


class TextEncoder:
    """Turns texts and pictures into unit vectors of one space. Thread-safe."""

    def __init__(
        self,
        towers: Towers,
        name: str,
        network: Callable[[], Network],
        folder: Path | None = None,
        pictures: ImageEncoder | None = None,
    ) -> None:
        """`network` gives the model of `transformers`; it is only called where the model itself is needed.

        `folder` is where it was loaded from. `pictures` embeds pictures in the place of the model's own image tower.
        """
        self.towers, self._make, self._folder, self._pictures = towers, network, folder, pictures
        self.name = name
        """The name on the Hub, for example `openai/clip-vit-large-patch14`; for a folder, the folder's name."""
        self.licence: str | None = None
        """Of the weights: an id of the Hub, or `unknown`; None if an older version did not state it."""
        # As in `Encoder`: one thread computes, so OpenMP keeps one team. Not every tokenizer is thread-safe either.
        self._thread = OneThread("text-encoder")
        self._text_queries = Batches(self._thread, towers.texts, _BATCH)
        self._image_queries = Batches(self._thread, towers.images, _BATCH)
        self.dim = int(self._on_thread(partial(towers.texts, ["size"])).shape[-1])

    @classmethod
    def create(cls, name: str, licence: str | None = None) -> TextEncoder:
        """Create an encoder from a model on the Hub, or from a folder written by `save_pretrained`.

        `licence` is that of its weights; None takes what its card on the Hub states, or the artifact that it is from.
        Raises EncoderError if it cannot be loaded, is neither CLIP nor SigLIP, or embeds images in another space, and
        MissingExtraError if `transformers` is not installed.
        """
        with needs("a model for words"):
            from retrieval.encoders.text.network.model import from_hub
        folder = Path(name).expanduser()
        if not folder.is_dir() and (folder.is_absolute() or name.startswith((".", "~")) or folder.is_file()):
            raise EncoderError(f"there is no folder {name} with a text model.")
        if folder.is_dir():
            made = cls._with_torch(folder)
        else:
            with _loading(name, " Check the name and the network, or give the folder of a local model."):
                network = from_hub(name)
                made = cls(network, name, lambda: network)
        made.licence = licence or made.licence or licence_of_text_model(name)
        picture = made._on_thread(partial(made.towers.images, [Image.new("RGB", (64, 64))]))
        check_shape(picture.shape, 1, made.dim, made.name)  # texts and images must share one space
        return made

    @classmethod
    def load(cls, folder: Path, *, engine: str | None = None, pictures: ImageEncoder | None = None) -> TextEncoder:
        """Load what `save` wrote, only from this folder; raises EncoderError if its files are invalid.

        `engine` is `onnx`, `openvino` or `torch`; None takes what LOOKALIKE_ENGINE says, else ONNX Runtime. Without
        exported towers it is torch. All of them compute on the processor, wherever the encoder of pictures does.
        `pictures` is an encoder that is the model's image tower, and embeds the pictures.
        """
        chosen = (asked(engine) or "onnx") if (folder / TEXT_TOWER).is_file() else "torch"
        if chosen == "torch":
            return cls._with_torch(folder, pictures)

        def network() -> Network:
            with needs("the text model itself"):
                from retrieval.encoders.text.network.model import from_folder
            return from_folder(folder)

        with _loading(f"in the folder {folder.name}"):
            return cls._of_folder(ExportedTowers(folder, chosen), network, folder, pictures)

    @classmethod
    def _with_torch(cls, folder: Path, pictures: ImageEncoder | None = None) -> TextEncoder:
        with needs("a model for words whose towers are not exported, or --engine torch,"):
            from retrieval.encoders.text.network.model import from_folder
        with _loading(f"in the folder {folder.name}"):
            check_files(folder)
            network = from_folder(folder)
            return cls._of_folder(network, lambda: network, folder, pictures)

    @classmethod
    def _of_folder(
        cls, towers: Towers, network: Callable[[], Network], folder: Path, pictures: ImageEncoder | None
    ) -> TextEncoder:
        told = {name: short(str(fact), 100) for name, fact in own_facts(folder).items() if fact}
        made = cls(towers, told.get("name", short(folder.resolve().name, 100)), network, folder, pictures)
        made.licence = told.get("licence")
        return made

    @cached_property
    def network(self) -> Network:
        """The model of `transformers`, loaded when it is first needed; raises EncoderError if it cannot be."""
        with _loading(f"in the folder {self._folder.name if self._folder else self.name}"):
            return self._make()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex digest of weights, preprocessing and tokenizer: equal for encoders that give the same vectors."""
        if self._folder is not None and own_facts(self._folder):  # `save` wrote it
            return fingerprint_of_files(self._folder)
        with temporary_folder() as place:
            self.save(place)
            return fingerprint_of_files(place)

    def save(self, folder: Path) -> None:
        """Write config, weights, preprocessing and tokenizer in `transformers`' own format."""
        self.network.save(folder, self.name, self.licence)

    def export(self, folder: Path, pictures: Sequence[Image.Image]) -> dict[str, Any]:
        """Write the exported towers next to what `save` wrote there, if they give the same vectors.

        Compared with torch on these pictures and on texts of several kinds; without pictures, only the text tower is
        written. Returns how many there were of each, and the most by which a score differs. Raises EncoderError, and
        writes nothing, if the model cannot be exported or then gives other vectors, and ArtifactError if there is no
        room for them.
        """
        with needs("the export of a text model"):
            from retrieval.encoders.text.network.export import export_towers
        return export_towers(self.network, folder, pictures)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """N texts to (N, D) float32 rows of unit length; text beyond the model's maximum length is cut off.

        Raises QueryError for an empty text, EmbeddingError for one whose embedding has no direction.
        """
        if any(not text.strip() for text in texts):
            raise QueryError("the text to search for is empty: give at least one letter.")
        # An unpaired surrogate, which JSON can contain, cannot be encoded as UTF-8.
        clean = [text.strip()[:_LONGEST].encode("utf-8", "replace").decode() for text in texts]
        return self._in_batches(clean, self.towers.texts, self._text_queries)

    def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
        """RGB images to (N, D) float32 rows of unit length."""
        if self._pictures is not None:
            return self._pictures.embed_images(images)
        return self._in_batches(images, self.towers.images, self._image_queries)

    def _in_batches(
        self, items: Sequence[_T], embed: Callable[[list[_T]], Floats], queries: Batches[_T, Floats]
    ) -> Vectors:
        if len(items) == 1:  # as in `Encoder`, queries that come while the network is busy share the next forward pass
            return unit_rows(queries.run(items[0])[None], self.dim, self.name)
        starts = range(0, len(items), _BATCH)
        parts = [self._on_thread(partial(embed, list(items[start : start + _BATCH]))) for start in starts]
        return unit_rows(np.concatenate([np.empty((0, self.dim), np.float32), *parts]), self.dim, self.name)

    def _on_thread(self, work: Callable[[], Floats]) -> Floats:
        return self._thread.run(work)


@contextmanager
def _loading(what: str, hint: str = "") -> Iterator[None]:
    try:
        yield
    except MissingExtraError:
        raise
    except Exception as error:  # transformers, the Hub client and safetensors each raise their own exceptions
        why = short(first_line(error), 300)
        raise EncoderError(f"the text model {what} could not be loaded: {why}.{hint}") from error
