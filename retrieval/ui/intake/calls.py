"""Checks of the JSON that Gradio's routes take, so that nothing they would stumble over reaches them."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.types import Scope

from retrieval.errors import ImageError, QueryError, short, short_repr
from retrieval.ui import strings
from retrieval.ui.api.arguments import FILE, UPLOADED
from retrieval.ui.api.signatures import NAMES, WrongArgumentError, by_name, by_place, check_all
from retrieval.ui.intake.addresses import Addresses, address_of, holds_address
from retrieval.ui.intake.refusing import RefusedError
from retrieval.ui.intake.routes import API, is_id
from retrieval.ui.limits.visitors import note_refusal
from retrieval.words import did_you_mean

_CALL = re.compile(rf"{API}/call/(?P<v2>v2/)?(?P<name>[^/]*)/?", re.DOTALL)
_EVENT = re.compile(rf"{API}/call/(?:v2/)?[^/]+/(?P<event>[^/]+)/?")
_UNREAL = f"data must be a list of values; {API}/call/v2/NAME takes an object of names and values instead."


class Calls:
    """Checks the bodies of requests to the routes of one app."""

    def __init__(self, blocks: gr.Blocks, addresses: Addresses) -> None:
        self._blocks, self._addresses = blocks, addresses

    async def checked(self, path: str, body: Any, scope: Scope) -> Any:
        """The body to pass on to a route, with fetched pictures in place of their addresses.

        Raises RefusedError, with a sentence, for a body that the route cannot take.
        """
        route = path.rstrip("/").removeprefix(API)
        if found := _CALL.fullmatch(path):
            return await self._call(found["name"], found["v2"] is not None, _object(body), scope)
        if route == "/queue/join":
            return await self._join(_object(body), scope)
        if route.startswith("/mcp"):
            _check_rpc(_object(body))
        elif route == "/component_server":
            self._check_function(_object(body))
        elif route in ("/cancel", "/reset"):
            given = _object(body)
            _check_ids(given, *(("session_hash", "event_id") if route == "/cancel" else ("event_id",)))
            if route == "/cancel":
                _whole(given, "fn_index")
        return body

    def check_event(self, path: str) -> None:
        """Raise RefusedError if a path asks for the answer to an event that is unknown: Gradio would begin a stream."""
        found = _EVENT.fullmatch(path)
        if found is None:
            return
        queue, event = self._blocks._queue, found["event"]
        # Gradio keeps a finished event under the session that it was asked for, which may be the event itself.
        ended = any(event in of for of in list(queue.pending_event_ids_session.values()))
        if not ended and event not in queue.event_ids_to_events:
            raise RefusedError(
                404, "there is no such event, or its answer was fetched already, or not within 5 minutes."
            )

    async def _call(self, name: str, named: bool, body: dict[str, Any], scope: Scope) -> Any:
        if name not in NAMES:
            raise RefusedError(404, f"there is no endpoint {short(name, 60)!r}; {did_you_mean(name, NAMES, most=1)}")
        given: Any = {key: value for key, value in body.items() if key != "oauth_token"} if named else body.get("data")
        if not named:
            _check_ids(body, "session_hash", needed=False)
            if not isinstance(given, list):
                raise RefusedError(422, _UNREAL)
        try:
            values = by_name(name, given) if named else by_place(name, given)
            check_all(name, values)
        except (WrongArgumentError, QueryError, ImageError) as error:
            raise RefusedError(422, str(error)) from error
        if address := address_of(values.get("image")):
            if refused := self._refusal(name, scope, body.get("session_hash")):
                raise refused
            values["image"] = self._addresses.hold(await self._addresses.fetch(address))
        if named:
            return values
        return {"data": list(values.values()), "session_hash": body.get("session_hash")}

    async def _join(self, body: dict[str, Any], scope: Scope) -> Any:
        """An event, as the page and Gradio's clients send it. Endpoints judge the values themselves, as an answer to
        the event: the clients show its sentence, but not that of a refused request."""
        _check_ids(body, "session_hash")
        _check_ids(body, "event_id", needed=False)
        function = self._blocks.fns.get(_whole(body, "fn_index"))
        if function is None or function.fn is None:
            raise RefusedError(404, f"this app has no event {short_repr(body.get('fn_index'), 40)}: reload the page.")
        _whole(body, "trigger_id", needed=False)
        if body.get("batched") or not isinstance(body.get("simple_format", False), bool | None):
            raise RefusedError(400, "batched must be false, and simple_format true or false.")
        data, wanted = body.get("data"), len(function.inputs)
        if not isinstance(data, list) or len(data) != wanted:
            found = f"{len(data)}" if isinstance(data, list) else short_repr(data, 40)
            raise RefusedError(400, f"data must be a list of the {wanted} values of this event, not {found}.")
        if function.api_visibility != "public" or function.api_name not in NAMES:
            if holds_address(data) or holds_address(body.get("event_data")):
                raise RefusedError(400, strings.PAGE_ADDRESS)
            return body
        values = by_place(str(function.api_name), data)
        if "image" in values:
            values["image"] = self._as_file(values["image"])
        if address := address_of(values.get("image")):
            if refused := self._refusal(str(function.api_name), scope, body["session_hash"]):
                note_refusal(scope, refused)  # the queue tells the client
                return {**body, "data": [None] * wanted}
            values["image"] = await self._held(address)
        if holds_address(list(values.values())):
            raise RefusedError(400, "only the argument image takes a picture.")
        return {**body, "data": list(values.values())}

    def _refusal(self, name: str, scope: Scope, session: str | None) -> RefusedError | None:
        """Why a call is one too many, if it is: nothing needs to be fetched for it then."""
        function = next(each for each in self._blocks.fns.values() if each.api_name == name)
        refused: RefusedError | None = self._blocks._queue.refusal(function, Request(scope), session)
        return refused

    def _as_file(self, value: Any) -> Any:
        """The picture of a tool call as a file object; any other value as it is."""
        path = value.get(UPLOADED) if isinstance(value, dict) and value.keys() == {UPLOADED} else None
        if isinstance(path, str) and self._blocks.uploads is not None and self._blocks.uploads.holds(path):
            return {"path": path, "meta": {"_type": FILE}}
        return value

    async def _held(self, address: str) -> dict[str, str]:
        try:
            return self._addresses.hold(await self._addresses.fetch(address))
        except RefusedError as error:
            return self._addresses.hold(None, error.sentence)

    def _check_function(self, body: dict[str, Any]) -> None:
        """A function that the page's scripts call."""
        _check_ids(body, "session_hash")
        block, name = self._blocks.blocks.get(_whole(body, "component_id")), body.get("fn_name")
        known = isinstance(name, str) and name.isidentifier() and not name.startswith("_")
        if block is None or not known or not getattr(getattr(block, str(name), None), "_is_server_fn", False):
            raise RefusedError(404, f"this app has no function {short_repr(name, 40)} there: reload the page.")
        if "data" not in body:
            raise RefusedError(400, "data is missing.")
        if holds_address(body["data"]):
            raise RefusedError(400, strings.PAGE_ADDRESS)


def _check_rpc(body: dict[str, Any]) -> None:
    """A message of MCP, whose library would quote it in the errors of pydantic."""
    number, method = body.get("id"), body.get("method")
    if body.get("jsonrpc") != "2.0" or isinstance(number, bool) or not isinstance(number, str | int | None):
        raise RefusedError(400, 'the body must be a message of JSON-RPC: an object with "jsonrpc": "2.0" and an id.')
    if "method" in body and (not isinstance(method, str) or not isinstance(body.get("params"), dict | None)):
        raise RefusedError(400, "method must be a string, and params an object.")
    answers = number is not None and (isinstance(body.get("result"), dict) or isinstance(body.get("error"), dict))
    if "method" not in body and not answers:
        raise RefusedError(400, "the message has no method.")


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise RefusedError(400, f"the body must be a JSON object, not {short_repr(body, 60)}.")
    return body


def _check_ids(body: dict[str, Any], *names: str, needed: bool = True) -> None:
    for name in names:
        value = body.get(name)
        if not (is_id(value) or (value is None and not needed)):
            said = "is missing" if name not in body else f"must not be {short_repr(value, 60)}"
            raise RefusedError(400, f"{name} {said}: it is 1 to 128 letters, digits or _.:- characters.")


def _whole(body: dict[str, Any], name: str, *, needed: bool = True) -> int:
    value = body.get(name)
    if value is None and not needed:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**53:
        raise RefusedError(400, f"{name} must be a whole number, not {short_repr(value, 60)}.")
    return value
