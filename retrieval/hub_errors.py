"""Turn errors between this machine and the Hub into messages that say what to do.

Uses only what an error carries (an HTTP response, an errno), so only `retrieval.hub` depends on the client's classes.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

from retrieval.errors import AwayError, HubError

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
GATED = f"is gated: request access on its page, then {LOG_IN}."
_UNSEEN = (
    "was not found on the Hub or as a folder here, or is private and hidden from this login: "
    f"check the name; if it is private, {LOG_IN}."
)
# Error code of the Hub (X-Error-Code) -> message, appended to the name of the requested object.
_CODES = {
    "RepoNotFound": _UNSEEN,
    "GatedRepo": GATED,
    "RevisionNotFound": "was not found: the repository has no such revision. Name a branch, a tag or a commit.",
    "EntryNotFound": "is not in the repository.",
}
_STATUSES = {
    401: f"is not accessible with this login (401): {LOG_IN}; the token may be missing, mistyped or expired.",
    403: "is forbidden for this login (403): ask its owner for access, or use a token with the right permissions.",
    404: _UNSEEN,
    409: "is being changed by somebody else right now: try again.",
    412: "was changed by somebody else in the meantime, so nothing was pushed: look at their commit, then push again.",
}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def hub_error(error: Exception, what: str, hub: str, wait: float | None = None) -> HubError:
    """Convert an error of the Hub's client; `what` was requested from the Hub at the URL `hub`.

    Returns an AwayError, with the seconds to wait, if a retry or a local copy may help.
    """
    answer: Any = getattr(error, "response", None)
    if answer is None:
        # Not the client's own message: it may contain a rejected header, and with it the token.
        if isinstance(error, ConnectionError):
            return AwayError(f"{hub} cannot be reached for {what} (HF_HUB_OFFLINE is set): unset it to use the Hub.")
        why = type(error).__name__
        return AwayError(f"{hub} cannot be reached for {what} ({why}): check the network, or try again later.")
    status = int(answer.status_code)
    if status == 429:
        asked = f" and asks to wait {wait:.0f} s" if wait else ""
        advice = "try again then; users who are logged in may send more requests."
        return AwayError(f"{hub} received too many requests (429){asked}, and refuses {what}: {advice}", wait or 0.0)
    if status in (408, 425) or status >= 500:
        return AwayError(f"{hub} has a problem: it answered {status} for {what}. Try again later.", wait or 0.0)
    meaning = _CODES.get(answer.headers.get("X-Error-Code", "")) or _STATUSES.get(status)
    return HubError(f"{what} {meaning or f'was refused ({status}): {_said(error)}.'}")


def cache_error(error: OSError, what: str, folder: Path) -> HubError:
    """The HubError for a file that cannot be written into the cache in `folder`."""
    if error.errno in _NO_ROOM:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(there).free / 1e6
        return HubError(
            f"there is no space for {what} in {folder} ({free:,.1f} MB free, {error.strerror}): "
            "free some, or set HF_HOME to a folder on another disk."
        )
    return HubError(f"{what} cannot be stored in {folder} ({error.strerror}): set HF_HOME to a writable folder.")


def _said(error: Any) -> str:
    """The reason given by the Hub, in one line."""
    return " ".join(str(getattr(error, "server_message", None) or "no reason given").split()).rstrip(".")
