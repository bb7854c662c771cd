"""The command that merges the parts of a build, and what `build --shard` does instead of a whole build."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval.commands import options
from retrieval.commands.encoders import text_encoder_of
from retrieval.commands.paths import check_out
from retrieval.commands.printing import Bar, print_built, print_report
from retrieval.console import command
from retrieval.installed import check_installed
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.encoders.image import Encoder
    from retrieval.sources.base import Source

commands = typer.Typer()
_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")
_MERGES = {  # options of `build` -> what they are if they are not given
    "--index": "AUTO",
    "--text-model": None,
    "--text-model-license": None,
    "--map": None,
}


@commands.command()
def merge(
    parts: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="the folders of all parts, from build --shard, in any order")
    ],
    out: options.Out,
    index: options.Index = "AUTO",
    text_model: options.TextModel = None,
    text_model_license: options.TextModelLicense = None,
    map_method: options.MapMethod = None,
    force: options.Force = False,
    engine: options.Engine = None,
    device: options.Device = None,
) -> None:
    """Merge the parts that `build --shard` has made into an artifact."""
    check_out(out, force)
    from retrieval.build.parts.merge import merge_parts

    more: dict[str, Any] = {}
    if text_model or text_model_license:
        more["text"] = text_encoder_of(text_model, text_model_license)
    report = merge_parts(parts, out, factory=index, map_method=map_method, **more)
    print_built(report, out)


def shard_of(text: str | None, given: dict[str, Any]) -> tuple[int, int] | None:
    """The number of the part and of all parts that `--shard` names; None without it.

    `given` are options of `build` and their values. Raises BadParameter for wrong text, and for an option that only the
    whole gallery can have.
    """
    if text is None:
        return None
    found = _SHARD.fullmatch(text.strip())
    index, count = map(int, found.groups()) if found else (0, 0)
    if not found or index >= count:
        raise typer.BadParameter(
            f"--shard is I/N, part I of N, where I goes from 0 to N-1: 0/3, 1/3 and 2/3 are all of 3; not {text!r}."
        )
    if given["--precision"] != "float32":
        raise typer.BadParameter(
            "--precision int8 is calibrated on images of the whole source and compared on the whole gallery, so parts "
            "are in float32: leave out --shard or --precision."
        )
    if theirs := [name for name, without in _MERGES.items() if given[name] != without]:
        raise typer.BadParameter(f"{theirs[0]} is about the whole gallery: give it to `merge`, not to a part.")
    return index, count


def check_ray(address: str | None, given: dict[str, Any]) -> None:
    """Raise BadParameter if options of `build` do not go together with `--ray`, and MissingExtraError without it."""
    if address is None:
        if alone := [name for name in ("--ray-workers", "--parts") if given[name] is not None]:
            raise typer.BadParameter(f"{alone[0]} needs --ray.")
        return
    if given["--shard"] is not None:
        raise typer.BadParameter("--ray makes the parts itself: leave out --shard.")
    if given["--precision"] != "float32":
        raise typer.BadParameter("--precision int8 needs the whole source at once: leave out --ray or --precision.")
    check_installed("ray", "--ray")


def everywhere(source: str) -> str:
    """The name of a source for workers, which run in folders of their own."""
    path = Path(source).expanduser()
    return str(path.absolute()) if path.exists() else source


def build_by_ray(
    opening: Callable[[], Source],
    out: Path,
    encoder: Encoder,
    address: str | None,
    workers: int | None,
    parts: int | None,
    **more: Any,
) -> None:
    """Build on a cluster, and print the report."""
    from retrieval.build.parts.ray import LOCAL, PARTS, build_with_ray

    more |= {"workers": workers, "parts": parts or PARTS}
    with Bar() as bar:
        report = build_with_ray(opening, out, encoder, address or LOCAL, progress=bar, **more)
    print_built(report, out)


def check_part(folder: Path, force: bool) -> None:
    """Raise ArtifactError unless a part may be written to the folder, without loading torch."""
    from retrieval.build.parts.folder import part_in

    part_in(folder, force=force)


def build_shard(
    source: Source,
    out: Path,
    encoder: Encoder,
    shard: tuple[int, int],
    *,
    limit: int | None,
    originals: bool,
    force: bool,
) -> None:
    """Embed a part of a source, and print its counts and what to do next."""
    from retrieval.build.parts.build import build_part

    with Bar() as bar:
        report = build_part(source, out, encoder, *shard, limit=limit, progress=bar, originals=originals, force=force)
    print_report(report)
    index, count = shard
    print(f"{out} is part {index} of {count}, with {counted(report.indexed, 'image')}; when all are there:")
    print(command(f"merge {'DIR_0 ... ' if count > 1 else ''}{out} --out DIR"))
