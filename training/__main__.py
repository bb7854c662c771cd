"""The command line: python -m training RECIPE --out DIR | --list | compare DIR... | bench [RECIPE]."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval.console import run_command
from retrieval.errors import HubError, LookalikeError
from training.recipe import load_recipe, parse_changes, recipe_keys, recipe_names


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it worked, 1 with one line on standard error if it did not, 2 for wrong usage."""
    arguments = _parser().parse_args(argv)
    task = {"compare": _compare, "bench": _bench}.get(arguments.recipe, _train)
    return run_command(lambda: task(arguments), "a run goes on after its last checkpoint when it is given --resume")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Fine-tune an encoder and build its artifact; compare finished runs; measure speed.",
    )
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="a recipe's name, a YAML file, compare, or bench")
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="DIR", help="compare: the runs' artifacts; bench: a recipe"
    )
    parser.add_argument("--list", action="store_true", help="name the recipes and the keys that --set takes")
    run = parser.add_argument_group("training")
    run.add_argument("--out", type=Path, metavar="DIR", help="the artifact to write")
    run.add_argument("--resume", action="store_true", help="go on with a run that was cut off")
    run.add_argument(
        "--push-to-hub", metavar="OWNER/NAME", help="send the artifact there when it is made, in one commit"
    )
    run.add_argument("--private", action="store_true", help="with --push-to-hub: for those only who may see it")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    for key, text in _SHORT.items():
        names = [f"--{key.replace('_', '-')}", *_AS_BUILD.get(key, ())]
        run.add_argument(*names, dest=key, metavar="X", help=text)
    side = parser.add_argument_group("compare")
    side.add_argument("--plot", type=Path, metavar="FILE", help="draw the table as a PNG, too")
    side.add_argument(
        "--update-cards",
        action="store_true",
        help="put the unseen figures of a run with held-out classes into its fellow that has all classes",
    )
    return parser


_SHORT = {
    "data": "a folder, a parquet file, or a data set's folder or Hub name",
    "data_config": "the data set's configuration, where it has several",
    "data_revision": "branch, tag or commit of a data set on the Hub",
    "data_license": "licence of the images, for the card (default: what they state)",
    "image_column": "the column of the images",
    "label_column": "the column of the labels",
    "backbone": "any timm model",
    "weights": "a local safetensors file instead of the Hub's weights",
    "hold_out_classes": "share of the classes that training never sees",
}  # keys of a recipe that have an option of their own
# ... and what `python -m retrieval build` calls them.
_AS_BUILD = {"data_config": ["--config"], "data_revision": ["--revision"], "data_license": ["--license"]}


def _train(arguments: argparse.Namespace) -> None:
    if arguments.list or not arguments.recipe:
        if arguments.out and not arguments.list:
            raise LookalikeError(f"no recipe is named: there is {', '.join(recipe_names())}.")
        _list()
        return
    recipe = load_recipe(arguments.recipe, {**_options(arguments), **parse_changes(arguments.set)})
    if arguments.folders:
        raise LookalikeError(f"{arguments.folders[0]} is one word too many: the artifact is named by --out.")
    if arguments.out is None:
        raise LookalikeError("--out is missing: the folder of the artifact that is to be made.")
    if arguments.private and not arguments.push_to_hub:
        raise LookalikeError("--private is how --push-to-hub pushes: name a repository with that.")
    first = int(os.environ.get("RANK", 0)) == 0
    if arguments.push_to_hub and first:
        from retrieval.hub.push import check_push

        check_push(arguments.push_to_hub, private=arguments.private)
    from training.run import train

    out = train(recipe, arguments.out, resume=arguments.resume, say=_say)
    if first:
        print(f"\n{_summary(out)}\nserve it: python app.py --artifact {out}", flush=True)
        if arguments.push_to_hub:
            _push(out, arguments.push_to_hub, private=arguments.private)


def _push(out: Path, name: str, *, private: bool) -> None:
    from retrieval.hub.push import push as push_artifact

    try:
        print(push_artifact(out, name, private=private))
    except HubError as error:
        again = f"python -m retrieval push {out} {name}{' --private' if private else ''}"
        raise HubError(f"{error} The artifact is whole; to push it: {again}") from error


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keys of a recipe that options of the command line name."""
    return {key: value for key in _SHORT if (value := getattr(arguments, key)) is not None}


def _say(text: str) -> None:
    print(text, flush=True)


def _summary(out: Path) -> str:
    from training.results.compare import compare

    return compare([out])


def _list() -> None:
    print("recipes:")
    for name in recipe_names():
        print(f"  {name:16} {load_recipe(name).about}")
    print("\nkeys (--set KEY=VALUE), with their defaults:")
    for name, text, default in recipe_keys():
        if name not in ("name", "about"):
            print(f"  {name:22} {text} [{default!r}]")


def _compare(arguments: argparse.Namespace) -> None:
    from training.results.compare import compare, update_cards

    if not arguments.folders:
        raise LookalikeError("compare needs the artifacts of runs: python -m training compare DIR DIR ...")
    print(compare(arguments.folders, arguments.plot))
    if arguments.update_cards:
        changed = update_cards(arguments.folders)
        print("\n".join(f"updated {folder}" for folder in changed) or "no run has a fellow with held-out classes")


def _bench(arguments: argparse.Namespace) -> None:
    from training.bench import bench

    name = str(arguments.folders[0]) if arguments.folders else "caltech101"
    recipe = load_recipe(name, {"data": "", **_options(arguments), **parse_changes(arguments.set)})
    for name, value in bench(recipe).items():
        print(f"{name:45} {value:,.2f}" if isinstance(value, float) else f"{name:45} {value}")


if __name__ == "__main__":
    sys.exit(main())
