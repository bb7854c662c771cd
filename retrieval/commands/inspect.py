"""Commands that inspect an artifact: contents, metrics, integrity, arrays, speed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval.commands import options
from retrieval.commands.finding.listing import chosen_attributes, listed, write_listed
from retrieval.commands.paths import check_artifact
from retrieval.commands.printing import info_lines, one_line, print_figures, print_json
from retrieval.console import say
from retrieval.errors import ArtifactError, LookalikeError
from retrieval.files.remembered import reading_anew
from retrieval.files.storing import storing, whole
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.arrays import Ids
    from retrieval.artifact.load import Artifact
    from retrieval.images.gallery import Gallery

commands = typer.Typer()


@commands.command("list")
def list_images(
    artifact: options.AnyArtifact,
    where: options.WhereConditions = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="attributes to show; * for all (default: none; all with --json and --csv)"),
    ] = None,
    csv: Annotated[
        str | None, typer.Option(metavar="FILE", help="write CSV to this file; - for standard output")
    ] = None,
    as_json: options.AsJson = False,
    sha256: options.Sha256 = None,
) -> None:
    """List the images: id, label, source, attributes."""
    check_artifact(artifact)
    from retrieval.images.columns import as_texts
    from retrieval.images.gallery import parse_where

    wanted = parse_where(where or [])
    gallery = _contents(artifact, sha256)[1]
    rows = _matching(gallery, wanted)
    chosen = chosen_attributes(gallery, columns or ("*" if csv or as_json else ""))
    if csv:
        write_listed(csv, gallery, rows, chosen)
    if as_json:
        images = zip(rows.tolist(), gallery.take(rows), strict=True)
        print_json([{"row": number, **listed(asdict(image), chosen)} for number, image in images])
    if csv or as_json:
        return
    texts = [as_texts(gallery, name, rows) for name in chosen]
    for number, image in enumerate(gallery.take(rows)):
        values = [f"{name}={column[number]}" for name, column in zip(chosen, texts, strict=True)]
        print(one_line("  ".join([image.id, f"{image.label or '-':<20}", image.source, *values])))
    say(f"{len(rows):,} of {counted(len(gallery), 'image')}")


@commands.command()
def info(artifact: options.AnyArtifact, as_json: options.AsJson = False, sha256: options.Sha256 = None) -> None:
    """Describe an artifact: rows, columns, files, source."""
    check_artifact(artifact)
    from retrieval.artifact.layout import LAYOUT
    from retrieval.artifact.manifest import reading
    from retrieval.images.columns import describe_columns

    manifest, gallery = _contents(artifact, sha256)
    files = {name: file["size"] for name, file in manifest["files"].items()}
    facts = {
        "artifact": artifact,
        "rows": len(gallery),
        "bytes": sum(files.values()),
        "columns": [asdict(column) for column in describe_columns(gallery)],
        "files": files,
        **{name: manifest[name] for name in ("dimension", "encoder", "index")},
        **{name: manifest.get(name) for name in ("text", "map", "build")},
        "changes": manifest.get("changes", []),
    }
    if as_json:
        print_json(facts)
        return
    with reading(LAYOUT.manifest):  # how it was built and changed is told in the words of the manifest
        lines = list(info_lines(facts))
    print("\n".join(lines))


@commands.command()
def evaluate(
    artifact: options.AnyArtifact,
    as_json: options.AsJson = False,
    sha256: options.Sha256 = None,
    store: options.StoreAt = None,
    engine: options.Engine = None,
    device: options.Device = None,
) -> None:
    """Measure leave-one-out retrieval by label."""
    check_artifact(artifact)
    import numpy as np

    from retrieval.evaluation.metrics import leave_one_out
    from retrieval.search import Searcher

    opened = Searcher.open(artifact, sha256=sha256)
    print_figures(leave_one_out(opened.store.vectors(np.arange(len(opened.store))), opened.gallery.labels), as_json)


@commands.command()
def verify(
    artifact: options.AnyArtifact,
    sha256: options.Sha256 = None,
    engine: options.Engine = None,
    device: options.Device = None,
) -> None:
    """Check every byte, and repeat the stored test query."""
    with reading_anew():
        opened = _opened(artifact, sha256)
    size = sum(file["size"] for file in opened.manifest["files"].values()) / 1e6
    told = f"{len(opened.gallery)} images, {size:.1f} MB, {opened.encoder.name}; every byte was read"
    print(f"{artifact} is intact: {told}\nmanifest_sha256 {opened.manifest['manifest_sha256']}")


@commands.command()
def export(
    artifact: options.AnyArtifact,
    npy: Annotated[Path, typer.Option(metavar="OUT", help="the folder to write to")],
    sha256: options.Sha256 = None,
) -> None:
    """Write embeddings.npy, image_paths.npy and labels.npy."""
    opened = _opened(artifact, sha256)
    import numpy as np

    if npy.exists() and not npy.is_dir():
        raise ArtifactError(f"{npy} is a file; --npy takes a folder.")
    # Unicode arrays rather than object arrays: numpy reads them without pickle.
    labels = ["" if label is None else label for label in opened.gallery.labels]
    arrays = {
        "embeddings": opened.store.vectors(np.arange(len(opened.store))),
        "image_paths": np.array(opened.gallery.table["source"].to_pylist(), np.str_),
        "labels": np.array(labels, np.str_),
    }
    with storing(npy, LookalikeError):
        npy.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        path = npy / f"{name}.npy"
        with storing(path, LookalikeError, needed=array.nbytes), whole(path) as new, new.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    print(f"{len(labels)} rows written to {npy}")


@commands.command()
def bench(
    artifact: options.AnyArtifact,
    rows: options.DrawnRows = None,
    dim: Annotated[int, typer.Option(metavar="D", min=1, help="dimension of the vectors drawn")] = 256,
    duplicates: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="instead, find near-duplicates among N vectors drawn")
    ] = None,
    ui: Annotated[
        bool, typer.Option("--ui", help="instead, measure the waiting times of the page, in Chromium")
    ] = False,
    stores: options.Stores = None,
    engines: Annotated[bool, typer.Option("--engines", help="instead, compare the engines that are installed")] = False,
    keep: options.KeepDrawn = None,
    as_json: options.AsJson = False,
    sha256: options.Sha256 = None,
    engine: options.Engine = None,
    device: options.Device = None,
) -> None:
    """Measure start-up, speed, recall and memory."""
    check_artifact(artifact)
    from retrieval.bench.artifact import bench_artifact
    from retrieval.bench.duplicates import bench_duplicates
    from retrieval.bench.engines import bench_engines
    from retrieval.bench.page import bench_ui
    from retrieval.bench.rows.stores import ROWS, bench_stores
    from retrieval.hub.pull import open_reference

    folder = open_reference(artifact, sha256=sha256).folder
    if ui:
        figures = bench_ui(folder)
    elif stores:
        figures = bench_stores(folder, stores, rows or ROWS, dim)
    elif engines:
        figures = bench_engines(folder)
    elif duplicates:
        figures = bench_duplicates(folder, duplicates, dim)
    else:
        figures = _drawn(folder, rows, dim, keep) if rows or keep else bench_artifact(folder)
    print_figures(figures, as_json)


def _drawn(folder: Path, rows: int | None, dim: int, keep: Path | None) -> dict[str, Any]:
    """The figures of drawn vectors: of an index alone, or of an artifact that is kept."""
    if not rows:
        raise ArtifactError("--keep says where the vectors of --rows go: add --rows N.")
    from retrieval.bench.rows.artifact import bench_drawn
    from retrieval.bench.rows.index import bench_index

    return bench_drawn(folder, rows, keep) if keep else bench_index(folder, rows, dim)


def _opened(name: str, sha256: str | None) -> Artifact:
    check_artifact(name)
    from retrieval.hub.pull import open_artifact

    return open_artifact(name, sha256=sha256)


def _contents(name: str, sha256: str | None) -> tuple[dict[str, Any], Gallery]:
    """The manifest and the gallery."""
    from retrieval.artifact.load import read_gallery
    from retrieval.artifact.manifest import check_pin
    from retrieval.hub.pull import open_reference

    manifest, gallery = read_gallery(open_reference(name, sha256=sha256).folder)
    check_pin(manifest, sha256)  # the folder may have changed since
    return manifest, gallery


def _matching(gallery: Gallery, where: Any) -> Ids:
    import numpy as np

    rows = gallery.rows_where(where)
    return np.arange(len(gallery)) if rows is None else rows
