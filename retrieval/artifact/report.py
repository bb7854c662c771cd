"""Report: how many images of a source were indexed, duplicates, skipped, or left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
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


@dataclass(frozen=True)
class SyncReport:
    """What a sync does. found = new + changed + unchanged + duplicates + skipped + the sum of what was left out.

    `removed` are no longer found.
    """

    new: list[str] = field(default_factory=list)
    """Sources of the images to embed."""
    changed: list[str] = field(default_factory=list)
    """Sources of known images with another source, label or attributes than before."""
    unchanged: int = 0
    removed: list[str] = field(default_factory=list)
    """Sources of the images of the artifact that the source no longer has."""
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of a duplicate's source, and the source of the image with the same content."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of source and reason."""
    left_out: list[tuple[str, str, int]] = field(default_factory=list)
    """What is no image of the source by its name or place: name, reason, and how many files or rows these are."""

    @property
    def found(self) -> int:
        """Number of rows of the source."""
        images = len(self.new) + len(self.changed) + self.unchanged
        return images + len(self.duplicates) + len(self.skipped) + sum(count for _, _, count in self.left_out)

    @property
    def is_empty(self) -> bool:
        """Whether the artifact already is what the source is."""
        return not (self.new or self.changed or self.removed)

    def summary(self) -> dict[str, int]:
        """The counts, as stored in the manifest."""
        return {name: value if isinstance(value, int) else len(value) for name, value in asdict(self).items()}


def without(report: SyncReport, skipped: list[tuple[str, str]]) -> SyncReport:
    """The report once some of the new images, and with them their copies, could not be embedded."""
    lost = dict(skipped)
    return replace(
        report,
        new=[name for name in report.new if name not in lost],
        skipped=[*report.skipped, *skipped, *((name, lost[same]) for name, same in report.duplicates if same in lost)],
        duplicates=[pair for pair in report.duplicates if pair[1] not in lost],
    )
