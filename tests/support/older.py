"""Artifacts as earlier versions of Lookalike wrote them."""

import json

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.manifest import sealed
from retrieval.artifact.parts.exported import EXPORTED


def without_exported(folder):
    """Remove the exported network from an artifact."""
    manifest = json.loads((folder / LAYOUT.manifest).read_text())
    del manifest[EXPORTED], manifest["files"][LAYOUT.exported]
    (folder / LAYOUT.exported).unlink()
    (folder / LAYOUT.exported).parent.rmdir()
    (folder / LAYOUT.manifest).write_bytes(sealed(manifest))
    return folder
