"""User names and passwords, from the command line or from a file."""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.errors import LookalikeError

_LONGEST_FILE = 2**20  # bytes
_WEEK = 7 * 86_400.0  # seconds


def read_accounts(given: str) -> dict[str, str]:
    """Passwords by user, from `USER:PASSWORD`, or from a file with one such line for each user.

    Empty lines and lines that begin with # are passed over. A path is taken as a file if that exists.

    Raises LookalikeError if a line has another form, names a user twice, or the file cannot be read.
    """
    path = Path(given)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # too long for a path, or a NUL
        is_file = False
    if not is_file:
        if ":" not in given:
            raise LookalikeError(
                "--auth must be USER:PASSWORD, or a file with one such line for each user: no such file."
            )
        return _parsed([given], "--auth")
    try:
        if path.stat().st_size > _LONGEST_FILE:
            raise LookalikeError(f"{path} is too large for a file of passwords: at most 1 MiB is read.")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise LookalikeError(f"the passwords in {path} cannot be read: {reason}.") from error
    accounts = _parsed([line for line in lines if line.strip() and not line.startswith("#")], str(path))
    if not accounts:
        raise LookalikeError(f"{path} names no user: write one line USER:PASSWORD for each.")
    return accounts


def _parsed(lines: list[str], where: str) -> dict[str, str]:
    accounts: dict[str, str] = {}
    for line in lines:
        user, colon, password = line.partition(":")
        if not (user.strip() and colon and password):  # the line itself may be a password: it is not quoted
            raise LookalikeError(f"{where} must be USER:PASSWORD, or a file with one such line for each user.")
        if user.strip() in accounts:
            raise LookalikeError(f"{where} names the user {user.strip()!r} twice.")
        accounts[user.strip()] = password
    return accounts


def read_basic(header: str) -> tuple[str, str] | None:
    """The user and the password in an Authorization header (RFC 7617); None if it holds none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:  # not base64, or not UTF-8
        return None
    return user, password


class Accounts:
    """Checks passwords and, for visitors who have given theirs, signed tokens."""

    def __init__(self, passwords: Mapping[str, str], key: bytes | None = None) -> None:
        self._passwords = dict(passwords)
        self._key = key or secrets.token_bytes(32)  # signs tokens; they end with the server

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` makes the same accounts of in another process: tokens are valid in both."""
        return {"passwords": self._passwords, "key": self._key.hex()}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Accounts:
        """The accounts that `to_dict` has described."""
        return cls(given["passwords"], bytes.fromhex(given["key"]))

    def has(self, user: str, password: str) -> bool:
        """Whether this is the password of this user; takes as long for a user that there is not."""
        known = self._passwords.get(user)
        same = hmac.compare_digest(password.encode(), (known or "").encode())
        return same and known is not None

    def token(self, lifetime: float = _WEEK) -> str:
        """A token that `accepts` accepts for `lifetime` seconds."""
        until = str(int(time.time() + lifetime))
        return f"{until}.{self._signature(until)}"

    def accepts(self, token: str) -> bool:
        """Whether this is a token made here, and still valid."""
        until, _, signature = token.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(until).encode()):
            return False
        return time.time() < int(until)

    def _signature(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()
