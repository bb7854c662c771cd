"""Text encoder: a CLIP or SigLIP model of `transformers`, which embeds texts and images as unit vectors in one space.

CLIP: Radford et al., 2021 (https://arxiv.org/abs/2103.00020). SigLIP: Zhai et al., 2023
(https://arxiv.org/abs/2303.15343). Weights are read only from safetensors, and code shipped with a model is never run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from huggingface_hub import constants
from PIL import Image

from retrieval.arrays import Floats, Vectors
from retrieval.encoders.network.planned import planned
from retrieval.encoders.presets.licences import licence_of_text_model
from retrieval.encoders.unit import check_shape, unit_rows
from retrieval.encoders.weights import stored_shapes
from retrieval.errors import EncoderError, QueryError, first_line, short
from retrieval.files.locks import check_lockable
from retrieval.forking import Batches, OneThread

_KINDS = ("clip", "siglip", "siglip2")  # model types as `transformers` names them
_BATCH = 8
_LONGEST = 4_096  # characters: more than any of the models reads, yet fast to tokenize
_OWN_KEY = "lookalike"  # in config.json, for what transformers' own format cannot hold
# Settings that do not affect the output, or may change when a model is saved and loaded.
_NOT_THE_MODEL = {"_name_or_path", "architectures", "dtype", "transformers_version", _OWN_KEY}
_MOST_BYTES = {".json": 2**26, ".txt": 2**26, ".model": 2**26}  # a tokenizer of 256,000 words has half of that
_MOST_SIDE = 2_048  # pixels
_MOST_GROWTH = 1_000  # times that a text may become longer
_SPARE = 1_000_000  # weights that are computed and not stored, such as positions
_NOT_THE_TOKENIZER = {"truncation", "padding"}  # left over from the last text
_T = TypeVar("_T")


class TextEncoder:
    """A network for texts and images in eval mode, float32, with its own preprocessing and tokenizer."""

    def __init__(self, model: Any, processor: Any, name: str, licence: str | None = None) -> None:
        self.model: Any = model.eval()
        self.processor: Any = processor
        self.name = name
        """The name on the Hub, for example `openai/clip-vit-large-patch14`; for a folder, the folder's name."""
        self.licence = licence  # of the weights: an id of the Hub, or `unknown`; None if it is not stated
        self._words = int(model.config.text_config.max_position_embeddings)
        # SigLIP was trained on texts padded to a fixed length; for CLIP, padding would only cost time.
        self._padding = "longest" if model.config.model_type == "clip" else "max_length"
        self.fingerprint: str = self._fingerprint()
        # As in `Encoder`: one thread computes, so OpenMP keeps one team. The tokenizer is not thread-safe either.
        self._thread = OneThread("text-encoder")
        self._text_queries = Batches(self._thread, self._texts, _BATCH)
        self._image_queries = Batches(self._thread, self._images, _BATCH)
        self.dim = int(self._on_thread(partial(self._texts, ["size"])).shape[-1])

    @classmethod
    def create(cls, name: str, licence: str | None = None) -> TextEncoder:
        """Create an encoder from a model on the Hub, or from a folder written by `save_pretrained`.

        `licence` is that of its weights; None takes what its card on the Hub states, or the artifact that it is from.
        Raises EncoderError if it cannot be loaded, is neither CLIP nor SigLIP, or embeds images in another space.
        """
        folder = Path(name).expanduser()
        if folder.is_dir():
            made = cls.load(folder)
        else:
            check_lockable(Path(constants.HF_HUB_CACHE), EncoderError)
            with _loading(name, " Check the name and the network, or give the folder of a local model."):
                made = cls(*_opened(name, local=False), name)
        made.licence = licence or made.licence or licence_of_text_model(name)
        picture = made._on_thread(partial(made._images, [Image.new("RGB", (64, 64))]))
        check_shape(picture.shape, 1, made.dim, made.name)  # texts and images must share one space
        return made

    @classmethod
    def load(cls, folder: Path) -> TextEncoder:
        """Load what `save` wrote, only from this folder; raises EncoderError if its files are invalid."""
        with _loading(f"in the folder {folder.name}"):
            model, processor = _opened(str(folder), local=True)
            own = getattr(model.config, _OWN_KEY, None) or {}
            told = {key: short(str(value), 100) for key, value in own.items() if value}
            return cls(model, processor, told.get("name", short(folder.resolve().name, 100)), told.get("licence"))

    def save(self, folder: Path) -> None:
        """Write config, weights, preprocessing and tokenizer in `transformers`' own format."""
        setattr(self.model.config, _OWN_KEY, {"name": self.name, "licence": self.licence})
        if self.processor.tokenizer.is_fast:  # it keeps the settings of the last text, and would save them
            self.processor.tokenizer.backend_tokenizer.no_truncation()
            self.processor.tokenizer.backend_tokenizer.no_padding()
        with _quiet():
            self.model.save_pretrained(folder, max_shard_size="1TB")  # a single file
            self.processor.save_pretrained(folder)
        for path in folder.iterdir():
            path.chmod(0o644)  # safetensors creates it readable by the owner only

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """N texts to (N, D) float32 rows of unit length; text beyond the model's maximum length is cut off.

        Raises QueryError for an empty text, EmbeddingError for one whose embedding has no direction.
        """
        if any(not text.strip() for text in texts):
            raise QueryError("the text to search for is empty: give at least one letter.")
        # An unpaired surrogate, which JSON can contain, cannot be encoded as UTF-8.
        clean = [text.strip()[:_LONGEST].encode("utf-8", "replace").decode() for text in texts]
        return self._in_batches(clean, self._texts, self._text_queries)

    def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
        """RGB images to (N, D) float32 rows of unit length."""
        return self._in_batches(images, self._images, self._image_queries)

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

    @torch.inference_mode()
    def _texts(self, texts: list[str]) -> Floats:
        cut = {"padding": self._padding, "truncation": True, "max_length": self._words}
        return _pooled(self.model.get_text_features(**self.processor(text=texts, return_tensors="pt", **cut)))

    @torch.inference_mode()
    def _images(self, images: list[Image.Image]) -> Floats:
        return _pooled(self.model.get_image_features(**self.processor(images=images, return_tensors="pt")))

    def _fingerprint(self) -> str:
        """SHA-256 hex digest of weights, preprocessing and tokenizer: equal for encoders that give the same vectors."""
        config = {name: fact for name, fact in self.model.config.to_diff_dict().items() if name not in _NOT_THE_MODEL}
        facts = [config, self.processor.image_processor.to_dict(), _tokenizer_facts(self.processor.tokenizer)]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _pooled(output: Any) -> Floats:
    """The pooled features, which `transformers` wraps in the output of the tower."""
    features: Floats = output.pooler_output.numpy()
    return features


def _tokenizer_facts(tokenizer: Any) -> list[Any]:
    facts = [tokenizer.special_tokens_map, tokenizer.padding_side]
    if tokenizer.is_fast:
        whole = json.loads(tokenizer.backend_tokenizer.to_str())
        return [*facts, {name: part for name, part in whole.items() if name not in _NOT_THE_TOKENIZER}]
    return [*facts, hashlib.sha256(tokenizer.sp_model.serialized_model_proto()).hexdigest(), tokenizer.get_vocab()]


def _opened(where: str, *, local: bool) -> tuple[Any, Any]:
    """Load model and processor from a folder or a Hub repository; raises ValueError for an unsupported model."""
    from transformers import AutoConfig, AutoModel, AutoProcessor

    safe = {"trust_remote_code": False, "local_files_only": local}
    with _quiet():
        config = AutoConfig.from_pretrained(where, **safe)
        if config.model_type not in _KINDS or hasattr(config, "quantization_config"):
            raise ValueError(f"its type is {config.model_type!r}, not plain CLIP or SigLIP")
        if local:
            _check_size(Path(where), lambda: AutoModel.from_config(config))
        exact = {"dtype": torch.float32, "attn_implementation": "sdpa", "use_safetensors": True}
        model, found = AutoModel.from_pretrained(where, config=config, output_loading_info=True, **exact, **safe)
        processor = AutoProcessor.from_pretrained(where, **safe)
    _check_processor(processor)
    if wrong := sorted(map(str, {*found["missing_keys"], *found["mismatched_keys"]})):
        raise ValueError(f"{len(wrong)} tensors are missing or do not fit, the first is {wrong[0]}")
    return model, processor


def _check_size(folder: Path, make: Callable[[], Any]) -> None:
    """Raise ValueError or EncoderError for files too large to be a model's, or a network much larger than its weights.

    `make` builds the network.
    """
    for path in folder.iterdir():
        if path.suffix in _MOST_BYTES and (size := path.stat().st_size) > _MOST_BYTES[path.suffix]:
            raise ValueError(f"{path.name} has {size:,} bytes, more than {_MOST_BYTES[path.suffix]:,}")
    stored: dict[str, tuple[int, ...]] = {}
    for path in folder.glob("*.safetensors"):
        stored |= stored_shapes(path)
    if not stored:
        return  # loading says that there are no weights
    plan = {name: tuple(tensor.shape) for name, tensor in planned(make, stored).state_dict().items()}
    for name in plan.keys() & stored.keys():
        if plan[name] != stored[name]:
            raise ValueError(f"{name} has the shape {stored[name]}, but the model needs {plan[name]}")
    needed, there = (sum(map(math.prod, shapes.values())) for shapes in (plan, stored))
    if needed > 2 * there + _SPARE:  # tied weights are stored once
        raise ValueError(f"the model needs {needed:,} weights, but {there:,} are stored")


def _check_processor(processor: Any) -> None:
    """Raise ValueError for preprocessing that would enlarge pictures or texts beyond what any model reads."""
    images = processor.image_processor.to_dict()
    for name in ("size", "crop_size", "pad_size"):
        sides = images.get(name) or {}
        for side in sides.values() if isinstance(sides, dict) else [sides]:
            if side is not None and not 1 <= side <= _MOST_SIDE:
                raise ValueError(f"pictures are resized to {side} pixels, and the most is {_MOST_SIDE:,}")
    normalizer = processor.tokenizer.backend_tokenizer.normalizer if processor.tokenizer.is_fast else None
    growth = _growth(json.loads(normalizer.__getstate__())) if normalizer else 1
    if growth > _MOST_GROWTH:
        raise ValueError(f"its tokenizer makes texts {growth:,} times as long")


def _growth(normalizer: dict[str, Any]) -> int:
    """How many times longer a text can become, as a normalizer replaces or puts letters in front."""
    longest = max((len(str(normalizer.get(name, ""))) for name in ("content", "prepend")), default=1)
    return max(longest, 1) * math.prod(_growth(part) for part in normalizer.get("normalizers", []))


@contextmanager
def _loading(what: str, hint: str = "") -> Iterator[None]:
    try:
        yield
    except Exception as error:  # transformers, the Hub client and safetensors each raise their own exceptions
        why = short(first_line(error), 300)
        raise EncoderError(f"the text model {what} could not be loaded: {why}.{hint}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and hints: loading is short, and problems are raised as our own errors."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
