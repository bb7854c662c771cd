"""Finding: everything that serving a search needs.

The names below are loaded when they are first used, so that `import retrieval` is quick and loads no torch.

>>> import retrieval
>>> searcher = retrieval.Searcher.open("retrieval/starter")
>>> [hit.label for hit in searcher.search_by_id(searcher.gallery.ids[0], k=2)]
['shirt', 'shirt']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from retrieval.errors import (
    ArtifactError,
    AwayError,
    EncoderError,
    HubError,
    ImageError,
    IntegrityError,
    LookalikeError,
    MapError,
    QueryError,
    SourceError,
    StoreError,
)

if TYPE_CHECKING:
    from retrieval.artifact import Artifact, load_artifact
    from retrieval.build import add_images, build_artifact, remove_images
    from retrieval.encoder import Encoder
    from retrieval.images import open_image
    from retrieval.push import push_artifact
    from retrieval.remote import open_reference, pull
    from retrieval.search import Hit, Searcher
    from retrieval.sources import open_source
    from retrieval.text import TextEncoder

_HOMES = {
    "Artifact": "artifact",
    "Encoder": "encoder",
    "Hit": "search",
    "Searcher": "search",
    "TextEncoder": "text",
    "add_images": "build",
    "build_artifact": "build",
    "load_artifact": "artifact",
    "open_image": "images",
    "open_reference": "remote",
    "open_source": "sources",
    "pull": "remote",
    "push_artifact": "push",
    "remove_images": "build",
}

__all__ = [
    "Artifact",
    "ArtifactError",
    "AwayError",
    "Encoder",
    "EncoderError",
    "Hit",
    "HubError",
    "ImageError",
    "IntegrityError",
    "LookalikeError",
    "MapError",
    "QueryError",
    "Searcher",
    "SourceError",
    "StoreError",
    "TextEncoder",
    "add_images",
    "build_artifact",
    "load_artifact",
    "open_image",
    "open_reference",
    "open_source",
    "pull",
    "push_artifact",
    "remove_images",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
