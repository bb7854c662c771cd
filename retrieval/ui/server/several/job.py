"""What a worker is told when it starts, as one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from retrieval.ui.access.passwords import Accounts
from retrieval.ui.server.settings import ServerSettings


@dataclass(frozen=True)
class Shown:
    """Which artifact is shown, and how: the options of `serve` that do not concern the address."""

    artifact: str
    originals: tuple[str, ...] = ()
    refresh: float | None = None
    allow_private: bool = False
    sha256: str | None = None


@dataclass(frozen=True)
class Job:
    """All that a worker needs to be the same server as the others."""

    shown: Shown
    settings: ServerSettings
    secret: str
    """What the supervisor proves itself with."""
    app_id: int
    """Pages reload themselves if this changes, so that all have the same."""
    pictures: str
    """The folder of the thumbnails that are shown: whoever has answered, the others can serve them."""
    workers: int
    first: bool = True
    """Whether this one says what needs to be said only once."""
    commit: str | None = None
    """The commit of the Hub that the others serve."""

    def to_json(self) -> str:
        """The job in one line."""
        settings = {each.name: getattr(self.settings, each.name) for each in fields(self.settings)}
        del settings["connections"]  # of the process that listens
        if self.settings.accounts is not None:
            settings["accounts"] = self.settings.accounts.to_dict()
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps({**own, "shown": asdict(self.shown), "settings": settings})

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job in a line that `to_json` has written."""
        given = json.loads(text)
        settings = {name: _immutable(value) for name, value in given["settings"].items()}
        if settings["accounts"] is not None:
            settings["accounts"] = Accounts.from_dict(settings["accounts"])
        shown = {name: _immutable(value) for name, value in given["shown"].items()}
        return cls(**{**given, "shown": Shown(**shown), "settings": ServerSettings(**settings)})


def _immutable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
