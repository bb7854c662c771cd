"""The OpenAPI description of the endpoints, from their functions and the checks of their arguments."""

from __future__ import annotations

from inspect import signature
from typing import Any

from gradio.route_utils import get_root_url
from gradio_client.utils import python_type_to_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from retrieval.installed import VERSION
from retrieval.ui import strings
from retrieval.ui.api.answers import Answer, ExplanationJson, Groups, Info
from retrieval.ui.api.arguments import ARGUMENTS, FILE
from retrieval.ui.api.endpoints import Endpoints
from retrieval.ui.api.signatures import NAMES, REQUIRED, arguments_of, described
from retrieval.ui.originals import may_see

_API = "/gradio_api"
_ANSWERS = {"Answer": Answer, "Explanation": ExplanationJson, "Groups": Groups, "Info": Info}
_EVENT = {"type": "string", "pattern": r"^[A-Za-z0-9_.:-]{1,128}$"}
_ERRORS = {
    "400": "The request cannot be read.",
    "404": "There is no such endpoint or event.",
    "413": "The request is too large.",
    "415": "The body is of another type.",
    "422": "An argument is missing, unknown or wrong.",
    "503": "The app is busy.",
}


def routes() -> list[Route]:
    """The route of the description, in place of Gradio's own."""

    def serve(request: Request) -> Response:
        if not may_see(request):
            return JSONResponse({"detail": strings.LOG_IN}, 401)
        root_path = request.scope.get("root_path") or getattr(request.app, "root_path", None)
        return JSONResponse(description(str(get_root_url(request, request.url.path, root_path))))

    return [Route(f"{_API}/openapi.json", serve)]


def description(server: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of an app with this address."""
    paths: dict[str, Any] = {f"{_API}/upload": {"post": _upload()}}
    for name in NAMES:
        paths[f"{_API}/call/v2/{name}"] = {"post": _ask(name)}
        paths[f"{_API}/call/{name}/{{event_id}}"] = {"get": _fetch(name)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lookalike", "version": VERSION, "description": strings.OPENAPI_ABOUT},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"schemas": {**_schemas(), **{n: python_type_to_json_schema(t) for n, t in _ANSWERS.items()}}},
    }


def request_schema(endpoint: str) -> dict[str, Any]:
    """The JSON schema of the arguments of an endpoint, as one object."""
    _, meanings = described(endpoint)
    known = arguments_of(endpoint)
    return {
        "type": "object",
        "properties": {name: _property(name, default, meanings[name]) for name, default in known.items()},
        "required": [name for name, default in known.items() if default is REQUIRED],
        "additionalProperties": False,
    }


def _property(name: str, default: Any, meaning: str) -> dict[str, Any]:
    schema = ARGUMENTS[name].schema
    if default is None:
        return {"anyOf": [schema, {"type": "null"}], "default": None, "description": meaning}
    given = {"description": meaning} if default is REQUIRED else {"default": default, "description": meaning}
    return {"allOf": [schema], **given} if "$ref" in schema else {**schema, **given}


def _ask(name: str) -> dict[str, Any]:
    about, _ = described(name)
    started = {"type": "object", "properties": {"event_id": _EVENT}, "required": ["event_id"]}
    return {
        "operationId": name,
        "summary": about.partition(". ")[0].rstrip("."),
        "description": strings.OPENAPI_ASK.format(path=f"{_API}/call/{name}"),
        "requestBody": {"required": True, "content": _json(request_schema(name))},
        "responses": {"200": {"description": "The search has begun.", "content": _json(started)}, **_errors()},
    }


def _fetch(name: str) -> dict[str, Any]:
    answer = signature(getattr(Endpoints, name)).return_annotation
    [schema] = [key for key, kind in _ANSWERS.items() if kind is answer]
    stream = {"text/event-stream": {"schema": {"type": "string"}}}
    said = strings.OPENAPI_ANSWER.format(schema=schema)
    return {
        "operationId": f"{name}_answer",
        "summary": f"The answer of {name}",
        "description": said,
        "parameters": [{"name": "event_id", "in": "path", "required": True, "schema": _EVENT}],
        "responses": {"200": {"description": said, "content": stream}, **_errors("400", "404")},
    }


def _upload() -> dict[str, Any]:
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    files = {"type": "array", "items": file, "minItems": 1, "maxItems": 16}
    form = {"type": "object", "properties": {"files": files}, "required": ["files"]}
    paths = {"type": "array", "items": {"type": "string"}}
    return {
        "operationId": "upload",
        "summary": "Upload pictures",
        "description": strings.OPENAPI_UPLOAD,
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": {
            "200": {"description": "The path of each picture, for an argument.", "content": _json(paths)},
            **_errors("400", "413", "415"),
        },
    }


def _schemas() -> dict[str, Any]:
    mark = {"type": "object", "properties": {"_type": {"const": FILE}}, "required": ["_type"]}
    path = {"type": "string", "minLength": 1, "maxLength": 4096, "description": strings.OPENAPI_PATH}
    detail = {"type": "string", "description": "What is wrong, and how to fix it."}
    return {
        "FileData": {"type": "object", "properties": {"path": path, "meta": mark}, "required": ["path", "meta"]},
        "Error": {"type": "object", "properties": {"detail": detail}, "required": ["detail"]},
    }


def _errors(*codes: str) -> dict[str, Any]:
    content = _json({"$ref": "#/components/schemas/Error"})
    return {code: {"description": _ERRORS[code], "content": content} for code in codes or _ERRORS}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
