"""Text: a CLIP or SigLIP model of `transformers`, texts and images in, unit vectors of one space out.

CLIP is Radford et al., 2021 (https://arxiv.org/abs/2103.00020), SigLIP is Zhai et al., 2023
(https://arxiv.org/abs/2303.15343). Weights are read from safetensors only, and no code that comes with a model is run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from retrieval.errors import EncoderError, QueryError, first_line, short
from retrieval.forking import OneThread

_KINDS = ("clip", "siglip", "siglip2")  # what `transformers` calls the architectures
_BATCH = 8
_LONGEST = 4_096  # characters: more than any of the models reads, and quick to cut into tokens
_OWN_KEY = "lookalike"  # of config.json: what transformers' own format has no place for
# What says nothing of the numbers that come out, or may be otherwise after saving and loading.
_NOT_THE_MODEL = {"_name_or_path", "architectures", "dtype", "transformers_version", _OWN_KEY}
_NOT_THE_TOKENIZER = {"truncation", "padding"}  # which the last text has left behind
_T = TypeVar("_T")


class TextEncoder:
    """A network for texts and images in eval mode, float32, with its own preprocessing and tokenizer."""

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        self.model: Any = model.eval()
        self.processor: Any = processor
        self.name = name
        """As the Hub has it, `openai/clip-vit-large-patch14` for one; of a folder, what that is called."""
        self._words = int(model.config.text_config.max_position_embeddings)
        # SigLIP was trained with texts that are filled up to one length; of CLIP that changes nothing but the time.
        self._padding = "longest" if model.config.model_type == "clip" else "max_length"
        self.fingerprint: str = self._fingerprint()
        # As in `Encoder`: one thread computes, so that OpenMP keeps one team. A tokenizer is not for several, either.
        self._thread = OneThread("text-encoder")
        self.dim = int(self._on_thread(partial(self._texts, ["size"])).shape[1])

    @classmethod
    def create(cls, name: str) -> TextEncoder:
        """Make an encoder from a model on the Hub, or from the folder of one as `save_pretrained` writes it.

        Raises EncoderError where it cannot be had, or is neither CLIP nor SigLIP.
        """
        folder = Path(name).expanduser()
        if folder.is_dir():
            return cls.load(folder)
        with _in_words(name, " Give the folder of one that is here, or check the name and the network."):
            return cls(*_opened(name, local=False), name)

    @classmethod
    def load(cls, folder: Path) -> TextEncoder:
        """Read what `save` has written, and nothing from elsewhere; raises EncoderError where its files do not fit."""
        with _in_words(f"the folder {folder.name}"):
            model, processor = _opened(str(folder), local=True)
            own = getattr(model.config, _OWN_KEY, None) or {}
            return cls(model, processor, short(str(own.get("name") or folder.resolve().name), 100))

    def save(self, folder: Path) -> None:
        """Write config, weights, preprocessing and tokenizer in `transformers`' own format."""
        setattr(self.model.config, _OWN_KEY, {"name": self.name})
        if self.processor.tokenizer.is_fast:  # which keeps how the last text was cut, and would save it
            self.processor.tokenizer.backend_tokenizer.no_truncation()
            self.processor.tokenizer.backend_tokenizer.no_padding()
        with _quiet():
            self.model.save_pretrained(folder, max_shard_size="1TB")  # one file
            self.processor.save_pretrained(folder)
        for path in folder.iterdir():
            path.chmod(0o644)  # safetensors lets nobody else read it

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """N texts to (N, D) float32 rows of unit length; what the model has no place for at the end is cut off.

        Raises QueryError for a text that is empty.
        """
        if any(not text.strip() for text in texts):
            raise QueryError("a text to search for has at least one letter; this one is empty.")
        # A half of a pair of surrogates, which JSON can hold, is no letter that could be encoded.
        clean = [text.strip()[:_LONGEST].encode("utf-8", "replace").decode() for text in texts]
        return self._in_batches(clean, self._texts)

    def embed_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """RGB images to (N, D) float32 rows of unit length."""
        return self._in_batches(images, self._images)

    def _in_batches(
        self, items: Sequence[_T], embed: Callable[[list[_T]], npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        starts = range(0, len(items), _BATCH)
        parts = [self._on_thread(partial(embed, list(items[start : start + _BATCH]))) for start in starts]
        vectors = np.concatenate([np.empty((0, self.dim), np.float32), *parts])
        if not np.isfinite(vectors).all():
            raise EncoderError(f"the weights of {self.name!r} give numbers that are not finite; they are damaged.")
        return vectors

    def _on_thread(self, work: Callable[[], npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        return self._thread.run(work)

    @torch.inference_mode()
    def _texts(self, texts: list[str]) -> npt.NDArray[np.float32]:
        cut = {"padding": self._padding, "truncation": True, "max_length": self._words}
        return _unit(self.model.get_text_features(**self.processor(text=texts, return_tensors="pt", **cut)))

    @torch.inference_mode()
    def _images(self, images: list[Image.Image]) -> npt.NDArray[np.float32]:
        return _unit(self.model.get_image_features(**self.processor(images=images, return_tensors="pt")))

    def _fingerprint(self) -> str:
        """SHA-256 over weights, preprocessing and tokenizer: two encoders with the same give the same vectors."""
        config = {name: fact for name, fact in self.model.config.to_diff_dict().items() if name not in _NOT_THE_MODEL}
        facts = [config, self.processor.image_processor.to_dict(), _tokenizer_facts(self.processor.tokenizer)]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _unit(output: Any) -> npt.NDArray[np.float32]:
    """The pooled features, which `transformers` hands out inside of what the tower gave, at unit length."""
    vectors: npt.NDArray[np.float32] = torch.nn.functional.normalize(output.pooler_output.float(), dim=1).numpy()
    return vectors


def _tokenizer_facts(tokenizer: Any) -> list[Any]:
    facts = [tokenizer.special_tokens_map, tokenizer.padding_side]
    if tokenizer.is_fast:
        whole = json.loads(tokenizer.backend_tokenizer.to_str())
        return [*facts, {name: part for name, part in whole.items() if name not in _NOT_THE_TOKENIZER}]
    return [*facts, hashlib.sha256(tokenizer.sp_model.serialized_model_proto()).hexdigest(), tokenizer.get_vocab()]


def _opened(where: str, *, local: bool) -> tuple[Any, Any]:
    """Model and processor of a folder, or of a repository on the Hub."""
    from transformers import AutoConfig, AutoModel, AutoProcessor

    safe = {"trust_remote_code": False, "local_files_only": local}
    with _quiet():
        config = AutoConfig.from_pretrained(where, **safe)
        if config.model_type not in _KINDS or hasattr(config, "quantization_config"):
            raise ValueError(f"it is of the type {config.model_type!r}, and not plain CLIP or SigLIP")
        exact = {"dtype": torch.float32, "attn_implementation": "sdpa", "use_safetensors": True}
        model, found = AutoModel.from_pretrained(where, config=config, output_loading_info=True, **exact, **safe)
        processor = AutoProcessor.from_pretrained(where, **safe)
    if wrong := sorted(map(str, {*found["missing_keys"], *found["mismatched_keys"]})):
        raise ValueError(f"{len(wrong)} tensors are missing or do not fit, the first is {wrong[0]}")
    return model, processor


@contextmanager
def _in_words(what: str, hint: str = "") -> Iterator[None]:
    try:
        yield
    except Exception as error:  # transformers, the Hub's client and safetensors each raise their own kinds
        why = short(first_line(error), 300)
        raise EncoderError(f"the text model of {what} could not be loaded: {why}.{hint}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars for what takes a moment, and no advice: what is wrong is an error of ours."""
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
