"""Origins: resolve the name of a source to a local path or a Hub dataset, and open it with `datasets`.

The revision of a Hub dataset is resolved to a commit once; everything read later comes from that commit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from retrieval.errors import SourceError, short
from retrieval.files.locks import check_lockable
from retrieval.hub_errors import GATED, LOG_IN, hub_error
from retrieval.sources.archives.reasons import reason
from retrieval.sources.features import library, streaming

_HUB_NAME = re.compile(r"(?P<repo>[\w-][\w.-]*(/[\w.-]+)?)(@(?P<revision>\w[\w./-]*))?", re.ASCII)


@dataclass(frozen=True)
class Origin:
    """A dataset that has been located and opened, but not read."""

    name: str
    """The name as requested."""
    builder: Any
    """The builder of `datasets` that reads it."""
    root: str
    """The folder that its rows may reference files in: a path, or `hf://datasets/owner/name@commit`."""
    about: Mapping[str, str]
    """See `retrieval.sources.base.Source`."""


def find_local(name: str, revision: str | None) -> Path | None:
    """The path of a local source; None if the name can only be a Hub dataset.

    Raises SourceError if the name is empty, or if a revision is given for a local source.
    """
    if not name:
        raise SourceError("no source given: name a folder, a parquet file, or a dataset.")
    path = Path(name).expanduser()
    if not path.exists():
        return None
    if revision:
        raise SourceError(
            f"{name} is a local path and has no revisions: leave out {revision!r}, or name a dataset on the Hub."
        )
    return path


def open_origin(name: str, path: Path | None, config: str | None, revision: str | None) -> Origin:
    """Open a parquet file or dataset folder at the path from `find_local`, or a Hub dataset if the path is None.

    Raises SourceError if it, its configuration or its revision does not exist, or if one of several must be chosen.
    """
    if path is None:
        return _on_hub(name, config, revision)
    builder = _on_disk(name, path, config)
    about = {**about_local(path), **({"config": config} if config else {})}
    return Origin(name, builder, str(path if path.is_dir() else path.parent), about)


def about_local(path: Path) -> dict[str, str]:
    """Facts about a folder or file: only the last part of its path, and the license from a folder's dataset card."""
    name = path.resolve().name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    card = path / "README.md"
    return {"name": name, **_license(card.read_text("utf-8", "replace") if card.is_file() else "")}


def _on_disk(name: str, path: Path, config: str | None) -> Any:
    # `datasets` treats a folder's name as a glob pattern, and ignores the dataset card if the name is escaped. The
    # absolute path keeps a folder called `parquet` from being taken for the format.
    plain, escaped = str(path.absolute()), escape(str(path.absolute()))
    if path.is_dir() and plain == escaped:
        return load_builder(name, plain, config)
    if path.is_dir() and config:
        raise SourceError(f"{name} has [, * or ? in its path, so its configurations cannot be read: rename it.")
    if path.is_dir():
        return load_builder(name, "parquet", data_dir=escaped)
    if not path.is_file() or path.suffix not in (".parquet", ".arrow"):
        raise SourceError(f"{name} is neither a folder, a list (.csv, .jsonl), an archive (.zip, .tar) nor parquet.")
    if config:
        raise SourceError(f"{name} is a single file and has no configurations: leave out {config!r}.")
    return load_builder(name, path.suffix[1:], data_files=escaped)


def _on_hub(name: str, config: str | None, revision: str | None) -> Origin:
    found = _HUB_NAME.fullmatch(name)
    if found is None:
        raise SourceError(f"{name} does not exist here, and is not a valid name for a dataset on the Hub.")
    repo, own = found["repo"], found["revision"]
    if own and revision not in (None, own):
        raise SourceError(f"{name} already names a revision, and {revision!r} is given too: leave one of them out.")
    builder = load_builder(repo, repo, config, revision or own)
    root = f"hf://datasets/{repo}@{builder.hash}"
    if builder.base_path != root:  # the Hub is unreachable, and this is an older download
        raise SourceError(_away(repo))
    told = {"name": repo, "config": str(builder.config.name), "revision": str(builder.hash)}
    known = {"license": _in_one_line(builder.info.license)} if builder.info.license else {}
    return Origin(name, builder, root, {**told, **(_license(_card_on_hub(root)) or known)})


def _card_on_hub(root: str) -> str:
    """The text of a dataset card, which `datasets` has already read and the client has cached; "" if there is none."""
    try:
        return Path(library().utils.file_utils.cached_path(f"{root}/README.md")).read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
    except Exception as error:
        raise source_error(root, error) from error


def _license(card: str) -> dict[str, str]:
    """The license stated in a dataset card, if any; `datasets` does not expose it."""
    if not card.lstrip().startswith("---"):
        return {}
    from huggingface_hub import DatasetCard

    try:
        data: Any = DatasetCard(card).data
        stated = data.license
    except Exception:  # in a folder of images, any file may be called README.md
        return {}
    names = stated if isinstance(stated, list) else [stated] if stated else []
    return {"license": _in_one_line(", ".join(map(str, names)))} if names else {}


def _in_one_line(text: str) -> str:
    return short(" ".join(text.split()), 200)


# --- `datasets`, and its errors in plain words ---


def load_builder(name: str, path: str, config: str | None = None, revision: str | None = None, **options: Any) -> Any:
    """The `datasets` builder for a path, a format, or a Hub name; raises SourceError, or MissingExtraError."""
    datasets = library()
    check_lockable(Path(datasets.config.HF_DATASETS_CACHE), SourceError)
    try:
        return datasets.load_dataset_builder(path, config, revision=revision, **options)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise SourceError(_not_found(name, revision, error)) from error
    except ValueError as error:  # `datasets` words errors about configurations in several ways
        about_config = None if options else _wrong_config(name, path, config, revision)
        raise SourceError(about_config or _no_data_set(name, error)) from error
    except Exception as error:  # datasets and the Hub client each raise their own exceptions
        if isinstance(error, ConnectionError) or "LocalEntryNotFoundError" in str(error):
            raise SourceError(_away(name)) from error
        if _is_hubs(error):
            raise source_error(name, error) from error
        raise SourceError(_no_data_set(name, error)) from error


def streams(name: str, builder: Any, split: str | None) -> dict[str, Any]:
    """Split -> stream of undecoded rows, for all splits or for those named (`train+validation`); raises SourceError."""
    try:
        # Undecoded: a broken image in any column must not stop the stream.
        found = {k: s.decode(False) if s.features else s for k, s in streaming(name, builder).items()}
    except Exception as error:  # each format fails in its own ways
        raise source_error(name, error) from error
    if split is None:
        return found
    for part in split.split("+"):
        if part not in found:
            raise SourceError(f"{name} has no split {part!r}; it has {', '.join(found)}.")
    return {part: found[part] for part in split.split("+")}


def read(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The rows of a stream; raises SourceError for any failure while reading."""
    try:
        yield from rows
    except Exception as error:  # as above: a broken file may show only when it is reached
        raise source_error(name, error) from error


def source_error(name: str, error: Exception) -> SourceError:
    """The SourceError to show when reading fails, or fails midway, after the libraries' own retries."""
    # After its last retry, `datasets` only reports a disconnection; the cause says more.
    known = error.__cause__ if isinstance(error, ConnectionError) and error.__cause__ else error
    if isinstance(known, Exception) and _is_hubs(known):
        return SourceError(str(hub_error(known, name, library().config.HF_ENDPOINT)))
    return SourceError(f"{name} cannot be read: {reason(error)}")


def fingerprint(builder: Any, *choices: str | None) -> str:
    """SHA-256 hex digest of the choices and the files: sizes and times of local files, the commit for Hub files."""
    digest = hashlib.sha256(repr((builder.config.name, choices)).encode())
    for split, files in (builder.config.data_files or {}).items():
        stats = [Path(file).stat() for file in files if "://" not in file]
        local = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
        digest.update(repr((split, list(files), local, files.origin_metadata)).encode())
    return digest.hexdigest()


def listing(builder: Any, *choices: str | None) -> str:
    """Like `fingerprint`, but the same for a copy elsewhere: of local files, the names and the sizes."""
    digest = hashlib.sha256(repr((builder.config.name, choices)).encode())
    for split, files in (builder.config.data_files or {}).items():
        local = [(Path(file).name, Path(file).stat().st_size) for file in files if "://" not in file]
        away = [file for file in files if "://" in file]
        digest.update(repr((split, local, away, files.origin_metadata if away else ())).encode())
    return digest.hexdigest()


def _is_hubs(error: Exception) -> bool:
    """Whether the error is a response from the Hub, or a failure to reach it."""
    lost = library().utils.file_utils.CONNECTION_ERRORS_TO_RETRY
    return getattr(error, "response", None) is not None or isinstance(error, lost)


def _not_found(name: str, revision: str | None, error: Exception) -> str:
    if isinstance(error.__cause__, Exception) and _is_hubs(error.__cause__):
        return str(hub_error(error.__cause__, f"{name}@{revision}", library().config.HF_ENDPOINT))
    if "is a gated dataset" in str(error):
        return f"{name} {GATED}"
    return (
        f"{name} is not a folder or parquet file here, nor a dataset on the Hub that you can access: check the name; "
        f"if it is private, {LOG_IN}."
    )


def _wrong_config(name: str, path: str, config: str | None, revision: str | None) -> str | None:
    """The message if the requested configuration is the problem; None otherwise."""
    try:
        known = library().get_dataset_config_names(path, revision=revision)
    except Exception:  # then something else is wrong
        return None
    listed = short(", ".join(known), 500)
    if config:
        return None if config in known else f"{name} has no configuration {config!r}; it has {listed}."
    return None if len(known) < 2 else f"{name} has {len(known)} configurations; choose one with --config: {listed}."


def _away(name: str) -> str:
    config = library().config
    hub, why = config.HF_ENDPOINT, " (HF_HUB_OFFLINE is set)" if config.HF_HUB_OFFLINE else ""
    return f"{name} is not a folder or parquet file here, and {hub} is unreachable{why}: check the name, or try later."


def _no_data_set(name: str, error: Exception) -> str:
    return f"{name} cannot be read as a dataset: {_in_one_line(reason(error))}"
