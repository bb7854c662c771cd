"""Origins: what the name of a source means, on this disk or on the Hub, and how `datasets` opens it.

The revision of a data set on the Hub is resolved to a commit once; whatever is read of it later is of that commit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from datasets.exceptions import DatasetNotFoundError
from datasets.load import DatasetCard
from datasets.utils.file_utils import CONNECTION_ERRORS_TO_RETRY, cached_path

from retrieval.errors import SourceError, first_line, short
from retrieval.hub_errors import GATED, LOG_IN, in_words

_HUB_NAME = re.compile(r"(?P<repo>[\w-][\w.-]*(/[\w.-]+)?)(@(?P<revision>\w[\w./-]*))?", re.ASCII)


# Of a stream that breaks: with its own 20, and those of each request in them, it took ten minutes and more to say so.
datasets.config.STREAMING_READ_MAX_RETRIES = 5


@dataclass(frozen=True)
class Origin:
    """A data set that has been found and opened, but not read."""

    name: str
    """As it was asked for."""
    builder: Any
    """What `datasets` reads it by."""
    root: str
    """The folder whose files its rows may name: a path, or `hf://datasets/owner/name@commit`."""
    about: Mapping[str, str]
    """See `retrieval.images.sources.Source`."""


def find_local(name: str, revision: str | None) -> Path | None:
    """The path of a source that is on this disk; None for one that can only be on the Hub.

    Raises SourceError where nothing is named, or a revision of what is on this disk.
    """
    if not name:
        raise SourceError("no source was named: give a folder, a parquet file, or a data set.")
    path = Path(name).expanduser()
    if not path.exists():
        return None
    if revision:
        raise SourceError(
            f"{name} is on this disk and has no revisions: leave {revision!r} out, or name a data set on the Hub."
        )
    return path


def open_origin(name: str, path: Path | None, config: str | None, revision: str | None) -> Origin:
    """A parquet file or a folder with a data set, at the path that `find_local` gave, or a data set on the Hub.

    Raises SourceError where there is none, or no such configuration or revision, or none of several was named.
    """
    if path is None:
        return _on_hub(name, config, revision)
    builder = _on_disk(name, path, config)
    about = {**about_local(path), **({"config": config} if config else {})}
    return Origin(name, builder, str(path if path.is_dir() else path.parent), about)


def about_local(path: Path) -> dict[str, str]:
    """What is known of a folder or file: no more of its path than the last name, and the license on a folder's card."""
    name = path.resolve().name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    card = path / "README.md"
    return {"name": name, **_license(card.read_text("utf-8", "replace") if card.is_file() else "")}


def _on_disk(name: str, path: Path, config: str | None) -> Any:
    # `datasets` takes a folder's name for a pattern; what it reads by an escaped one, it reads without its card. By
    # its absolute path, a folder called `parquet` is not taken for the format.
    plain, escaped = str(path.absolute()), escape(str(path.absolute()))
    if path.is_dir() and plain == escaped:
        return load_builder(name, plain, config)
    if path.is_dir() and config:
        raise SourceError(f"{name} has [, * or ? in its path, and so its configurations cannot be read: rename it.")
    if path.is_dir():
        return load_builder(name, "parquet", data_dir=escaped)
    if not path.is_file() or path.suffix != ".parquet":
        raise SourceError(f"{name} is neither a folder nor a parquet file.")
    if config:
        raise SourceError(f"{name} is one file and has no configurations: leave {config!r} out.")
    return load_builder(name, "parquet", data_files=escaped)


def _on_hub(name: str, config: str | None, revision: str | None) -> Origin:
    found = _HUB_NAME.fullmatch(name)
    if found is None:
        raise SourceError(f"there is no {name} here, and that cannot be the name of a data set on the Hub.")
    repo, own = found["repo"], found["revision"]
    if own and revision not in (None, own):
        raise SourceError(f"{name} names a revision, and so does {revision!r}: leave one of them out.")
    builder = load_builder(repo, repo, config, revision or own)
    root = f"hf://datasets/{repo}@{builder.hash}"
    if builder.base_path != root:  # what `datasets` once downloaded, of whatever revision, where the Hub is away
        raise SourceError(_away(repo))
    told = {"name": repo, "config": str(builder.config.name), "revision": str(builder.hash)}
    stated = _license(_card_on_hub(root))
    if not stated and builder.info.license:
        stated = {"license": _in_one_line(builder.info.license)}
    return Origin(name, builder, root, {**told, **stated})


def _card_on_hub(root: str) -> str:
    """The text of a data set's card, which `datasets` has read before, and the client kept; "" where there is none."""
    try:
        return Path(cached_path(f"{root}/README.md")).read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
    except Exception as error:
        raise source_error(root, error) from error


def _license(card: str) -> dict[str, str]:
    """The license that a card states, if it does; `datasets` does not hand that on."""
    try:
        stated = DatasetCard(card).data.license if card.lstrip().startswith("---") else None
    except Exception:  # any file of a folder of images may be called README.md
        return {}
    names = stated if isinstance(stated, list) else [stated] if stated else []
    return {"license": _in_one_line(", ".join(map(str, names)))} if names else {}


def _in_one_line(text: str) -> str:
    return short(" ".join(text.split()), 200)


# --- `datasets`, and what it says, in words ---


def load_builder(name: str, path: str, config: str | None = None, revision: str | None = None, **options: Any) -> Any:
    """The builder of `datasets` for a path, a format, or a name on the Hub; raises SourceError."""
    try:
        return datasets.load_dataset_builder(path, config, revision=revision, **options)
    except DatasetNotFoundError as error:
        raise SourceError(_not_found(name, revision, error)) from error
    except ValueError as error:  # which configurations there are, it says in different ways
        about_config = None if options else _wrong_config(name, path, config, revision)
        raise SourceError(about_config or _no_data_set(name, error)) from error
    except Exception as error:  # datasets and the Hub client each raise their own kinds
        if isinstance(error, ConnectionError) or "LocalEntryNotFoundError" in str(error):
            raise SourceError(_away(name)) from error
        if _is_hubs(error):
            raise source_error(name, error) from error
        raise SourceError(_no_data_set(name, error)) from error


def streams(name: str, builder: Any, split: str | None) -> dict[str, Any]:
    """Split -> its rows as a stream, undecoded: all of them, or those named (`train+validation`)."""
    try:
        # Undecoded: a broken picture, in whatever column, is no reason to stop.
        found = {k: s.decode(False) if s.features else s for k, s in builder.as_streaming_dataset().items()}
    except Exception as error:  # a data set's files can be wrong in as many ways as there are formats
        raise source_error(name, error) from error
    if split is None:
        return found
    for part in split.split("+"):
        if part not in found:
            raise SourceError(f"{name} has no split {part!r}; it has {', '.join(found)}.")
    return {part: found[part] for part in split.split("+")}


def read(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The rows of a stream; raises SourceError for whatever goes wrong in it."""
    try:
        yield from rows
    except Exception as error:  # as above: what is wrong with a file may show only when its turn comes
        raise source_error(name, error) from error


def source_error(name: str, error: Exception) -> SourceError:
    """What it says to a person that something cannot be read, or not on, after all the tries of the libraries."""
    # After its last try `datasets` says no more than that it was disconnected.
    known = error.__cause__ if isinstance(error, ConnectionError) and error.__cause__ else error
    if isinstance(known, Exception) and _is_hubs(known):
        return SourceError(str(in_words(known, name, datasets.config.HF_ENDPOINT)))
    return SourceError(f"{name} cannot be read: {first_line(error)}")


def fingerprint(builder: Any, *choices: str | None) -> str:
    """A hash of the files, with sizes and times, or with the commit they are of on the Hub, and of the choices."""
    digest = hashlib.sha256(repr((builder.config.name, choices)).encode())
    for split, files in (builder.config.data_files or {}).items():
        stats = [Path(file).stat() for file in files if "://" not in file]
        local = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
        digest.update(repr((split, list(files), local, files.origin_metadata)).encode())
    return digest.hexdigest()


def total(builder: Any, names: Iterable[str]) -> int | None:
    """How many rows the splits have, from the data set's own card or from the ends of local parquet files."""
    known, splits = builder.info.splits or {}, list(names)
    if all(name in known and known[name].num_examples for name in splits):
        return int(sum(known[name].num_examples for name in splits))
    files = [Path(file) for name in splits for file in (builder.config.data_files or {}).get(name, [])]
    if files and all(file.suffix == ".parquet" and file.is_file() for file in files):
        return int(sum(pq.read_metadata(file).num_rows for file in files))
    return None


def _is_hubs(error: Exception) -> bool:
    """Whether it is an answer of the Hub's, or that none came."""
    return getattr(error, "response", None) is not None or isinstance(error, CONNECTION_ERRORS_TO_RETRY)


def _not_found(name: str, revision: str | None, error: Exception) -> str:
    if isinstance(error.__cause__, Exception) and _is_hubs(error.__cause__):  # the revision
        return str(in_words(error.__cause__, f"{name}@{revision}", datasets.config.HF_ENDPOINT))
    if "is a gated dataset" in str(error):
        return f"{name} {GATED}"
    return (
        f"{name} is no folder or parquet file here, nor a data set on the Hub; or it is private, and not shown to this "
        f"login: check the name; for a private one {LOG_IN}."
    )


def _wrong_config(name: str, path: str, config: str | None, revision: str | None) -> str | None:
    """What is wrong with the configuration asked for, where it is that."""
    try:
        known = datasets.get_dataset_config_names(path, revision=revision)
    except Exception:  # then it is something else
        return None
    listed = short(", ".join(known), 500)
    if config:
        return None if config in known else f"{name} has no configuration {config!r}; it has {listed}."
    if len(known) < 2:
        return None
    return f"{name} has {len(known)} configurations, of which one has to be named (--config): {listed}."


def _away(name: str) -> str:
    hub, why = datasets.config.HF_ENDPOINT, " (HF_HUB_OFFLINE is set)" if datasets.config.HF_HUB_OFFLINE else ""
    return f"{name} is no folder or parquet file here, and {hub} cannot be reached{why}: check the name, or try later."


def _no_data_set(name: str, error: Exception) -> str:
    return f"{name} cannot be read as a data set: {_in_one_line(str(error) or type(error).__name__)}"
