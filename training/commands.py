"""The commands of training: train, compare, recipes, bench-training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval.artifact.atomic import recover
from retrieval.commands.options import Device
from retrieval.commands.paths import check_source
from retrieval.console import command
from retrieval.errors import HubError, LookalikeError
from retrieval.installed import needs

if TYPE_CHECKING:
    from training.recipe import Recipe

commands = typer.Typer()
# Recipe keys with their own options; the second names match the options of `build`.
Data = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="a folder, an archive, a parquet file, or a dataset's folder or Hub name"),
]
DataConfig = Annotated[
    str | None,
    typer.Option("--data-config", "--config", metavar="NAME", help="the dataset's configuration, if it has several"),
]
DataRevision = Annotated[
    str | None,
    typer.Option("--data-revision", "--revision", metavar="REV", help="branch, tag or commit of a dataset on the Hub"),
]
DataLicense = Annotated[
    str | None,
    typer.Option(
        "--data-license",
        "--license",
        metavar="ID",
        help="licence of the images, for the card (default: what the source states)",
    ),
]
ImageColumn = Annotated[str | None, typer.Option(metavar="C", help="the image column")]
LabelColumn = Annotated[str | None, typer.Option(metavar="C", help="the label column")]
LabelLevel = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="the folder that is the label, counted from SOURCE (default: the innermost)"),
]
Backbone = Annotated[
    str | None, typer.Option(metavar="M", help="a preset (`python -m retrieval encoders`), or any timm model")
]
Weights = Annotated[
    str | None, typer.Option(metavar="FILE", help="a local safetensors file instead of the Hub's weights")
]
WeightsLicense = Annotated[
    str | None,
    typer.Option(metavar="ID", help="licence of the weights in that file, as named on the Hub, for the card"),
]
HoldOut = Annotated[float | None, typer.Option(metavar="SHARE", help="fraction of the classes to hold out of training")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a key of the recipe; may be repeated")
]
PushToHub = Annotated[
    str | None,
    typer.Option(metavar="OWNER/NAME", help="upload the finished artifact to this repository, in one commit"),
]
Private = Annotated[
    bool, typer.Option("--private", help="with --push-to-hub: make it private, visible only to those with access")
]
_KEYS = (
    *("data", "data_config", "data_revision", "data_license", "image_column", "label_column", "label_level"),
    *("backbone", "weights", "weights_license"),
)


@commands.command(context_settings={"allow_extra_args": True})
def train(
    context: typer.Context,
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="a recipe's name, or a YAML file (default: list the recipes)")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="the artifact to write")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted run")] = False,
    push_to_hub: PushToHub = None,
    private: Private = False,
    changes: Changes = None,
    data: Data = None,
    data_config: DataConfig = None,
    data_revision: DataRevision = None,
    data_license: DataLicense = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    label_level: LabelLevel = None,
    backbone: Backbone = None,
    weights: Weights = None,
    weights_license: WeightsLicense = None,
    hold_out_classes: HoldOut = None,
    device: Device = None,
    list_: Annotated[bool, typer.Option("--list", help="list the recipes, and the keys for --set")] = False,
) -> None:
    """Fine-tune an encoder, and build its artifact."""
    if list_ or (recipe is None and out is None):
        recipes()
        return
    from training.recipe import load_recipe, parse_changes, recipe_names

    if recipe is None:
        raise LookalikeError(f"no recipe was given: choose one of {', '.join(recipe_names())}.")
    chosen = load_recipe(recipe, {**_keys(context), **parse_changes(changes or [])})
    if context.args:
        raise LookalikeError(f"unexpected argument {context.args[0]}: name the artifact's folder with --out.")
    if out is None:
        raise LookalikeError("--out is missing: name the folder for the artifact.")
    _run(chosen, out, resume, push_to_hub, private)


@commands.command()
def compare(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="DIR", help="the artifacts of finished runs")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="also draw the table as a PNG")] = None,
    update_cards: Annotated[
        bool,
        typer.Option(
            "--update-cards",
            help="copy the unseen-class figures of a run with held-out classes to the matching run on all classes",
        ),
    ] = False,
) -> None:
    """Compare finished runs, side by side."""
    if not folders:
        raise LookalikeError(f"compare needs the artifacts of runs: {command('compare DIR DIR ...')}")
    for folder in folders:
        recover(folder)
        if not folder.is_dir():
            raise LookalikeError(f"{folder} does not contain a finished run: there is no such folder.")
    with needs("comparing runs", extra="train"):
        from training.results import compare as runs

    print(runs.compare(folders, plot))
    if update_cards:
        changed = runs.update_cards(folders)
        print("\n".join(f"updated {folder}" for folder in changed) or "no run has a matching run with held-out classes")


@commands.command()
def recipes() -> None:
    """List the recipes, and all keys with their defaults."""
    from training.recipe import load_recipe, recipe_keys, recipe_names

    print("recipes:")
    for name in recipe_names():
        print(f"  {name:16} {load_recipe(name).about}")
    print("\nkeys (--set KEY=VALUE), with their defaults:")
    for name, text, default in recipe_keys():
        if name not in ("name", "about"):
            print(f"  {name:22} {text} [{default!r}]")


@commands.command()
def bench_training(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="a recipe's name, or a YAML file")] = "caltech101",
    changes: Changes = None,
    data: Data = None,
    data_config: DataConfig = None,
    data_revision: DataRevision = None,
    data_license: DataLicense = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    label_level: LabelLevel = None,
    backbone: Backbone = None,
    weights: Weights = None,
    weights_license: WeightsLicense = None,
    hold_out_classes: HoldOut = None,
    device: Device = None,
) -> None:
    """Measure the speed of training."""
    with needs("training", extra="train"):
        from training.bench import bench
        from training.recipe import load_recipe, parse_changes

    chosen = load_recipe(recipe, {"data": "", **_keys(context), **parse_changes(changes or [])})
    for name, value in bench(chosen).items():
        print(f"{name:45} {value:,.2f}" if isinstance(value, float) else f"{name:45} {value}")


def _keys(context: typer.Context) -> dict[str, Any]:
    """Recipe keys set by their own command-line options."""
    return {key: value for key in (*_KEYS, "hold_out_classes") if (value := context.params[key]) is not None}


def _run(recipe: Recipe, out: Path, resume: bool, push_to_hub: str | None, private: bool) -> None:
    if private and not push_to_hub:
        raise LookalikeError("--private needs --push-to-hub: name the repository to push to.")
    if recipe.data:
        check_source(recipe.data)
    first = int(os.environ.get("RANK", 0)) == 0
    if push_to_hub and first:
        from retrieval.hub.push import check_push

        check_push(push_to_hub, private=private)
    with needs("training", extra="train"):
        from training.results.compare import compare
        from training.run import train
    made = train(recipe, out, resume=resume, say=_say)
    if first:
        _say(f"\n{compare([made])}\nserve it: {command(f'serve --artifact {made}')}")
        if push_to_hub:
            _push(made, push_to_hub, private=private)


def _push(out: Path, name: str, *, private: bool) -> None:
    from retrieval.hub.push import push

    try:
        print(push(out, name, private=private))
    except HubError as error:
        again = command(f"push {out} {name}{' --private' if private else ''}")
        raise HubError(f"{error} The artifact is complete; to push it: {again}") from error


def _say(text: str) -> None:
    print(text, flush=True)
