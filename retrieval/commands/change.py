"""Commands that build an artifact, add images to it, or remove some."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from retrieval.commands import options
from retrieval.commands.paths import check_folder, check_source
from retrieval.commands.printing import Bar, noted, print_report
from retrieval.console import command

if TYPE_CHECKING:
    from retrieval.sources.base import Source

commands = typer.Typer()
_SEED = 0  # fixed: the same command gets the same encoder after an interruption, and resumes
Out = Annotated[Path, typer.Option(metavar="DIR", help="the artifact's folder")]
Backbone = Annotated[str, typer.Option(metavar="M", help="any timm model")]
Weights = Annotated[
    Path | None, typer.Option(metavar="FILE", help="a local safetensors file instead of the Hub's weights")
]
CropMode = Annotated[
    Literal["squash", "center"],
    typer.Option(help="squash: resize the whole picture to a square; center: crop as in the model's own evaluation"),
]
License = Annotated[
    str | None,
    typer.Option(
        "--license",
        metavar="ID",
        help="licence of the images, as named on the Hub, e.g. cc-by-4.0 (default: what the source states)",
    ),
]
NoPretrained = Annotated[bool, typer.Option("--no-pretrained", help="use random weights")]
Index = Annotated[
    str, typer.Option(metavar="SPEC", help="a FAISS factory string; AUTO: chosen by the number of images")
]
TextModel = Annotated[
    str | None,
    typer.Option(metavar="M", help="a CLIP or SigLIP model for search by words: its name on the Hub, or a folder"),
]
MapMethod = Annotated[
    Literal["pca", "tsne", "umap"] | None,
    typer.Option("--map", help="store a map of the gallery (default: the page computes one with PCA)"),
]


@commands.command()
def build(
    source: options.SourceName,
    out: Out,
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    label_level: options.LabelLevel = None,
    split: options.Split = None,
    config: options.Config = None,
    revision: options.Revision = None,
    limit: options.Limit = None,
    backbone: Backbone = "resnet50",
    weights: Weights = None,
    crop_mode: CropMode = "squash",
    image_license: License = None,
    no_pretrained: NoPretrained = False,
    index: Index = "AUTO",
    text_model: TextModel = None,
    map_method: MapMethod = None,
) -> None:
    """Embed images and write an artifact."""
    check_source(source)
    from retrieval.artifact.load import check_target
    from retrieval.build.build import build_artifact
    from retrieval.encoders.image import Encoder
    from retrieval.encoders.text import TextEncoder

    check_target(out)
    opened = _opened(source, image_column, label_column, label_level, split, config, revision)
    opened = _licensed(opened, image_license)
    encoder = Encoder.create(backbone, pretrained=not no_pretrained, weights=weights, crop_mode=crop_mode, seed=_SEED)
    text = TextEncoder.create(text_model) if text_model else None
    with Bar() as bar:
        report = build_artifact(
            opened, out, encoder, factory=index, limit=limit, progress=bar, text=text, map_method=map_method
        )
    print_report(report)
    print(f"{out} is ready; serve it: {command(f'serve --artifact {out}')}")


def _opened(
    name: str,
    image_column: str | None,
    label_column: str | None,
    label_level: int | None,
    split: str | None,
    config: str | None,
    revision: str | None,
) -> Source:
    """The source that the options name, once its notes are printed."""
    from retrieval.sources.open import open_source

    columns: dict[str, Any] = {"image_column": image_column, "label_column": label_column, "label_level": label_level}
    return noted(open_source(name, **columns, split=split, config=config, revision=revision))


def _licensed(source: Source, image_license: str | None) -> Source:
    return replace(source, about={**source.about, "license": image_license}) if image_license else source


@commands.command()
def add(
    artifact: options.Folder,
    source: options.SourceName,
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    label_level: options.LabelLevel = None,
    split: options.Split = None,
    config: options.Config = None,
    revision: options.Revision = None,
    limit: options.Limit = None,
) -> None:
    """Add images that the artifact does not contain yet."""
    check_folder(artifact)
    check_source(source)
    from retrieval.build.change import add_images

    with Bar() as bar:
        images = _opened(source, image_column, label_column, label_level, split, config, revision)
        report = add_images(artifact, images, limit=limit, progress=bar).report
    print_report(report)


@commands.command()
def remove(
    artifact: options.Folder,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="ids of the images, as printed by search")],
) -> None:
    """Remove images by id."""
    check_folder(artifact)
    from retrieval.build.change import remove_images

    left = remove_images(artifact, ids)
    print(f"{len(set(ids))} removed, {len(left.gallery)} left")
