"""Metrics: reading and writing metrics.json as a typed model.

This version writes format 2. Files from Lookalike 0.1.0 to 0.4.0 have no format number; `_upgraded` renames their keys
to those of format 2. Sections and keys that a later version adds to format 2 survive a read and a write. A file of any
other format is rejected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.sections import (
    FIGURE_NAMES,
    AuditSection,
    CalibrationSection,
    EvaluationSection,
    IndexSection,
    LeaveOneOut,
    Section,
    TrainingSection,
)
from retrieval.errors import IntegrityError, short_repr
from retrieval.installed import VERSION
from retrieval.untrusted.strict_json import parse_json

METRICS_FORMAT = 2
_RENAMED = {"from": "from_run"}  # key in format 1 -> key in format 2


class Metrics(Section):
    """The contents of metrics.json; a missing section is null."""

    version: int = METRICS_FORMAT
    """The format number of the file."""
    lookalike: str | None = None
    """The version of Lookalike that wrote the file; null before 0.5.0, which did not store it."""
    leave_one_out: LeaveOneOut | None = None
    calibration: CalibrationSection | None = None
    training: TrainingSection | None = None
    evaluation: EvaluationSection | None = None
    audit: AuditSection | None = None
    index: IndexSection | None = None

    @property
    def is_trained(self) -> bool:
        """Whether the encoder was trained on images of the gallery."""
        return bool(self.training and self.training.steps)

    def sections(self) -> dict[str, Any]:
        """Name -> section, including unknown sections from later versions; None for a missing section."""
        return {name: section for name, section in self if name not in ("version", "lookalike")}

    def to_json(self) -> str:
        """The text of metrics.json. Raises TypeError or ValueError for values that JSON cannot represent."""
        return json.dumps(self.model_dump(), indent=2, allow_nan=False) + "\n"


def new_metrics(sections: Mapping[str, Any]) -> Metrics:
    """Metrics from sections, given as models or plain data, with the current format and Lookalike version."""
    return Metrics.model_validate({**sections, "version": METRICS_FORMAT, "lookalike": VERSION})


def parse_metrics(content: bytes | str) -> Metrics:
    """Parse the content of a metrics.json, in the current format or an older one.

    Raises IntegrityError with the first problem found, or ValueError if the content is not JSON.
    """
    held = parse_json(content, nan=lambda _: None)  # older versions could write NaN
    if not isinstance(held, dict):
        raise IntegrityError(f"{LAYOUT.metrics} must be an object of sections, found {short_repr(held, 60)}. {_MEND}")
    if "version" not in held:
        held = {**_upgraded(held), "version": METRICS_FORMAT}
    if held["version"] != METRICS_FORMAT:
        raise IntegrityError(
            f"{LAYOUT.metrics} has format {held['version']!r}, but Lookalike {VERSION} reads format {METRICS_FORMAT} "
            "and older: upgrade Lookalike, or build the artifact again."
        )
    try:
        return Metrics.model_validate(held)
    except ValidationError as error:
        raise IntegrityError(_sentence(error)) from error


def key_of(name: str) -> str:
    """The key in metrics.json for a metric or count with this display name.

    >>> [key_of(name) for name in ("hit@1", "MAP@R", "R-precision", "split sizes", "validation mAP")]
    ['hit_at_1', 'map_at_r', 'r_precision', 'split_sizes', 'validation_map']
    """
    return re.sub(r"[^a-z0-9]+", "_", name.replace("@", "_at_").lower()).strip("_")


def name_of(key: str) -> str:
    """The display name of a metric for its key in metrics.json; any other key is returned unchanged.

    >>> name_of("p_at_5"), name_of("validation_map"), name_of("loss")
    ('P@5', 'validation mAP', 'loss')
    """
    figure = key.removeprefix("validation_")
    return FIGURE_NAMES.get(key, key) if figure == key else f"validation {name_of(figure)}"


def _upgraded(old: Any) -> Any:
    """Convert data from format 1 to the keys of format 2."""
    if isinstance(old, list):
        return [_upgraded(each) for each in old]
    if not isinstance(old, dict):
        return old
    new = {_RENAMED.get(name, key_of(name)): _upgraded(value) for name, value in old.items()}
    if isinstance(metric := new.get("metric"), str):  # the best checkpoint's metric is a key of the history
        new["metric"] = key_of(metric)
    if isinstance(pairs := new.get("confusions"), list):
        new["confusions"] = [
            dict(zip(("label", "count"), pair, strict=False)) if isinstance(pair, list) else pair for pair in pairs
        ]
    return new


_MEND = "The artifact is damaged: build it again."


def _sentence(error: ValidationError) -> str:
    """The first validation error in one line: where it is, what was expected, and what was found."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(step) for step in first["loc"] if step not in ("int", "float"))  # members of Number
    if first["type"] == "missing":
        return f"{LAYOUT.metrics} has no {where}. {_MEND}"
    if first["type"] == "value_error":
        return f"{LAYOUT.metrics}: {where}: {first['ctx']['error']}. {_MEND}"
    message = "Input should be an object" if first["type"] == "model_type" else first["msg"]
    subject, _, wanted = message.partition(" should ")
    what = where if subject == "Input" else f"{where}: {subject}"  # such as "List", in an error about its length
    return f"{LAYOUT.metrics}: {what} must {wanted}, found {short_repr(first['input'], 60)}. {_MEND}"
