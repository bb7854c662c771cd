"""Commands that inspect an artifact: metrics, integrity, arrays, speed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrieval.commands import options
from retrieval.commands.paths import check_artifact
from retrieval.commands.printing import print_figures
from retrieval.errors import ArtifactError

if TYPE_CHECKING:
    from retrieval.artifact.load import Artifact

commands = typer.Typer()


@commands.command()
def evaluate(artifact: options.AnyArtifact, as_json: options.AsJson = False) -> None:
    """Measure leave-one-out retrieval by label."""
    opened = _opened(artifact)
    import numpy as np

    from retrieval.evaluation.metrics import leave_one_out

    print_figures(leave_one_out(opened.store.vectors(np.arange(len(opened.store))), opened.gallery.labels), as_json)


@commands.command()
def verify(artifact: options.AnyArtifact) -> None:
    """Check every byte, and repeat the stored test query."""
    opened = _opened(artifact)
    size = sum(file["size"] for file in opened.manifest["files"].values())
    print(f"{artifact} is intact: {len(opened.gallery)} images, {size / 1e6:.1f} MB, {opened.encoder.name}")


@commands.command()
def export(
    artifact: options.AnyArtifact,
    npy: Annotated[Path, typer.Option(metavar="OUT", help="the folder to write to")],
) -> None:
    """Write embeddings.npy, image_paths.npy and labels.npy."""
    opened = _opened(artifact)
    import numpy as np

    if npy.exists() and not npy.is_dir():
        raise ArtifactError(f"{npy} is a file; --npy takes a folder.")
    npy.mkdir(parents=True, exist_ok=True)
    # Unicode arrays rather than object arrays: numpy reads them without pickle.
    labels = ["" if label is None else label for label in opened.gallery.labels]
    np.save(npy / "embeddings.npy", opened.store.vectors(np.arange(len(opened.store))))
    np.save(npy / "image_paths.npy", np.array(opened.gallery.table["source"].to_pylist(), np.str_))
    np.save(npy / "labels.npy", np.array(labels, np.str_))
    print(f"{len(labels)} rows written to {npy}")


@commands.command()
def bench(
    artifact: options.AnyArtifact,
    rows: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="instead, search N vectors drawn around the artifact's")
    ] = None,
    dim: Annotated[int, typer.Option(metavar="D", min=1, help="dimension of the vectors drawn")] = 256,
    duplicates: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="instead, find near-duplicates among N vectors drawn")
    ] = None,
    ui: Annotated[
        bool, typer.Option("--ui", help="instead, measure the waiting times of the page, in Chromium")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure start-up, speed, recall and memory."""
    check_artifact(artifact)
    from retrieval.bench.artifact import bench_artifact, bench_index
    from retrieval.bench.duplicates import bench_duplicates
    from retrieval.bench.page import bench_ui
    from retrieval.hub.pull import open_reference

    folder = open_reference(artifact).folder
    if ui:
        figures = bench_ui(folder)
    elif duplicates:
        figures = bench_duplicates(folder, duplicates, dim)
    else:
        figures = bench_index(folder, rows, dim) if rows else bench_artifact(folder)
    print_figures(figures, as_json)


def _opened(name: str) -> Artifact:
    check_artifact(name)
    from retrieval.hub.pull import open_artifact

    return open_artifact(name)
