"""Commands that build an artifact, add images to it, or remove some."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval.commands import options
from retrieval.commands.changing.merging import (
    build_by_ray,
    build_shard,
    check_part,
    check_ray,
    everywhere,
    shard_of,
)
from retrieval.commands.changing.opening import chosen_source, opened_source
from retrieval.commands.changing.watching import watch_source
from retrieval.commands.encoders import encoder_of, text_encoder_of
from retrieval.commands.paths import check_folder, check_out, check_source
from retrieval.commands.printing import (
    Bar,
    one_line,
    print_built,
    print_originals,
    print_report,
    print_sync,
    print_unlike,
)
from retrieval.errors import QueryError
from retrieval.installed import check_installed
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.images.gallery import Gallery
    from retrieval.sources.base import Source

commands = typer.Typer()


@commands.command()
def build(
    source: options.SourceName,
    out: options.Out,
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    label_level: options.LabelLevel = None,
    split: options.Split = None,
    config: options.Config = None,
    revision: options.Revision = None,
    allow_private: options.AllowPrivate = False,
    limit: options.Limit = None,
    backbone: options.Backbone = "resnet50",
    weights: options.Weights = None,
    weights_license: options.WeightsLicense = None,
    image_size: options.ImageSize = None,
    crop_mode: options.CropMode = "squash",
    image_license: options.License = None,
    no_pretrained: options.NoPretrained = False,
    precision: options.Precision = "float32",
    accept_loss: options.AcceptLoss = False,
    index: options.Index = "AUTO",
    text_model: options.TextModel = None,
    text_model_license: options.TextModelLicense = None,
    map_method: options.MapMethod = None,
    originals: options.Originals = False,
    shard: options.Shard = None,
    ray: options.Ray = None,
    ray_workers: options.RayWorkers = None,
    parts: options.Parts = None,
    force: options.Force = False,
    engine: options.Engine = None,
    device: options.Device = None,
) -> None:
    """Embed images and write an artifact."""
    given = {
        "--precision": precision,
        "--index": index,
        "--text-model": text_model,
        "--text-model-license": text_model_license,
        "--map": map_method,
    }
    check_ray(ray, {**given, "--shard": shard, "--ray-workers": ray_workers, "--parts": parts})
    part = shard_of(shard, given)
    check_source(source)
    if part:
        check_part(out, force)
    else:
        check_out(out, force)
    # The extra that has all of it, and not one after the other.
    check_installed("nncf" if precision == "int8" else "timm", "--precision int8" if precision == "int8" else "build")
    from retrieval.build.build import build_artifact

    chosen = image_column, label_column, label_level, split, config, revision, allow_private, image_license
    opened = None if ray else chosen_source(source, *chosen)
    encoder = encoder_of(backbone, no_pretrained, weights, weights_license, image_size, crop_mode)
    if opened and part:
        build_shard(opened, out, encoder, part, limit=limit, originals=originals, force=force)
        return
    more: dict[str, Any] = {"map_method": map_method, "originals": originals, "factory": index, "limit": limit}
    if text_model or text_model_license:
        more["text"] = text_encoder_of(text_model, text_model_license)
    if ray or not opened:
        build_by_ray(partial(chosen_source, everywhere(source), *chosen), out, encoder, ray, ray_workers, parts, **more)
        return
    with Bar() as bar:
        report = build_artifact(
            opened, out, encoder, progress=bar, precision=precision, accept_loss=accept_loss, **more
        )
    print_built(report, out)


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
    allow_private: options.AllowPrivate = False,
    limit: options.Limit = None,
    originals: options.Originals = False,
    engine: options.Engine = None,
    device: options.Device = None,
) -> None:
    """Add images that the artifact does not contain yet."""
    check_folder(artifact)
    check_source(source)
    from retrieval.build.change import add_images, count_unlike

    with Bar() as bar:
        images = opened_source(source, image_column, label_column, label_level, split, config, revision, allow_private)
        new = add_images(artifact, images, limit=limit, progress=bar, originals=originals)
    print_report(new.report)
    print_originals(artifact)
    # A source on the Hub would be downloaded again for this.
    if Path(source).expanduser().exists():
        print_unlike(count_unlike(new, images), artifact)


@commands.command()
def sync(
    artifact: options.Folder,
    source: options.SourceName,
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    label_level: options.LabelLevel = None,
    split: options.Split = None,
    config: options.Config = None,
    revision: options.Revision = None,
    allow_private: options.AllowPrivate = False,
    originals: options.Originals = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="then go on: sync whenever SOURCE changes, until interrupted")
    ] = False,
    dry_run: options.DryRun = False,
    engine: options.Engine = None,
    device: options.Device = None,
) -> None:
    """Make an artifact what its source is now."""
    if watch and dry_run:
        raise typer.BadParameter("--watch changes the artifact again and again: leave out --watch or --dry-run.")
    check_folder(artifact)
    check_source(source)
    named = (source, image_column, label_column, label_level, split, config, revision, allow_private)
    opened = partial(_opened_with_originals if originals else opened_source, *named)
    if watch:
        watch_source(artifact, source, opened)
        return
    from retrieval.build.sync import sync_artifact

    images = opened()
    with Bar() as bar:
        report = sync_artifact(artifact, images, dry_run=dry_run, progress=bar)
    print_sync(report, dry_run)
    if not dry_run:
        print_originals(artifact)


def _opened_with_originals(*named: Any) -> Source:
    from retrieval.sources.originals import with_originals

    return with_originals(opened_source(*named))


@commands.command()
def remove(
    artifact: options.Folder,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="ids of images, as printed by search")] = None,
    where: options.WhereConditions = None,
    path: options.Paths = None,
    dry_run: options.DryRun = False,
) -> None:
    """Remove images by id, source or filter."""
    if not (ids or where or path):
        raise typer.BadParameter("say what to remove: ids, --path or --where.")
    if where and (ids or path):
        raise QueryError("give either --where, or ids and --path: together, it is not clear which images to remove.")
    check_folder(artifact)
    from retrieval.artifact.load import read_gallery
    from retrieval.build.change import remove_images

    gallery = read_gallery(artifact)[1]
    images = gallery.take(_rows_to_remove(gallery, ids or [], where or [], path or []))
    count = f"{len(images):,} of {counted(len(gallery), 'image')}"
    if len(images) == len(gallery):
        raise QueryError(f"this would remove {count}; to remove all of them, delete the folder {artifact}.")
    print(f"{'would remove' if dry_run else 'removing'} {count}:")
    for image in images:
        print(one_line(f"{image.id}  {image.label or '-':<20}  {image.source}"), flush=True)
    if dry_run:
        return
    left = remove_images(artifact, [image.id for image in images])
    print(f"{len(images):,} removed, {len(left.gallery):,} left")


def _rows_to_remove(gallery: Gallery, ids: list[str], where: list[str], paths: list[str]) -> list[int]:
    """The rows with these ids or sources, or those that match the filter, ascending; QueryError if there are none."""
    from retrieval.images.gallery import parse_where

    rows = {gallery.row_of(image_id) for image_id in ids}
    for wanted in ({"source": paths} if paths else None, parse_where(where)):
        if wanted and (found := gallery.rows_where(wanted)) is not None:
            rows.update(found.tolist())
    if not rows:
        raise QueryError(f"no image matches {' '.join(f'--where {one}' for one in where)}; nothing was removed.")
    return sorted(rows)
