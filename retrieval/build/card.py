"""The model card: an artifact's README.md, generated from the artifact: Hub metadata, usage, evaluation, limits.

The metadata follows the Hub's model cards (https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import EvalResult, ModelCardData

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.metrics import Metrics
from retrieval.artifact.parts.exported import EXPORTED
from retrieval.artifact.sections import EvaluationSection, IndexSection, TrainingSection
from retrieval.build.origins import license_of, sources_of, weights_lines
from retrieval.build.precision.comparison import precision_lines, use_lines
from retrieval.encoders.image import Encoder
from retrieval.encoders.presets import timm_name
from retrieval.encoders.presets.licences import weights_in
from retrieval.evaluation import markdown as report
from retrieval.evaluation.markdown import plain
from retrieval.images.gallery import Gallery
from retrieval.stores.faiss import FaissStore

_USE = """\
## Use

As a web page and an API, from a checkout of Lookalike:

```bash
python app.py --artifact {name}
```

From a program, through this page or a Space (then give its `owner/space` as the address):

```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")
answer = client.predict(handle_file("photo.jpg"), k=5, api_name="/search")
for hit in answer["hits"]:
    print(round(hit["score"], 3), hit["label"], hit["source"])
```
"""
_PLAIN = """
Without Lookalike, with timm and FAISS:

```python
{first}import faiss
import pyarrow.parquet as pq
import timm
import torch{imports}
from PIL import Image

model = timm.create_model("{model}", pretrained=True).eval()  # images -> embeddings; normalise them to length 1
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
index = faiss.read_index({index})  # inner product = cosine similarity
rows = pq.read_table({gallery}, columns=["label", "source"])  # row i is vector i of the index

image = Image.open("photo.jpg").convert("RGB")
with torch.inference_mode():
    query = torch.nn.functional.normalize(model(transform(image)[None])).numpy()
scores, found = index.search(query, 5)
for score, row in zip(scores[0], found[0]):
    print(round(float(score), 3), rows["label"][int(row)], rows["source"][int(row)])
```
"""
_TASK = "image-feature-extraction"
_FILES, _SHARDS = (f"{Path(LAYOUT.gallery).stem}{each}.parquet" for each in ("*", "-*"))
_Facts = Mapping[str, Any]
_PARTS = {"seen": "Image retrieval", "unseen": "Image retrieval, classes not seen in training"}


def write_card(
    folder: Path,
    encoder: Encoder,
    store: FaissStore,
    gallery: Gallery,
    metrics: Metrics,
    facts: Mapping[str, Any],
) -> None:
    """Write README.md into an artifact's folder, from the sections present in `metrics`, the plots, and the manifest's
    `facts` (how it was built, and its repository on the Hub)."""
    training, evaluation = metrics.training, metrics.evaluation
    name, sources = facts.get("repository"), sources_of(facts, training)
    blocks = [
        ["---", _metadata(encoder, metrics, sources, facts).to_yaml().strip(), "---"],
        [f"# {name.partition('/')[2] if name else 'Image search artifact'}"],
        [
            *_facts(encoder, store, gallery, metrics.index),
            *weights_lines(encoder.weights, "Trained from" if metrics.is_trained else "Weights"),
            *_text(facts.get("text")),
        ],
        [_use(name, encoder, shards=len(gallery.files) > 1).rstrip()],
        ["## Data"],
        _data(sources, facts, len(gallery)),
        ["## How it was made"],
        *_made(training, sources[0]),
        *([["## Evaluation"], *report.evaluation_lines(evaluation)] if evaluation else []),
        report.audit_lines(metrics.audit, evaluation),
        *report.plot_lines(folder),
        *([["## The gallery"]] if training or evaluation else [["## Evaluation"]]),
        *report.leave_one_out_lines(metrics),
        *(precision_lines(facts[EXPORTED]) if encoder.precision != "float32" else []),
        report.calibration_lines(metrics.calibration),
        ["## Limits"],
        _limits(encoder, evaluation, trained=metrics.is_trained),
        ["`manifest.json` holds the size and SHA-256 of every file."],
    ]
    text = "\n\n".join("\n".join(block) for block in blocks if block)
    (folder / LAYOUT.card).write_text(f"{text}\n", encoding="utf-8")


def _metadata(encoder: Encoder, metrics: Metrics, sources: Sequence[_Facts], facts: _Facts) -> ModelCardData:
    training, tag, name = metrics.training, encoder.about.tag, facts.get("repository")
    settings, recipe = (training.settings, training.recipe) if training else ({}, "")
    of_timm = re.fullmatch(r"(hf-hub:timm/)?[\w.]+", timm_name(settings.get("backbone", "")))
    base = of_timm and tag and settings.get("pretrained") and not settings.get("weights")
    results = list(_results(metrics, sources[0]))
    license_, license_name = license_of(sources, [encoder.weights, weights_in(facts.get("text"))])
    return ModelCardData(
        base_model=f"timm/{encoder.name}.{tag}" if base else None,
        datasets=list(dict.fromkeys(about["name"] for about in sources if "revision" in about)) or None,
        license=license_,
        license_name=license_name,
        library_name="timm",
        pipeline_tag=_TASK,
        configs=[{"config_name": "default", "data_files": _FILES}],
        tags=["image-search", "faiss", *(["triplet-loss", "metric-learning"] if training else [])],
        model_name=(name or f"{encoder.name} {recipe}".strip()) if results else None,
        eval_results=results or None,
    )


def _results(metrics: Metrics, about: _Facts) -> Iterator[EvalResult]:
    """The metrics for the Hub's model-index: those of the evaluation with their 95% intervals, or leave-one-out metrics
    if there is no evaluation."""
    name = about.get("name") or "images"
    data: dict[str, Any] = {"dataset_type": re.sub(r"[^\w./-]+", "-", name), "dataset_name": name}
    data |= {"dataset_revision": about.get("revision"), "dataset_config": about.get("config")}
    evaluation = metrics.evaluation
    parts, split = (evaluation.parts(), evaluation.split) if evaluation else ({}, None)
    for part, task in _PARTS.items():
        for figure, point in parts[part].figures.by_name().items() if part in parts else ():
            ends = {"confidence": 0.95, "low": round(point.low, 4), "high": round(point.high, 4)}
            yield EvalResult(
                _TASK, metric_type=figure, metric_value=round(point.value, 4), task_name=task,
                dataset_split=split, metric_args=ends, **data,
            )  # fmt: skip
    if metrics.leave_one_out and not evaluation:
        for figure, value in metrics.leave_one_out.by_name().items():
            named = "Image retrieval, leave-one-out"
            yield EvalResult(_TASK, metric_type=figure, metric_value=round(value or 0.0, 4), task_name=named, **data)


def _use(name: str | None, encoder: Encoder, *, shards: bool) -> str:
    text = _USE.format(name=name or "FOLDER")
    if encoder.precision != "float32":
        return text + use_lines(encoder)
    if not encoder.is_plain_timm:
        return text + "\nIts head is not linear, so timm alone cannot load it: use `retrieval.Encoder.load`.\n"
    imports, index, files = "", f'"FOLDER/{LAYOUT.index}"', f'"FOLDER/{LAYOUT.gallery}"'
    if name:
        bring = "snapshot_download" if shards else "hf_hub_download"
        imports = f"\nfrom huggingface_hub import {', '.join(sorted({'hf_hub_download', bring}))}"
        index, files = (f'hf_hub_download("{name}", "{file}")' for file in (LAYOUT.index, LAYOUT.gallery))
    if shards:
        folder = f'{bring}("{name}", allow_patterns="{_SHARDS}") + ' if name else '"FOLDER" + '
        files = f'sorted(glob.glob({folder}"/{_SHARDS}"))'
    told = {"imports": imports, "model": f"hf-hub:{name}" if name else "local-dir:FOLDER", "index": index}
    return text + _PLAIN.format(first="import glob\n\n" if shards else "", gallery=files, **told)


def _facts(encoder: Encoder, store: FaissStore, gallery: Gallery, index: IndexSection | None) -> list[str]:
    size = "x".join(str(side) for side in encoder.data_config["input_size"])
    recall = store.settings.recall_at_10
    lines = [
        f"- **Gallery:** {len(gallery):,} images; columns: {plain(', '.join(['label', *gallery.attributes]))}",
        f"- **Encoder:** timm `{encoder.name}`, input {size}, {encoder.dim}-dimensional embeddings, cosine similarity",
        f"- **Index:** FAISS `{store.settings.factory}`, recall@10 {recall:.3f} relative to exact search",
    ]
    if index:
        lines[-1] += (
            f"; with {index.queries:,} held-out images as queries {index.recall_at_10:.3f}, at "
            f"{index.approximate_ms:.2f} ms per query (exact search: {index.exact_ms:.2f} ms)"
        )
    return lines


def _text(section: Mapping[str, Any] | None) -> list[str]:
    if not section:
        return []
    name, dim = plain(section["name"]), section["dimension"]
    line = f"- **Text search:** {name}, {dim}-dimensional embeddings"
    return [line, *weights_lines(weights_in(section), "Weights for text search")]


def _data(sources: Sequence[_Facts], facts: Mapping[str, Any], rows: int) -> list[str]:
    lines = []
    for number, about in enumerate(sources):
        name = plain(about.get("name", ""))
        if "revision" in about:  # a dataset on the Hub
            name = f"[{name}](https://huggingface.co/datasets/{quote(about['name'])})"
        of = [f"{what} {plain(about[what])}" for what in ("config", "revision") if about.get(what)]
        stated = about.get("license") or "not stated; check where the images come from"
        lines += [f"- **{'Added' if number else 'Images'}:** {', '.join([name, *of])}"] if name else []
        lines.append(f"- **Licence:** {plain(stated)}")
    build = facts.get("build") or {}
    if build and facts.get("changes"):
        lines.append(f"- **In the gallery:** {rows:,}, after additions and removals")
    elif build:
        counts = ", ".join(f"{build[what]:,} {what}" for what in ("found", "indexed", "duplicates"))
        left_out = sum(count for _, _, count in build.get("left_out", []))
        others = f", {left_out:,} left out" if left_out else ""
        lines.append(f"- **In the gallery:** {counts}, {len(build['skipped']):,} skipped{others}")
    return lines


def _made(training: TrainingSection | None, about: _Facts) -> list[list[str]]:
    if about.get("made"):
        return [[plain(about["made"])]]
    if not training:
        return [["The images were embedded with the encoder as it is, without training (`python -m retrieval build`)."]]
    return [report.training_lines(training), report.settings_lines(training.settings)]


def _limits(encoder: Encoder, evaluation: EvaluationSection | None, *, trained: bool) -> list[str]:
    side = "x".join(str(side) for side in encoder.data_config["input_size"][1:])
    lines = [
        "- Every search returns results, also for a picture unlike anything in the gallery. A score is a cosine "
        "similarity, not a probability; which score is high enough depends on the images.",
        f"- The encoder sees pictures at {side} pixels: details that disappear at that size cannot be found.",
        "- Gaps and biases of the images carry over to the search.",
        f"- `{_FILES}` holds a thumbnail of every image: everyone who can read this repository can see them.",
    ]
    seen, unseen = (evaluation.seen, evaluation.unseen) if evaluation else (None, None)
    if seen and unseen and unseen.figures.map.value < seen.figures.map.value:
        lines.append(
            "- Results are worse for classes that were held out of training: mAP "
            f"{unseen.figures.map.value:.3f}, compared with {seen.figures.map.value:.3f} for the classes seen in "
            "training, each with its own gallery."
        )
    elif seen and trained and not unseen:
        lines.append("- The metrics are for classes seen in training; results for other classes may be worse.")
    return lines
