"""Artifacts as earlier versions of Lookalike wrote them."""

import json

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.manifest import measure, sealed
from retrieval.artifact.parts.exported import EXPORTED


def without_exported(folder):
    """Remove the exported network from an artifact."""
    manifest = json.loads((folder / LAYOUT.manifest).read_text())
    del manifest[EXPORTED], manifest["files"][LAYOUT.exported]
    (folder / LAYOUT.exported).unlink()
    (folder / LAYOUT.exported).parent.rmdir()
    (folder / LAYOUT.manifest).write_bytes(sealed(manifest))
    return folder


def without_exported_text(folder):
    """Remove the exported towers of a text model from an artifact, and what goes with them."""
    manifest = json.loads((folder / LAYOUT.manifest).read_text())
    for name in [name for name in manifest["files"] if name.startswith("text/onnx/")]:
        (folder / name).unlink()
        del manifest["files"][name]
    (folder / "text/onnx").rmdir()
    section = manifest["text"]
    del section[EXPORTED], section["one_tower"]
    section["fingerprint"] = "0" * 64  # it depended on the version of transformers
    config = json.loads((folder / "text/config.json").read_text())
    config["lookalike"] = {"name": section["name"]}
    (folder / "text/config.json").write_text(json.dumps(config))
    manifest["files"]["text/config.json"] = measure(folder / "text/config.json")
    (folder / LAYOUT.manifest).write_bytes(sealed(manifest))
    return folder
