"""Search with every image of a folder: one line of JSON per file, one start for all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.console import say, writes_all
from retrieval.errors import EmbeddingError, ImageError, QueryError
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.images.gallery import Gallery
    from retrieval.search import Hit


def files_in(folder: str | None) -> list[Path]:
    """The files below a folder, sorted, without hidden ones; raises QueryError if there are none."""
    root = Path(folder or "")
    if not (folder and root.is_dir()):
        found = f"{folder} is not a folder" if folder else "none was given"
        raise QueryError(f"--jsonl searches with every image of a folder, but {found}.")
    files = [path for path in root.rglob("*") if not path.is_dir()]
    shown = [path for path in files if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    if not shown:
        raise QueryError(f"{folder} contains no image to search with.")
    return sorted(shown)


def print_searches(folder: str, files: Sequence[Path], search: Callable[[Path], list[Hit]], gallery: Gallery) -> None:
    """Print one line of JSON per file: its path in the folder as `query`, and its `hits`, or an `error`.

    Only a picture that cannot be searched for becomes an `error`. Everything else that `search` raises ends the
    command, because it would be the same for every file.
    """
    failed = 0
    for file in files:
        query = os.fsencode(file.relative_to(folder).as_posix()).decode("utf-8", "replace")  # names need not be UTF-8
        answer: dict[str, Any]
        try:
            answer = {"query": query, "hits": hits_as_json(search(file), gallery)}
        except (ImageError, EmbeddingError) as error:
            failed += 1
            answer = {"query": query, "error": str(error)}
        print(json.dumps(answer, ensure_ascii=not writes_all(), default=str), flush=True)
    say(f"{counted(len(files) - failed, 'image')} searched for, {counted(failed, 'file')} not readable")


def hits_as_json(hits: Sequence[Hit], gallery: Gallery) -> list[dict[str, Any]]:
    """Hits as JSON, with ids instead of rows for the near-duplicates folded into them."""
    return [{**asdict(hit), "alike": [gallery.ids[row] for row in hit.alike]} for hit in hits]
