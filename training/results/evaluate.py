"""Evaluation of a training run as sections of metrics.json: held-out images query a gallery of other images.

Seen classes (with other images in training) and unseen classes are reported separately. Both are searched in the whole
gallery, as in use of the artifact. Every figure has a 95% bootstrap confidence interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from retrieval.arrays import Mask, Numbers, Rows, Vectors
from retrieval.artifact.metrics import key_of
from retrieval.artifact.sections import (
    FIGURE_NAMES,
    ClassFigures,
    Confusion,
    Curve,
    EvaluationPart,
    EvaluationSection,
    Figures,
    IndexSection,
    Point,
)
from retrieval.errors import QueryError
from retrieval.evaluation.metrics import QueryFigures, bootstrap_interval, query_figures
from retrieval.stores.faiss import FaissStore
from retrieval.stores.recall import against_exact

_CLASS_FIGURES = ("hit_at_1", "p_at_5", "map")
_CONFUSIONS = 3  # most frequent wrong labels listed per class
_INDEX_QUERIES = 1000


def evaluate(
    queries: Vectors,
    query_labels: Sequence[str],
    gallery: Vectors,
    gallery_labels: Sequence[str | None],
    *,
    train_counts: Mapping[str, int],
    split: str,
    gallery_name: str,
    unseen: Collection[str] = (),
    near_duplicate: Mask | None = None,
    correct: Mask | None = None,
    own_row: Rows | None = None,
) -> EvaluationSection:
    """The section `evaluation`: `queries` (Q, D) searched in `gallery` (N, D), float32 unit rows.

    `train_counts` is the number of training images per class, `unseen` the classes held out of training.
    `near_duplicate` (Q,) marks queries with a near-duplicate in the gallery: figures without them are added.
    `correct` (Q,) marks queries that the classifier gets right. `own_row` (Q,) is the gallery row of the query
    itself, which is excluded from its results, or -1. Raises QueryError if no query of a seen class has an
    image of the same class in the gallery.
    """
    found = query_figures(queries, query_labels, gallery, gallery_labels, exclude=own_row)
    is_unseen, parts = np.array([label in unseen for label in query_labels], bool), dict[str, EvaluationPart | None]()
    for name, chosen in (("seen", ~is_unseen), ("unseen", is_unseen)):
        parts[name] = _part(found, query_labels, chosen, len(gallery))
        if near_duplicate is not None:
            apart = _part(found, query_labels, chosen & ~near_duplicate, len(gallery))
            parts[f"{name}_without_near_duplicates"] = apart
    if parts["seen"] is None:
        raise QueryError("nothing to evaluate: no query belongs to a seen class that is in the gallery.")
    classes = _classes(found, query_labels, train_counts)
    section: dict[str, Any] = {"split": split, "gallery": gallery_name, **parts, "classes": classes}
    if correct is not None:
        section["classifier_accuracy"] = _with_interval(correct[~is_unseen].astype(np.float64))
    return EvaluationSection.model_validate(section)


def evaluate_index(store: FaissStore, vectors: Vectors, queries: Vectors, own_row: Rows) -> IndexSection:
    """The section `index`: recall and speed of an artifact's store relative to exact search in `vectors` (N, D).

    At most 1,000 queries (Q, D) are used, drawn at random. `own_row` (Q,) is the row of the query itself, which does
    not count as a result, or -1. Times are medians in milliseconds, for one query at a time on one core. They are
    the only figures that vary from run to run.
    """
    if len(queries) > _INDEX_QUERIES:
        drawn = np.sort(np.random.default_rng(0).choice(len(queries), _INDEX_QUERIES, replace=False))
        queries, own_row = queries[drawn], own_row[drawn]
    figures = against_exact(store, vectors, queries, own_row)
    return IndexSection(
        recall_at_10=figures["recall@10"],
        exact_ms=figures["flat p50 ms"],
        approximate_ms=figures["p50 ms"],
        queries=len(queries),
        factory=store.settings.factory,
    )


def _part(found: QueryFigures, labels: Sequence[str], chosen: Mask, images: int) -> EvaluationPart | None:
    """Figures of the `chosen` (Q,) queries; None if no image in the gallery has the class of any of them."""
    mask = chosen[found.rows]
    if not mask.any():
        return None
    rows = found.rows[mask]
    figures = {key_of(name): _with_interval(values[mask]) for name, values in found.values.items()}
    hit, recall = (each[mask].mean(axis=0).tolist() for each in (found.hit, found.recall))
    return EvaluationPart(
        figures=Figures.model_validate(figures),
        queries=len(rows),
        images=images,
        classes=len({labels[row] for row in rows}),
        left_out=int(chosen.sum()) - len(rows),
        curve=Curve(k=found.ladder, hit=hit, recall=recall),
    )


def _with_interval(values: Numbers) -> Point:
    low, high = bootstrap_interval(values)
    return Point(value=float(values.mean()), low=low, high=high)


def _classes(found: QueryFigures, labels: Sequence[str], train_counts: Mapping[str, int]) -> list[ClassFigures]:
    """Figures per class, over training and query classes; lowest mAP first, classes without queries last."""
    of_row = np.array([labels[row] for row in found.rows], np.object_)
    top = np.array(found.top, np.object_)
    classes = []
    for label in sorted({*train_counts, *of_row}):
        mask = of_row == label
        wrong = Counter(top[mask & (top != label)])
        figures = {
            key: float(found.values[FIGURE_NAMES[key]][mask].mean()) if mask.any() else None for key in _CLASS_FIGURES
        }
        classes.append(
            ClassFigures(
                label=label,
                images=train_counts.get(label, 0),
                queries=int(mask.sum()),
                **figures,
                confusions=[Confusion(label=name, count=count) for name, count in wrong.most_common(_CONFUSIONS)],
            )
        )
    return sorted(classes, key=lambda row: (row.map is None, row.map))
