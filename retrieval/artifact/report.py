"""What became of the images of a source."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """What became of the images of a source: found = indexed + duplicates + skipped."""

    found: int
    indexed: int
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    """(source, the source or the id of the image with the same content)"""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(source, reason)"""

    def summary(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        return {**asdict(self), "duplicates": len(self.duplicates)}
