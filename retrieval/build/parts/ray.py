"""The parts of a build on the machines of a Ray cluster, merged here into one artifact.

Each part is a task of its own: a lost machine costs its unfinished parts, which another one continues, and a second run
embeds only what is missing. So what is embedded, and what the artifact holds, is that of `build --shard` and `merge`.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retrieval.artifact.load import check_target
from retrieval.artifact.report import Report
from retrieval.build.parts.build import build_part
from retrieval.build.parts.merge import merge_parts
from retrieval.console import Progress, say
from retrieval.encoders.image import Encoder
from retrieval.errors import ArtifactError, LookalikeError, first_line
from retrieval.files.storing import storing
from retrieval.installed import needs
from retrieval.sources.base import Source
from retrieval.words import counted

PARTS = 32
LOCAL = "local"  # instead of an address: a cluster of this machine alone, for as long as the build takes
_REACHED = 10  # seconds until a cluster answers
_ENCODER = "encoder"  # in the folder of parts


def build_with_ray(
    opening: Callable[[], Source],
    out: Path | str,
    encoder: Encoder,
    address: str = LOCAL,
    *,
    parts: int = PARTS,
    workers: int | None = None,
    limit: int | None = None,
    originals: bool = False,
    progress: Progress | None = None,
    **merging: Any,
) -> Report:
    """Build the artifact `out` on the workers of the Ray cluster at `address`, such as `auto` or `ray://HOST:10001`.

    `opening` opens the source there: it is pickled, and what it names must be the same on each machine, as must the
    folder of `out`, which all write to (`OUT.parts` beside it, deleted in the end). The source is embedded in so many
    `parts`, by so many `workers`; None is one for each machine or GPU. `progress` receives the parts that are done and
    their number. `limit` and `originals` are those of `build_part`, and `merging` the options of `merge_parts`.

    Raises MissingExtraError without Ray, ArtifactError if Ray or a part fails, and the errors of `merge_parts`.
    """
    out = Path(out).absolute()
    check_target(out)
    with needs("--ray"):
        import ray
        import ray.data
    folder = out.with_name(f"{out.name}.parts")
    task = {"opening": opening, "folder": folder, "count": parts, "limit": limit, "originals": originals}
    _embed(ray, address, encoder, task, workers, progress)
    report = merge_parts([_part(folder, index) for index in range(parts)], out, **merging)
    shutil.rmtree(folder, ignore_errors=True)
    return report


def _embed(
    ray: Any, address: str, encoder: Encoder, task: dict[str, Any], workers: int | None, progress: Progress | None
) -> None:
    """Embed all parts on the cluster."""
    folder, parts = task["folder"], task["count"]
    try:
        _start(ray, address)
    except Exception as error:  # of many kinds
        raise ArtifactError(f"no Ray cluster at {address}: {first_line(error)}.") from error
    try:
        with storing(folder, ArtifactError, needed=encoder.size):
            folder.mkdir(parents=True, exist_ok=True)
            encoder.save(_emptied(folder / _ENCODER))
        pool = _pool(ray, workers, parts)
        tasks = ray.data.from_items([{"id": index} for index in range(parts)], override_num_blocks=parts)
        _wait(tasks.map_batches(_Worker, fn_constructor_kwargs=task, batch_size=1, **pool), parts, progress)
    finally:
        ray.shutdown()


class _Worker:
    """An actor: it has the encoder and the source, and embeds one part after the other."""

    def __init__(
        self, opening: Callable[[], Source], folder: Path, count: int, limit: int | None, originals: bool
    ) -> None:
        self._open, self._folder = opening, folder
        self._source: Source | None = None
        self._count, self._limit, self._originals = count, limit, originals
        self._encoder = Encoder.load(folder / _ENCODER, engine="torch")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        [index] = batch["id"].tolist()
        failed = ""
        try:
            self._source = self._source or self._open()
            options: dict[str, Any] = {"limit": self._limit, "originals": self._originals}
            build_part(self._source, _part(self._folder, index), self._encoder, index, self._count, **options)
        except LookalikeError as error:  # anything else is a fault, which Ray reports with its place
            failed = str(error)
        return {"part": [index], "failed": [failed]}


def _start(ray: Any, address: str) -> None:
    """Connect; nothing is sent to the makers of Ray, and workers get the settings of this process."""
    if ":" in (place := address.rpartition("//")[2]):  # Ray itself tries for minutes
        host, _, port = place.partition("/")[0].rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHED).close()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # of a cluster that is started here
    own = {name: value for name, value in os.environ.items() if name.startswith("LOOKALIKE_")}
    quiet = {"log_to_driver": False, "logging_level": "ERROR"} | (
        {"include_dashboard": False} if address == LOCAL else {}
    )
    ray.init(address=address, runtime_env={"env_vars": {**own, "RAY_USAGE_STATS_ENABLED": "0"}}, **quiet)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _pool(ray: Any, workers: int | None, parts: int) -> dict[str, Any]:
    """How many actors there are, and what each needs; they are spread over the machines."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    count = min(workers or gpus or nodes, parts)
    say(f"{counted(parts, 'part')} on {counted(count, 'worker')}")
    return {
        "compute": ray.data.ActorPoolStrategy(size=count),
        "num_gpus": 1 if gpus else 0,
        "scheduling_strategy": "SPREAD",
    }


def _wait(tasks: Any, parts: int, progress: Progress | None) -> None:
    """Wait for all parts; raises ArtifactError with the first failure, once the others are done."""
    failures = []
    try:
        for done, answer in enumerate(tasks.iter_rows(), 1):
            if answer["failed"]:
                failures.append(f"part {answer['part']} of {parts} failed: {answer['failed']}")
            if progress:
                progress(done, parts)
    except Exception as error:  # of many kinds
        raise ArtifactError(f"Ray failed, and a second run goes on from here: {first_line(error)}.") from error
    if failures:
        raise ArtifactError(failures[0])


def _part(folder: Path, index: int) -> Path:
    return folder / f"part_{index:05d}"


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
