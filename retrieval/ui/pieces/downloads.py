"""The results as a file: CSV, JSON, or a ZIP of their thumbnails."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

from retrieval.errors import QueryError, short
from retrieval.images.gallery import Gallery
from retrieval.query import MAX_K
from retrieval.untrusted.cells import disarmed

Shown = Sequence[tuple[int, float, float | None]]
"""What the page shows: (row, score, chance), best first."""


def make_file(kind: str, shown: Any, gallery: Gallery) -> tuple[str, str, bytes]:
    """The name, MIME type and bytes of a file of the results (`Shown`) that a page has sent.

    Raises QueryError for an unknown kind, and for anything but results of this gallery.
    """
    if kind not in _KINDS:
        raise QueryError(f"results can be saved as {', '.join(_KINDS)}, not as {short(kind, 40)!r}.")
    if not isinstance(shown, list) or len(shown) > MAX_K or not all(_is_hit(one, len(gallery)) for one in shown):
        raise QueryError(
            f"expected at most {MAX_K} results, each with row, score and match probability: reload the page."
        )
    mime, make = _KINDS[kind]
    return f"hits.{kind}", mime, make(_records(shown, gallery), [row for row, _, _ in shown], gallery)


def _is_hit(value: Any, rows: int) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 3:
        return False
    row, score, chance = value
    numbers = isinstance(score, int | float) and (chance is None or isinstance(chance, int | float))
    return numbers and isinstance(row, int) and not isinstance(row, bool) and 0 <= row < rows


def as_download(name: str, mime: str, content: bytes) -> dict[str, str]:
    """A file as the page's script saves it (files.js): name, type, and content in base64."""
    return {"name": name, "type": mime, "content": base64.b64encode(content).decode()}


def _records(shown: Shown, gallery: Gallery) -> list[dict[str, Any]]:
    rows = gallery.take([row for row, _, _ in shown])
    return [
        {
            "rank": rank,
            "id": row.id,
            "label": row.label,
            "score": score,
            "chance": chance,
            "source": row.source,
            "attributes": row.attributes,
        }
        for rank, ((_, score, chance), row) in enumerate(zip(shown, rows, strict=True), 1)
    ]


def _csv(records: list[dict[str, Any]], _: list[int], gallery: Gallery) -> bytes:
    names = ["rank", "id", "label", "score", "chance", "source"]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    # A gallery column with one of these names gets an underscore, as one that collides with its own columns does.
    writer.writerow(disarmed([*names, *(f"{name}_" if name in names else name for name in gallery.attributes)]))
    for record in records:
        writer.writerow(disarmed([*(record[name] for name in names), *map(_cell, record["attributes"].values())]))
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _json(records: list[dict[str, Any]], *_: Any) -> bytes:
    return json.dumps(records, indent=2, ensure_ascii=False, default=str).encode()


def _zip(records: list[dict[str, Any]], rows: list[int], gallery: Gallery) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:  # not compressed: JPEG already is
        for record, row in zip(records, rows, strict=True):
            label = re.sub(r"[^\w-]+", "-", record["label"] or "")[:40]  # a label may be any text, also a path
            file.writestr(f"{record['rank']:04d}-{label}-{row}.jpg", gallery.thumbnail(row))
        file.writestr("hits.csv", _csv(records, rows, gallery))
    return content.getvalue()


_KINDS: dict[str, tuple[str, Callable[..., bytes]]] = {
    "csv": ("text/csv", _csv),
    "json": ("application/json", _json),
    "zip": ("application/zip", _zip),
}
