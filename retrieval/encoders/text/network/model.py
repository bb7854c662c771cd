"""A text model of `transformers`, with its processor: loaded, saved, run by torch in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import constants
from PIL import Image

from retrieval.arrays import Floats
from retrieval.encoders.image import Encoder
from retrieval.encoders.network.export import distance
from retrieval.encoders.network.planned import planned
from retrieval.encoders.preprocess import Transform
from retrieval.encoders.text.limits import MOST_SIDE, check_growth, check_table
from retrieval.encoders.text.network.prepare import reading_of_processor
from retrieval.encoders.text.network.tokenizer import sentence_pieces
from retrieval.encoders.text.towers import OWN_KEY, Reading
from retrieval.encoders.weights import stored_shapes
from retrieval.errors import EncoderError
from retrieval.files.locks import check_lockable

_KINDS = ("clip", "siglip", "siglip2")  # model types as `transformers` names them
_SAME_TOWER = 1e-3  # of a score: two implementations differ by 1e-5, with another activation by 0.01 or more
_SPARE = 1_000_000  # weights that are computed and not stored, such as positions


class Network:
    """A model for texts and images in eval mode, with its own preprocessing and tokenizer."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model: Any = model.eval()
        self.processor: Any = processor
        # A query such as "the </s> sign" means these letters, not the end of a text.
        processor.tokenizer.split_special_tokens = True
        self._words = int(model.config.text_config.max_position_embeddings)
        # SigLIP was trained on texts padded to a fixed length; for CLIP, padding would only cost time.
        self._padding = "longest" if model.config.model_type == "clip" else "max_length"
        self.reading: Reading | None = reading_of_processor(processor, self._words, fixed=self._padding != "longest")
        """How exported towers would read words and pictures; None if only `transformers` can prepare them."""

    @cached_property
    def _transform(self) -> Transform | None:
        return None if self.reading is None else Transform(self.reading.pictures)

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> Floats:
        """See `Towers`."""
        return _pooled(self.model.get_text_features(**self.tokens(texts)))

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> Floats:
        """See `Towers`. Pictures are resized by Pillow, as CLIP and SigLIP were trained, and as exported towers do."""
        if self._transform is None:
            return _pooled(self.model.get_image_features(**self.processor(images=list(images), return_tensors="pt")))
        return self._embedded([self._transform(image) for image in images])

    @torch.inference_mode()
    def _embedded(self, tensors: Sequence[Floats]) -> Floats:
        return _pooled(self.model.get_image_features(pixel_values=torch.from_numpy(np.stack(tensors))))

    def tokens(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """What the text tower takes for N texts; text beyond the model's maximum length is cut off."""
        cut = {"padding": self._padding, "truncation": True, "max_length": self._words}
        return dict(self.processor(text=texts, return_tensors="pt", **cut))

    def save(self, folder: Path, name: str, licence: str | None) -> None:
        """Write config, weights, preprocessing and tokenizer in `transformers`' own format."""
        reads = None if self.reading is None else self.reading.facts()
        setattr(self.model.config, OWN_KEY, {"name": name, "licence": licence, "reads": reads})
        if self.processor.tokenizer.is_fast:  # it keeps the settings of the last text, and would save them
            self.processor.tokenizer.backend_tokenizer.no_truncation()
            self.processor.tokenizer.backend_tokenizer.no_padding()
        with _quiet():
            self.model.save_pretrained(folder, max_shard_size="1TB")  # a single file
            self.processor.save_pretrained(folder)
        for path in folder.iterdir():
            path.chmod(0o644)  # safetensors creates it readable by the owner only

    def is_tower(self, encoder: Encoder, pictures: Sequence[Image.Image]) -> bool:
        """Whether an encoder is the image tower of this model: it gives the same vectors, for these pictures.

        They are prepared as the encoder does it, which may show the whole picture where the model cuts its edges off.
        """
        own, other = self.reading.pictures if self.reading else {}, encoder.data_config
        alike = all(np.allclose(own[name], other[name], atol=1e-3) for name in ("mean", "std")) if own else False
        if encoder.precision != "float32" or not alike or list(own["input_size"]) != list(other["input_size"]):
            return False
        tensors = [encoder.preprocess(image) for image in pictures]
        return distance(encoder.embed_tensors(tensors), self._embedded(tensors)) <= _SAME_TOWER


def from_hub(name: str) -> Network:
    """A model from the Hub; raises whatever `transformers`, the Hub client and safetensors raise."""
    check_lockable(Path(constants.HF_HUB_CACHE), EncoderError)
    return Network(*_opened(name, local=False))


def from_folder(folder: Path) -> Network:
    """A model from a folder alone; raises like `from_hub`. Its files must not be larger than a model's."""
    return Network(*_opened(str(folder), local=True))


def _pooled(output: Any) -> Floats:
    """The pooled features, which `transformers` wraps in the output of the tower."""
    features: Floats = output.pooler_output.numpy()
    return features


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
    """Raise ValueError or EncoderError for a network, built by `make`, that is much larger than its weights."""
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
            if side is not None and not 1 <= side <= MOST_SIDE:
                raise ValueError(f"pictures are resized to {side} pixels, and the most is {MOST_SIDE:,}")
    if processor.tokenizer.is_fast:
        check_growth(processor.tokenizer.backend_tokenizer.normalizer)
    else:
        check_table(sentence_pieces(processor.tokenizer).normalizer_spec.precompiled_charsmap)


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
