"""Sections: what metrics.json says of an artifact, as typed models with snake_case keys."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

FIGURE_NAMES = {
    "hit_at_1": "hit@1",
    "hit_at_5": "hit@5",
    "hit_at_10": "hit@10",
    "p_at_1": "P@1",
    "p_at_5": "P@5",
    "p_at_10": "P@10",
    "map": "mAP",
    "map_at_r": "MAP@R",
    "r_precision": "R-precision",
}
"""Key of a figure in metrics.json -> its usual name, which people are shown."""

Number = int | float
_Figure = TypeVar("_Figure")


class Section(BaseModel):
    """A part of metrics.json. Keys that a later version has added are kept."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", allow_inf_nan=False)


class Point(Section):
    """A figure, with the ends of its 95% interval."""

    value: float
    low: float
    high: float


class _Figures(Section, Generic[_Figure]):
    """Each of FIGURE_NAMES, a mean over the queries in [0, 1]."""

    hit_at_1: _Figure
    hit_at_5: _Figure
    hit_at_10: _Figure
    p_at_1: _Figure
    p_at_5: _Figure
    p_at_10: _Figure
    map: _Figure
    map_at_r: _Figure
    r_precision: _Figure

    def by_name(self) -> dict[str, _Figure]:
        """The figures that there are, under their usual names."""
        return {name: figure for key, name in FIGURE_NAMES.items() if (figure := getattr(self, key)) is not None}


class Figures(_Figures[Point]):
    """Figures of held-out queries, with intervals."""


class LeaveOneOut(_Figures[float | None]):
    """Every labelled image of the gallery as a query among the others."""

    hit_at_10: float | None = None  # which 0.1.0 did not measure
    queries: int
    images: int
    labels: int


class Reliability(Section):
    """The reliability curve: mean chance and share of right hits of each bin, and how many hits are in it."""

    chance: list[float]
    share: list[float]
    pairs: list[int]


class Checked(Section):
    """How well a calibration keeps its word, on queries that it was not learned from."""

    queries: int
    expected_calibration_error: float
    reliability: Reliability
    precision: Point | None
    shown: float
    refused: float


class Wanted(Section):
    """What the threshold was chosen for."""

    precision: float
    refused: float


class CalibrationSection(Section):
    """What `evaluation.confidence` turns a score into a match probability with, and how good that is."""

    weights: list[float] = Field(min_length=3, max_length=3)
    bias: float
    strengths: list[float] = Field(min_length=1)
    chances: list[float]
    threshold: float | None
    floor: float
    queries: int
    held_out: bool
    wanted: Wanted
    checked: Checked

    @model_validator(mode="after")
    def _check_curve(self) -> CalibrationSection:
        if len(self.strengths) != len(self.chances):
            raise ValueError(
                f"each strength has one chance: {len(self.strengths)} strengths, {len(self.chances)} chances"
            )
        if any(low > high for each in (self.strengths, self.chances) for low, high in pairwise(each)):
            raise ValueError("strengths and chances must ascend")
        if not all(0 <= chance <= 1 for chance in self.chances):
            raise ValueError("chances must be from 0 to 1")
        return self


class Skipped(Section):
    """An image that could not be used."""

    image: str
    reason: str


class TrainingData(Section):
    """What a run learned from."""

    source: str = ""
    about: dict[str, Any] = {}
    split_sizes: dict[str, int] = {}
    classes: int | None = None
    held_out: list[str] = []
    left_out: list[str] = []
    skipped: list[Skipped] = []


class Checkpoint(Section):
    """The step whose weights were kept, and by which key of the history."""

    step: int
    metric: str
    value: float


class TrainingSection(Section):
    """All that is needed to repeat a training run, and its course."""

    recipe: str = ""
    settings: dict[str, Any] = {}
    data: TrainingData = TrainingData()
    seed: int | None = None
    seconds: float | None = None
    steps: int | None = None
    best: Checkpoint | None = None
    finished: dict[str, float] = {}
    versions: dict[str, str] = {}
    threads: int | None = None
    history: list[dict[str, Number | None]] = []


class Curve(Section):
    """hit@k and recall@k for each k."""

    k: list[int]
    hit: list[float]
    recall: list[float]


class EvaluationPart(Section):
    """Figures of some of the held-out queries."""

    figures: Figures
    queries: int
    images: int
    classes: int | None = None
    left_out: int = 0
    curve: Curve
    from_run: str | None = None  # which they were measured in, where that is another one


class Confusion(Section):
    """A wrong label of first hits, null for none, and how often."""

    label: str | None
    count: int


class ClassFigures(Section):
    """A class: how many training images and queries, its figures, and what it is most often confused with."""

    label: str
    images: int
    queries: int
    hit_at_1: float | None = None
    p_at_5: float | None = None
    map: float | None = None
    confusions: list[Confusion] = []


class EvaluationSection(Section):
    """Held-out images as queries, the others as gallery."""

    split: str
    gallery: str
    seen: EvaluationPart
    unseen: EvaluationPart | None = None
    seen_without_near_duplicates: EvaluationPart | None = None
    unseen_without_near_duplicates: EvaluationPart | None = None
    classes: list[ClassFigures] = []
    classifier_accuracy: Point | None = None

    def parts(self) -> dict[str, EvaluationPart]:
        """The parts that there are, by the names of their fields."""
        return {name: part for name, part in self if isinstance(part, EvaluationPart)}


class NearDuplicate(Section):
    """A held-out image and another that shows the same picture."""

    held_out: str
    label: str | None
    other: str
    other_label: str | None
    similarity: float


class AuditSection(Section):
    """The leak audit: held-out images with a near-duplicate among the others, counted and listed."""

    queries: int
    audited: int
    across_classes: int | None = None
    listed: list[NearDuplicate] = []


class IndexSection(Section):
    """The index against exact search; milliseconds a query, one at a time on one core."""

    recall_at_10: float
    exact_ms: float
    approximate_ms: float
    queries: int
    factory: str
