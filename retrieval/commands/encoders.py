"""Commands about encoders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from retrieval.commands import options
from retrieval.commands.paths import check_folder
from retrieval.commands.printing import one_line, print_json
from retrieval.console import say
from retrieval.errors import EncoderError

if TYPE_CHECKING:
    from retrieval.encoders.image import Encoder
    from retrieval.encoders.text.encoder import TextEncoder

commands = typer.Typer()
_SEED = 0  # fixed: the same command gets the same encoder after an interruption, and resumes


@commands.command("export-encoder")
def export_encoder(artifact: options.Folder) -> None:
    """Add the exported encoder to an artifact of an earlier version, so that serving it needs no torch."""
    check_folder(artifact)
    from retrieval.artifact.parts.exported import EXPORTED
    from retrieval.build import change

    exported = change.export_encoder(artifact)
    found = {"encoder": exported.manifest.get(EXPORTED), "text model": exported.manifest.get("text", {}).get(EXPORTED)}
    for what, told in found.items():
        if told:
            moved = told.get("largest_difference")
            at_most = f": a score differs from torch's by at most {moved:.0e}" if moved is not None else ""
            print(f"{artifact} has the exported {what}{at_most or f', in {exported.encoder.precision}'}")


@commands.command()
def encoders(as_json: options.AsJson = False) -> None:
    """List the presets: encoders with a short name."""
    from retrieval.encoders.presets import CPU_MS, facts, table_lines

    if as_json:
        print_json(facts())
        return
    print("\n".join(table_lines()))
    print(f"\nCPU ms: {CPU_MS}.\n`build --backbone` and recipes take these names, and any other timm model.")


def encoder_of(
    backbone: str,
    no_pretrained: bool,
    weights: Path | None,
    weights_license: str | None,
    image_size: int | None,
    crop_mode: str,
) -> Encoder:
    """The encoder that the options name; what restricts the use of its weights is printed to standard error."""
    from retrieval.encoders.image import Encoder
    from retrieval.encoders.presets.licences import notice

    wanted: dict[str, Any] = {"weights": weights, "weights_license": weights_license, "image_size": image_size}
    encoder = Encoder.create(backbone, pretrained=not no_pretrained, **wanted, crop_mode=crop_mode, seed=_SEED)
    if encoder.weights and (text := notice(encoder.weights, backbone)):
        say(one_line(f"note: {text}"))
    return encoder


def text_encoder_of(name: str | None, licence: str | None) -> TextEncoder:
    """The text model of this name; what restricts the use of its weights is printed to standard error."""
    from retrieval.encoders.presets.licences import Weights, notice
    from retrieval.encoders.text.encoder import TextEncoder

    if name is None:
        raise EncoderError("--text-model-license is the licence of a text model: name that with --text-model.")
    encoder = TextEncoder.create(name, licence)
    if text := notice(Weights(encoder.name, encoder.licence), encoder.name):
        say(one_line(f"note: {text}"))
    return encoder
