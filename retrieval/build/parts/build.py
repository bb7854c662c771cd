"""Embedding one part of a source into a folder, for `merge_parts`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrieval.artifact.atomic import replacing, writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.report import Report
from retrieval.build.build import embed, left_out_of, work_folder
from retrieval.build.parts.folder import OWN, ROWS, BuiltPart, part_in, read_part, write_stated
from retrieval.build.parts.split import Share, share_of
from retrieval.build.precision.calibration import check_float32
from retrieval.build.shards import Shard, Shards, clear_finished
from retrieval.build.write import link, versions
from retrieval.console import Progress, say
from retrieval.encoders.image import Encoder
from retrieval.errors import ArtifactError
from retrieval.files.storing import storing
from retrieval.images.gallery import THUMBNAIL_SIDE
from retrieval.installed import VERSION
from retrieval.sources.base import Source
from retrieval.sources.originals import with_originals


def build_part(
    source: Source,
    out: Path | str,
    encoder: Encoder,
    index: int,
    count: int,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
    originals: bool = False,
    force: bool = False,
) -> Report:
    """Embed the part `index`, from 0, of `count` parts of a source into the folder `out`, for `merge_parts`.

    `limit` is the maximum number of source images that all parts together read, and `originals` is that of
    `build_artifact`; both, the source and the encoder must be the same for all parts. An interrupted part continues. A
    finished one stays as it is; that of another build is replaced only with `force`. Returns the counts for this part:
    copies in other parts are found, and what the source leaves out is counted, when the parts are merged.
    Raises SourceError if there is no such part, and ArtifactError if `out` holds other files, or is being written.
    """
    out = Path(out)
    check_float32(encoder)
    source = with_originals(source) if originals else source
    share = share_of(source, index, count, limit)
    stated = _stated(source, share, encoder, index, count, limit)
    with writing(out, OWN):
        if part := part_in(out, force=force):
            return _finished(part, stated)
        encoder.use_fastest()
        key = f"part {index}/{count} of {share.total} ({limit}) {source.fingerprint}"
        shards = embed(share.source, out, encoder, None, share.limit, progress, key)
        if not shards.files():
            shards.write(Shard(), encoder.dim)  # it has the columns, at least
        stated["columns"] = [str(column) for column in shards.schema]
        stated["made"] = _made(encoder)
        with replacing(out, OWN) as folder:
            _write(folder, shards, encoder if index == 0 else None, stated)
        report = read_part(out).report()
        shards.clear()
    return report


def _stated(
    source: Source, share: Share, encoder: Encoder, index: int, count: int, limit: int | None
) -> dict[str, Any]:
    """What the part says of itself before it is embedded; all but `part` has to be the same in each."""
    return {
        "part": index,
        "parts": count,
        "total": share.total,
        "limit": limit,
        "source": {
            "listing": source.listing or source.fingerprint,
            "about": dict(source.about),
            "left_out": [list(left) for left in left_out_of(source)],
        },
        "encoder": {
            "architecture": encoder.name,
            "fingerprint": encoder.fingerprint,
            "dimension": encoder.dim,
            "weights": asdict(encoder.weights) if encoder.weights else None,
        },
        "thumbnail": THUMBNAIL_SIDE,
    }


def _made(encoder: Encoder) -> dict[str, str]:
    """What the vectors depend on by rounding."""
    return {"engine": encoder.engine.name, "device": encoder.engine.device, "lookalike": VERSION, **versions()}


def _write(folder: Path, shards: Shards, encoder: Encoder | None, stated: dict[str, Any]) -> None:
    if encoder:
        with storing(folder / LAYOUT.weights, ArtifactError, needed=encoder.size):
            encoder.save(folder)
    (folder / ROWS).mkdir()
    link(shards.folder, folder / ROWS, [path.name for path in shards.files()])
    write_stated(folder, stated)


def _finished(part: BuiltPart, stated: dict[str, Any]) -> Report:
    """The report of a part that is there already.

    Raises ArtifactError if it is of another build, and IntegrityError if it is damaged.
    """
    for name, value in stated.items():
        if part.stated[name] != value:
            raise ArtifactError(
                f"{part.folder} holds part {part.index} of {part.count} of a build already, and this one differs in "
                f"the {name}: choose another --out, or replace it with --force."
            )
    part.check_files()
    if (work := work_folder(part.folder)).is_dir():
        clear_finished(work, "part ")  # of one that was killed when all was done
    say(f"{part.folder} holds this part already: nothing to do")
    return part.report()
