"""The card: an artifact's README.md, made from its own facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrieval.artifact import LAYOUT
from retrieval.encoder import Encoder
from retrieval.gallery import Gallery
from retrieval.stores.faiss import FaissStore

_USE = """\
## How to read it without this project

```python
import faiss, pyarrow.parquet as pq, timm
model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()   # images -> embeddings; divide by their length
index = faiss.read_index("FOLDER/index.faiss")                          # inner product = cosine; row i of ...
rows = pq.read_table("FOLDER/gallery.parquet")                          # ... this table is vector i of the index
```

`manifest.json` holds the size and SHA-256 of every file.
"""


def write_card(folder: Path, encoder: Encoder, store: FaissStore, gallery: Gallery, metrics: dict[str, Any]) -> None:
    """Write README.md into the folder of an artifact."""
    size = "x".join(str(side) for side in encoder.data_config["input_size"])
    recall = store.settings.recall_at_10
    lines = [
        "---",
        "library_name: timm",
        "pipeline_tag: image-feature-extraction",
        "tags: [image-search, faiss]",
        "---",
        "",
        "# Image search artifact",
        "",
        f"- **Gallery:** {len(gallery):,} images; columns: {', '.join(['label', *gallery.attributes])}",
        f"- **Encoder:** timm `{encoder.name}`, input {size}, embeddings of {encoder.dim} numbers, cosine",
        f"- **Index:** FAISS `{store.settings.factory}`, recall@10 against exact search {recall:.3f}",
        "",
        *_figures(metrics),
        _USE,
    ]
    (folder / LAYOUT.card).write_text("\n".join(lines), encoding="utf-8")


def _figures(metrics: dict[str, Any]) -> list[str]:
    evaluation = metrics.get("leave_one_out")
    if not evaluation:
        return ["There are no labels to evaluate by.", ""]
    figures = {name: value for name, value in evaluation.items() if isinstance(value, float)}
    return [
        f"Leave-one-out over {evaluation['queries']:,} images and {evaluation['labels']:,} labels:",
        "",
        "| " + " | ".join(figures) + " |",
        "|" + " --- |" * len(figures),
        "| " + " | ".join(f"{value:.3f}" for value in figures.values()) + " |",
        "",
    ]
