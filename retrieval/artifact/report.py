"""Report: how many images of a source were indexed, duplicates, or skipped."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """Counts for the images of a source: found = indexed + duplicates + skipped."""

    found: int
    indexed: int
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of a duplicate's source, and the source or id of the image with the same content."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of source and reason."""

    def summary(self) -> dict[str, Any]:
        """The report as stored in the manifest."""
        return {**asdict(self), "duplicates": len(self.duplicates)}
