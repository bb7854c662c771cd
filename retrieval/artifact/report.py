"""Report: how many images of a source were indexed, duplicates, skipped, or left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """Counts for the images of a source: found = indexed + duplicates + skipped + the sum of what was left out."""

    found: int
    indexed: int
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of a duplicate's source, and the source or id of the image with the same content."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of source and reason."""
    left_out: list[tuple[str, str, int]] = field(default_factory=list)
    """What is no image of the source by its name or place: name, reason, and how many files or rows these are."""

    def summary(self) -> dict[str, Any]:
        """The report as stored in the manifest."""
        return {**asdict(self), "duplicates": len(self.duplicates)}
