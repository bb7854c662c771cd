"""The names, arguments and defaults of the endpoints, from their functions."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any

from gradio.utils import get_function_description

from retrieval.errors import LookalikeError
from retrieval.ui.api.arguments import ARGUMENTS, checked
from retrieval.ui.api.endpoints import Endpoints
from retrieval.words import did_you_mean

NAMES = ("search", "search_by_id", "search_text", "explain", "duplicates", "info")
REQUIRED = Parameter.empty


class WrongArgumentError(LookalikeError):
    """An argument of an endpoint is missing, unknown or wrong; the message says which."""


def arguments_of(endpoint: str) -> dict[str, Any]:
    """The arguments of an endpoint in their order, each with its default or `REQUIRED`."""
    parameters = signature(getattr(Endpoints, endpoint)).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name in ARGUMENTS}


def described(endpoint: str) -> tuple[str, dict[str, str]]:
    """What an endpoint does, and what each argument means."""
    about, arguments, _ = get_function_description(getattr(Endpoints, endpoint))
    return about, arguments


def by_name(endpoint: str, given: dict[str, Any]) -> dict[str, Any]:
    """All arguments in their order, with defaults for those not given; raises WrongArgumentError for unknown names."""
    known = arguments_of(endpoint)
    for name in given:
        if name not in known:
            has = did_you_mean(name, known, otherwise=f"it has {', '.join(known) or 'none'}.")
            raise WrongArgumentError(f"{endpoint} has no argument {_quoted(name)}; {has}")
    missing = [name for name, default in known.items() if default is REQUIRED and name not in given]
    if missing:
        raise WrongArgumentError(f"{endpoint} needs the argument {', '.join(map(repr, missing))}.")
    return {name: given.get(name, default) for name, default in known.items()}


def by_place(endpoint: str, given: list[Any]) -> dict[str, Any]:
    """The same for arguments in their order, of which the last ones may be left out."""
    known = arguments_of(endpoint)
    if len(given) > len(known):
        raise WrongArgumentError(f"{endpoint} has {len(known)} arguments, not {len(given)}.")
    return by_name(endpoint, dict(zip(known, given, strict=False)))


def check_all(endpoint: str, given: dict[str, Any]) -> None:
    """Raise QueryError or ImageError, with a sentence, for the first wrong value."""
    for name, default in arguments_of(endpoint).items():
        if default is not None or given[name] is not None:
            checked(name, given[name])


def _quoted(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:59]}…")
