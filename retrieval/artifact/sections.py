"""Sections: the parts of metrics.json as typed models with snake_case keys."""

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
"""Key of a metric in metrics.json -> its display name."""

Number = int | float
_Figure = TypeVar("_Figure")


class Section(BaseModel):
    """A part of metrics.json. Unknown keys from later versions are kept."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", allow_inf_nan=False)


class Point(Section):
    """A metric with its 95% confidence interval."""

    value: float
    low: float
    high: float


class _Figures(Section, Generic[_Figure]):
    """Each metric in FIGURE_NAMES, as a mean over the queries, in [0, 1]."""

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
        """Display name -> metric, for the metrics that are present."""
        return {name: figure for key, name in FIGURE_NAMES.items() if (figure := getattr(self, key)) is not None}


class Figures(_Figures[Point]):
    """Metrics of held-out queries, with confidence intervals."""


class LeaveOneOut(_Figures[float | None]):
    """Leave-one-out metrics: every labelled image of the gallery is a query against all the others."""

    hit_at_10: float | None = None  # missing in files from 0.1.0
    queries: int
    images: int
    labels: int
    sampled_from: int | None = Field(None, exclude_if=lambda rows: rows is None)  # if `images` is a sample of these


class Reliability(Section):
    """The reliability curve, per bin: mean match probability, share of correct hits, and number of hits."""

    chance: list[float]
    share: list[float]
    pairs: list[int]


class Checked(Section):
    """Quality of a calibration, measured on queries it was not fitted on."""

    queries: int
    expected_calibration_error: float
    reliability: Reliability
    precision: Point | None
    shown: float
    refused: float


class Wanted(Section):
    """The targets that the threshold was chosen for."""

    precision: float
    refused: float


class CalibrationSection(Section):
    """The parameters that `evaluation.confidence` needs for match probabilities, and their measured quality."""

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
            lengths = f"{len(self.strengths)} strengths, {len(self.chances)} chances"
            raise ValueError(f"strengths and chances must have the same length: {lengths}")
        if any(low > high for each in (self.strengths, self.chances) for low, high in pairwise(each)):
            raise ValueError("strengths and chances must be in ascending order")
        if not all(0 <= chance <= 1 for chance in self.chances):
            raise ValueError("chances must be between 0 and 1")
        return self


class Skipped(Section):
    """An image that was skipped, and why."""

    image: str
    reason: str


class TrainingData(Section):
    """The data of a training run."""

    source: str = ""
    about: dict[str, Any] = {}
    split_sizes: dict[str, int] = {}
    classes: int | None = None
    held_out: list[str] = []
    left_out: list[str] = []
    skipped: list[Skipped] = []


class Checkpoint(Section):
    """The best checkpoint: its step, the metric it was selected by (a key of the history), and the value."""

    step: int
    metric: str
    value: float


class TrainingSection(Section):
    """Everything needed to reproduce a training run, and its history."""

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
    """Metrics of a subset of the held-out queries."""

    figures: Figures
    queries: int
    images: int
    classes: int | None = None
    left_out: int = 0
    curve: Curve
    from_run: str | None = None  # the run that measured them, if it is a different one


class Confusion(Section):
    """A wrong label of the first hit (null: unlabelled) and how often it occurs."""

    label: str | None
    count: int


class ClassFigures(Section):
    """A class: its training images, queries, metrics, and most frequent confusions."""

    label: str
    images: int
    queries: int
    hit_at_1: float | None = None
    p_at_5: float | None = None
    map: float | None = None
    confusions: list[Confusion] = []


class EvaluationSection(Section):
    """Evaluation with held-out images as queries and the other images as gallery."""

    split: str
    gallery: str
    seen: EvaluationPart
    unseen: EvaluationPart | None = None
    seen_without_near_duplicates: EvaluationPart | None = None
    unseen_without_near_duplicates: EvaluationPart | None = None
    classes: list[ClassFigures] = []
    classifier_accuracy: Point | None = None

    def parts(self) -> dict[str, EvaluationPart]:
        """Field name -> part, for the parts that are present."""
        return {name: part for name, part in self if isinstance(part, EvaluationPart)}


class NearDuplicate(Section):
    """A held-out image and its near-duplicate outside the held-out set."""

    held_out: str
    label: str | None
    other: str
    other_label: str | None
    similarity: float


class AuditSection(Section):
    """The leakage audit: held-out images that have a near-duplicate among the other images."""

    queries: int
    audited: int
    across_classes: int | None = None
    listed: list[NearDuplicate] = []


class IndexSection(Section):
    """The index compared with exact search; times in milliseconds per single query on one core."""

    recall_at_10: float
    exact_ms: float
    approximate_ms: float
    queries: int
    factory: str
