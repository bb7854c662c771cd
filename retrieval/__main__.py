"""The command line: python -m retrieval build | search | add | push | pull | deploy and more; see --help."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.console import progress_bar, run_command, say
from retrieval.errors import ArtifactError, QueryError

if TYPE_CHECKING:
    from retrieval.artifact.load import Artifact
    from retrieval.artifact.report import Report
    from retrieval.evaluation.duplicates import Group
    from retrieval.images.gallery import Gallery
    from retrieval.images.open import Region
    from retrieval.images.sources import Source
    from retrieval.search import Hit


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it worked, 1 with one line on standard error if it did not, 2 for wrong usage."""
    arguments = _parsed(argv)
    return run_command(
        lambda: arguments.run(arguments), "a build, add or pull goes on from here when it is given again"
    )


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; argparse itself takes an IMAGE that follows an option, and may be left out, for one too many."""
    parser = _parser()
    arguments, left = parser.parse_known_args(argv)
    if len(left) == 1 and not left[0].startswith("-") and getattr(arguments, "image", "") is None:
        arguments.image = left.pop()
    if left:
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return arguments


_FOLDER = "an artifact's folder"
_REMOTE = "an artifact on the Hub, and a branch, tag or commit (default: main)"
_ANY = "an artifact: its folder, or owner/name[@revision] on the Hub"
_LARGEST = 10  # groups that are printed, and images of each
_Parser = argparse.ArgumentParser
_Command = Callable[..., _Parser]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m retrieval", description="Image-to-image search.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, what: str | None = None, metavar: str = "DIR") -> _Parser:
        added: _Parser = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        if what:
            added.add_argument("artifact", type=Path if what is _FOLDER else str, metavar=metavar, help=what)
        return added

    _add_writing(command)
    _add_reading(command)
    _add_hub(command)
    return parser


def _add_writing(command: _Command) -> None:
    build = command("build", _build, "Embed images and write an artifact.")
    _add_source_options(build)
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="the artifact's folder")
    build.add_argument("--backbone", default="resnet50", help="any timm model (default: resnet50)")
    build.add_argument("--weights", type=Path, metavar="FILE", help="a local safetensors file, instead of the Hub's")
    build.add_argument(
        "--crop-mode",
        choices=["squash", "center"],
        default="squash",
        help="squash: the whole picture (default); center: the middle, as in the model's own evaluation",
    )
    build.add_argument(
        "--license", metavar="ID", help="of the images, as the Hub writes it: cc-by-4.0 (default: theirs)"
    )
    build.add_argument("--no-pretrained", action="store_true", help="random weights")
    build.add_argument("--index", default="AUTO", help="a FAISS factory string (default: AUTO, by size)")
    build.add_argument(
        "--text-model", metavar="M", help="CLIP or SigLIP, to be found by words too: its name on the Hub, or its folder"
    )
    build.add_argument(
        "--map", choices=["pca", "tsne", "umap"], help="store a map of the gallery (default: the page makes one by PCA)"
    )
    add = command("add", _add, "Add the images of a source; those that are there already are left out.", _FOLDER)
    _add_source_options(add)
    remove = command("remove", _remove, "Take images out, by id.", _FOLDER)
    remove.add_argument("ids", nargs="+", metavar="ID")


def _add_reading(command: _Command) -> None:
    search = command(
        "search", _search, "Find the images that are most like one, like and unlike others, or like words.", _ANY
    )
    search.add_argument("image", metavar="IMAGE", nargs="?", help="a file")
    search.add_argument("--region", metavar="L,T,R,B", help="the part of IMAGE that counts, as shares from 0 to 1")
    search.add_argument("--text", metavar="WORDS", help="what it shows; for an artifact with a text model")
    search.add_argument("--like", action="append", default=[], metavar="ID", help="of the gallery; may be repeated")
    search.add_argument("--unlike", action="append", default=[], metavar="ID", help="the same, to be unlike")
    search.add_argument("--fold", action="store_true", help="fold near-duplicates of a hit into it")
    search.add_argument("-k", type=int, default=5, help="how many (default: 5)")
    search.add_argument("--min-score", type=float, default=-1.0, help="least cosine (default: -1, all)")
    search.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="filter; may be repeated")
    evaluate = command("evaluate", _evaluate, "Leave-one-out figures by label.", _ANY)
    command("verify", _verify, "Check every byte, and replay the golden query.", _ANY)
    export = command("export", _export, "Write embeddings.npy, image_paths.npy and labels.npy.", _ANY)
    export.add_argument("--npy", type=Path, required=True, metavar="OUT", help="the folder to write to")
    for each in (search, evaluate, *_add_measuring(command)):
        each.add_argument("--json", action="store_true", help="print JSON")


def _add_measuring(command: _Command) -> tuple[_Parser, _Parser]:
    bench = command("bench", _bench, "Measure start-up, speed, recall and memory.", _ANY)
    bench.add_argument("--rows", type=_positive, help="search so many vectors drawn around the artifact's instead")
    bench.add_argument("--dim", type=_positive, default=256, help="of the vectors drawn (default: 256)")
    bench.add_argument("--duplicates", type=_positive, metavar="N", help="find near-duplicates among so many instead")
    bench.add_argument("--ui", action="store_true", help="measure what one waits for at the page, in Chromium, instead")
    duplicates = command("duplicates", _duplicates, "Find groups of near-duplicates.", _ANY)
    duplicates.add_argument("--threshold", type=float, default=0.95, help="least cosine, from 0.8 to 1 (default: 0.95)")
    duplicates.add_argument("--csv", type=Path, metavar="FILE", help="write all groups there, a line an image")
    return bench, duplicates


def _add_hub(command: _Command) -> None:
    push = command("push", _push, "Verify an artifact and send it to the Hub, in one commit.", _FOLDER)
    push.add_argument("repository", metavar="OWNER/NAME", help="made where it does not exist")
    push.add_argument("--private", action="store_true", help="for those only who may see it")
    push.add_argument("--message", metavar="M", help="what the commit is called")
    pull = command("pull", _pull, "Bring an artifact from the Hub, and check it.", _REMOTE, "OWNER/NAME[@REVISION]")
    pull.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write to")
    deploy = command("deploy", _deploy, "Make or update a Space that serves an artifact.")
    deploy.add_argument("space", metavar="OWNER/SPACE", help="made where it does not exist")
    deploy.add_argument("--artifact", required=True, metavar="OWNER/NAME[@REVISION]", help=_REMOTE)
    deploy.add_argument("--private", action="store_true", help="for those only who may see it")
    deploy.add_argument("--hardware", metavar="H", help="cpu-basic (default), cpu-upgrade, ...: what the Hub offers")


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a folder, a parquet file, or a data set's folder or Hub name")
    parser.add_argument("--image-column", metavar="C", help="the column of the images (default: the first that is one)")
    parser.add_argument("--label-column", metavar="C", help="the column of the labels (default: label)")
    parser.add_argument("--split", metavar="S", help="one split (default: all)")
    parser.add_argument("--config", metavar="NAME", help="the data set's configuration, where it has several")
    parser.add_argument(
        "--revision", metavar="REV", help="branch, tag or commit on the Hub; or SOURCE@REV (default: main)"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="stop after so many images")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number above 0 was expected, not {text!r}")
    return int(text)


def _source(arguments: argparse.Namespace) -> Source:
    from retrieval.images.sources import open_source

    return open_source(
        arguments.source,
        image_column=arguments.image_column,
        label_column=arguments.label_column,
        split=arguments.split,
        config=arguments.config,
        revision=arguments.revision,
    )


def _build(arguments: argparse.Namespace) -> None:
    from retrieval.artifact.load import check_target
    from retrieval.build.build import build_artifact
    from retrieval.encoders.image import Encoder
    from retrieval.encoders.text import TextEncoder

    check_target(arguments.out)
    source = _source(arguments)
    if arguments.license:
        source = replace(source, about={**source.about, "license": arguments.license})
    encoder = Encoder.create(
        arguments.backbone,
        pretrained=not arguments.no_pretrained,
        weights=arguments.weights,
        crop_mode=arguments.crop_mode,
        seed=0,  # so that the same command after a kill has the same encoder, and goes on
    )
    text = TextEncoder.create(arguments.text_model) if arguments.text_model else None
    with _Bar() as bar:
        report = build_artifact(
            source,
            arguments.out,
            encoder,
            factory=arguments.index,
            limit=arguments.limit,
            progress=bar,
            text=text,
            map_method=arguments.map,
        )
    _print_report(report)
    print(f"{arguments.out} is ready: python app.py --artifact {arguments.out}")


def _add(arguments: argparse.Namespace) -> None:
    from retrieval.build.change import add_images

    with _Bar() as bar:
        report = add_images(arguments.artifact, _source(arguments), limit=arguments.limit, progress=bar).report
    assert report
    _print_report(report)


def _remove(arguments: argparse.Namespace) -> None:
    from retrieval.build.change import remove_images

    left = remove_images(arguments.artifact, arguments.ids)
    print(f"{len(set(arguments.ids))} removed, {len(left.gallery)} left")


def _search(arguments: argparse.Namespace) -> None:
    from retrieval.search import Part, Searcher

    where, region = _where(arguments.where), _region(arguments.region, arguments.image)
    searcher = Searcher.open(arguments.artifact)
    gallery = searcher.gallery
    parts = [Part(arguments.image, region=region)] if arguments.image else []
    parts += [Part(words=arguments.text)] if arguments.text else []
    parts += [Part(row=gallery.row_of(name)) for name in arguments.like]
    parts += [Part(row=gallery.row_of(name), weight=-1.0) for name in arguments.unlike]
    query = searcher.query(parts)
    hits = searcher.find(query, arguments.k, min_score=arguments.min_score, where=where, fold=arguments.fold)
    if arguments.json:
        listed = [{**asdict(hit), "alike": [gallery.ids[row] for row in hit.alike]} for hit in hits]
        print(json.dumps(listed, indent=2, ensure_ascii=False))
        return
    for line in _lines(hits):
        print(line)
    if hits and hits[0].confident is False:
        say("no confident match: the nearest are shown all the same")


def _where(conditions: Sequence[str]) -> dict[str, list[str]]:
    where: dict[str, list[str]] = {}
    for condition in conditions:
        column, equals, value = condition.partition("=")
        if not equals:
            raise QueryError(f"a filter is COLUMN=VALUE, {condition!r} is not.")
        where.setdefault(column, []).append(value)
    return where


def _region(text: str | None, image: str | None) -> Region | None:
    from retrieval.images.open import as_region

    if text is None:
        return None
    if not image:
        raise QueryError("--region is a part of IMAGE, and there is no IMAGE.")
    try:
        return as_region([float(share) for share in text.split(",")])
    except ValueError as error:
        raise QueryError(f"a region is LEFT,TOP,RIGHT,BOTTOM, shares from 0 to 1; {text!r} is not.") from error


def _lines(hits: Sequence[Hit]) -> Iterator[str]:
    """A line a hit: cosine, chance where one is known, id, label, source, and how many were folded into it."""
    from retrieval.evaluation.confidence import percent

    known = any(hit.chance is not None for hit in hits)
    for hit in hits:
        chance = "-" if hit.chance is None else f"{percent(hit.chance)}%"
        alike = [f"+{len(hit.alike)} alike"] if hit.alike else []
        numbers = [f"{hit.score:.4f}", *([f"{chance:>3}"] if known else [])]
        yield "  ".join([*numbers, hit.id, f"{hit.label or '-':<20}", hit.source, *alike])


def _loaded(arguments: argparse.Namespace) -> Artifact:
    from retrieval.artifact.load import load_artifact
    from retrieval.hub.pull import open_reference

    return load_artifact(open_reference(arguments.artifact).folder)


def _evaluate(arguments: argparse.Namespace) -> None:
    import numpy as np

    from retrieval.evaluation.metrics import leave_one_out

    artifact = _loaded(arguments)
    figures = leave_one_out(artifact.store.vectors(np.arange(len(artifact.store))), artifact.gallery.labels)
    _print_figures(figures, arguments.json)


def _verify(arguments: argparse.Namespace) -> None:
    artifact = _loaded(arguments)
    size = sum(file["size"] for file in artifact.manifest["files"].values())
    print(
        f"{arguments.artifact} is whole: {len(artifact.gallery)} images, {size / 1e6:.1f} MB, {artifact.encoder.name}"
    )


def _export(arguments: argparse.Namespace) -> None:
    import numpy as np

    artifact = _loaded(arguments)
    if arguments.npy.exists() and not arguments.npy.is_dir():
        raise ArtifactError(f"{arguments.npy} is a file; --npy takes a folder.")
    arguments.npy.mkdir(parents=True, exist_ok=True)
    # Plain text arrays, not objects: numpy can then read them without pickle.
    labels = ["" if label is None else label for label in artifact.gallery.labels]
    np.save(arguments.npy / "embeddings.npy", artifact.store.vectors(np.arange(len(artifact.store))))
    np.save(arguments.npy / "image_paths.npy", np.array(artifact.gallery.table["source"].to_pylist(), np.str_))
    np.save(arguments.npy / "labels.npy", np.array(labels, np.str_))
    print(f"{len(labels)} rows written to {arguments.npy}")


def _bench(arguments: argparse.Namespace) -> None:
    from retrieval.bench.artifact import bench_artifact, bench_index
    from retrieval.bench.duplicates import bench_duplicates
    from retrieval.bench.page import bench_ui
    from retrieval.hub.pull import open_reference

    folder = open_reference(arguments.artifact).folder
    if arguments.ui:
        figures = bench_ui(folder)
    elif arguments.duplicates:
        figures = bench_duplicates(folder, arguments.duplicates, arguments.dim)
    else:
        figures = bench_index(folder, arguments.rows, arguments.dim) if arguments.rows else bench_artifact(folder)
    _print_figures(figures, arguments.json)


def _duplicates(arguments: argparse.Namespace) -> None:
    from retrieval.evaluation.duplicates import check_threshold, find_groups, write_csv
    from retrieval.images.compare import Pictures

    check_threshold(arguments.threshold)
    artifact = _loaded(arguments)
    with _Bar() as bar:
        groups = find_groups(artifact.store, Pictures(artifact.gallery).same, arguments.threshold, bar)
    if arguments.csv:
        write_csv(groups, artifact.gallery, arguments.csv)
    if arguments.json:
        print(json.dumps([_listed(group, artifact.gallery) for group in groups], indent=2, ensure_ascii=False))
        return
    more = sum(len(group.rows) - 1 for group in groups)
    print(
        f"{len(artifact.gallery)} images, {len(groups)} groups of near-duplicates, {more} images more than one of each"
    )
    for number, group in enumerate(groups[:_LARGEST], 1):
        print(f"\ngroup {number}, {len(group.rows)} images")
        for image in _listed(group, artifact.gallery)["images"][:_LARGEST]:
            print(f"{image['cosine']:.4f}  {image['id']}  {image['label'] or '-':<20}  {image['source']}")


def _listed(group: Group, gallery: Gallery) -> dict[str, Any]:
    """A group as JSON shows it, its leader first."""
    rows = gallery.take(group.rows)
    images = [
        {"id": row.id, "label": row.label, "source": row.source, "cosine": round(score, 4)}
        for row, score in zip(rows, group.scores, strict=True)
    ]
    return {"size": len(images), "images": images}


def _push(arguments: argparse.Namespace) -> None:
    from retrieval.hub.push import push as push_artifact

    folder, name = arguments.artifact, arguments.repository
    print(push_artifact(folder, name, private=arguments.private, message=arguments.message))


def _pull(arguments: argparse.Namespace) -> None:
    from retrieval.hub.pull import pull

    pulled = pull(arguments.artifact, arguments.out)
    print(f"{arguments.out} is {pulled.name}, {pulled.state}: python app.py --artifact {arguments.out}")


def _deploy(arguments: argparse.Namespace) -> None:
    from retrieval.hub.deploy import deploy

    print(deploy(arguments.space, arguments.artifact, private=arguments.private, hardware=arguments.hardware))


def _print_figures(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:<36} {f'{value:.4g}' if isinstance(value, float) else value}")


def _print_report(report: Report) -> None:
    for source, reason in report.skipped:
        print(f"skipped {source}: {reason}")
    for source, same in report.duplicates:
        print(f"duplicate {source}: the same content as {same}")
    print(
        f"found {report.found} = indexed {report.indexed} + skipped {len(report.skipped)} "
        f"+ duplicate {len(report.duplicates)}"
    )


class _Bar:
    """Progress on standard error: images a second and the time left; a line now and then where it is no terminal."""

    def __enter__(self) -> _Bar:
        self._bar = progress_bar(unit="images", smoothing=0.05, delay=0.5)
        self._started = False
        return self

    def __call__(self, done: int, total: int | None) -> None:
        if not self._started:
            self._bar.initial = self._bar.n = done - 1  # what an earlier run has done does not count as speed
            self._bar.total = total
            self._started = True
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        self._bar.close()


if __name__ == "__main__":
    sys.exit(main())
