"""Where the images of an artifact come from, after everything that was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrieval.artifact.sections import TrainingSection


def sources_of(facts: Mapping[str, Any], training: TrainingSection | None) -> list[dict[str, str]]:
    """Facts about the image sources: first the training or build source, then those added; a sync replaces them."""
    found = [dict((training and training.data.about) or (facts.get("build") or {}).get("source") or {})]
    for change in facts.get("changes") or []:
        if about := change.get("sync", {}).get("source"):
            # The licence may have been given to `build` only.
            before = next((known for known in found if known.get("name") == about.get("name")), {})
            found = [*found[: bool(training)], *([] if training and before else [{**before, **about}])]
        elif about := change.get("add", {}).get("source"):
            found.append(dict(about))
    return found
