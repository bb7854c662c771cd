"""An exported encoder: its engine and all that is known of it, from the files in a folder, without torch."""

from __future__ import annotations

from pathlib import Path

from retrieval.encoders.description import About, Description
from retrieval.encoders.engines.base import Engine
from retrieval.encoders.engines.choose import open_exported
from retrieval.encoders.engines.opened import NetworkFile
from retrieval.encoders.engines.trusted import check_exported, of_pictures
from retrieval.encoders.files import CONFIG_FILE, EXPORTED_FILE, WEIGHTS_FILE
from retrieval.encoders.preprocess import data_config_of
from retrieval.encoders.weights import fingerprint_of_files, int8_fingerprint, stored_shapes, stored_size
from retrieval.errors import EncoderError


def exported_encoder(folder: Path, described: Description, engine: str) -> tuple[Engine, About]:
    """An exported encoder, with the engine of this name; raises EncoderError if its files are invalid."""
    stored_shapes(folder / WEIGHTS_FILE)  # its header is checked
    data_config = data_config_of(described.pretrained_cfg)
    is_int8 = described.precision == "int8"
    file = NetworkFile(folder / EXPORTED_FILE)
    check_exported(file, of_pictures(data_config["input_size"]))
    running = open_exported(file, engine, is_int8=is_int8)
    if (stated := described.arguments["num_classes"]) not in (0, running.dim):
        raise EncoderError(f"{CONFIG_FILE} says {stated} numbers, but {EXPORTED_FILE} gives {running.dim}.")
    facts = [described.name, running.dim, data_config, *filter(None, [described.head])]
    fingerprint = fingerprint_of_files(facts, [folder / WEIGHTS_FILE])
    about = About(
        described.name,
        str(described.pretrained_cfg.get("tag") or ""),
        data_config,
        described.head,
        stored_size(folder / WEIGHTS_FILE),
        int8_fingerprint(fingerprint, engine, folder / EXPORTED_FILE) if is_int8 else fingerprint,
        described.precision,
        described.weights,
    )
    return running, about
