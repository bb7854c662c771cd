"""The fingerprint of a saved text model, from its files alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from retrieval.encoders import weights
from retrieval.encoders.text.towers import OWN_KEY, TOKENIZER
from retrieval.errors import EncoderError
from retrieval.untrusted.strict_json import parse_json

# Facts that do not affect the vectors, or may change when a model is saved and loaded.
_NOT_THE_MODEL = {
    *("_name_or_path", "name_or_path", "name", "licence", "architectures", "dtype", "transformers_version"),
    *("is_local", "local_files_only"),
}


def fingerprint_of_files(folder: Path) -> str:
    """SHA-256 hex digest of weights, preprocessing and tokenizer in a folder: equal where the vectors are.

    `folder` is what `TextEncoder.save` wrote. Exported towers do not count: they give the same vectors. Raises
    EncoderError for weights and settings that cannot be read.
    """
    settings = (path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".txt", ".model"))
    files = [path for path in sorted(folder.glob("*.safetensors")) if path.stem != "index"]  # not those of the gallery
    for path in files:
        weights.stored_shapes(path)  # its header is checked
    return weights.fingerprint_of_files([[path.name, _content(path)] for path in settings], files)


def _content(path: Path) -> Any:
    if path.suffix != ".json" or path.name == TOKENIZER:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        facts = dict(parse_json(path.read_bytes()))
        facts[OWN_KEY] = _without(dict(facts.get(OWN_KEY) or {}))
    except (TypeError, ValueError) as error:
        raise EncoderError(f"{path.name} is not an object of settings: {error}") from error
    return _without(facts)


def _without(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in facts.items() if name not in _NOT_THE_MODEL}
