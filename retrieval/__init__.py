"""Image retrieval: build, open, search and share artifacts.

The public names are imported lazily on first use, so `import retrieval` is fast and does not load torch.

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
    MissingExtraError,
    QueryError,
    SourceError,
    StoreError,
)

if TYPE_CHECKING:
    from retrieval.artifact.load import Artifact
    from retrieval.build.build import build_artifact
    from retrieval.build.change import add_images, remove_images
    from retrieval.build.parts.build import build_part
    from retrieval.build.parts.merge import merge_parts
    from retrieval.build.sync import sync_artifact
    from retrieval.encoders.image import Encoder
    from retrieval.encoders.text.encoder import TextEncoder
    from retrieval.hub.deploy import deploy
    from retrieval.hub.pull import open_artifact, pull
    from retrieval.hub.push import push
    from retrieval.images.open import open_image
    from retrieval.query import Part
    from retrieval.search import Hit, Searcher, find_copies, find_duplicates
    from retrieval.sources.open import open_source

_HOMES = {
    "Artifact": "artifact.load",
    "Encoder": "encoders.image",
    "Hit": "search",
    "Part": "query",
    "Searcher": "search",
    "TextEncoder": "encoders.text.encoder",
    "add_images": "build.change",
    "build_artifact": "build.build",
    "build_part": "build.parts.build",
    "deploy": "hub.deploy",
    "find_copies": "search",
    "find_duplicates": "search",
    "merge_parts": "build.parts.merge",
    "open_artifact": "hub.pull",
    "open_image": "images.open",
    "open_source": "sources.open",
    "pull": "hub.pull",
    "push": "hub.push",
    "remove_images": "build.change",
    "sync_artifact": "build.sync",
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
    "MissingExtraError",
    "Part",
    "QueryError",
    "Searcher",
    "SourceError",
    "StoreError",
    "TextEncoder",
    "add_images",
    "build_artifact",
    "build_part",
    "deploy",
    "find_copies",
    "find_duplicates",
    "merge_parts",
    "open_artifact",
    "open_image",
    "open_source",
    "pull",
    "push",
    "remove_images",
    "sync_artifact",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
