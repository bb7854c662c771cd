"""The OpenAPI description: valid, and true of what the app accepts."""

from __future__ import annotations

import random
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate

from retrieval.errors import LookalikeError
from retrieval.ui.api.openapi import description, request_schema
from retrieval.ui.api.signatures import NAMES, arguments_of, by_name, check_all

FILE = {"path": "/x/y.png", "meta": {"_type": "gradio.FileData"}}
VALUES: list[Any] = [
    *(0, 1, -1, 10, 1000, 1001, 0.5, 0.6, 1.5, -2, 10**9, 2.0, True, False, None, "", " ", "a", "3", "red"),
    *([], ["a"], ["a"] * 101, [1], [0, 0, 1, 1], [0, 0, 2, 1], [0, 0, 1], ["0", 0, 1, 1], [True, 0, 1, 1], [None]),
    *({}, {"a": 1}, {"a": None}, {"a": [1, "b", None, True]}, {"a": [[1]]}, {"a": {"<": 3}}, {"a": {"<": None}}),
    *({"a": {"!=": [1, 2]}}, {"a": {"like": 1}}, {"a": {}}, {"a": {"=": {}}}, {str(n): n for n in range(101)}),
    *({"a": list(range(1001))}, FILE, {**FILE, "path": 5}, {"path": "x"}, {**FILE, "path": "x" * 5000}),
]
LIKELY = {"image": FILE, "id": "a", "hit": "a", "text": "red"}


def accepted(endpoint: str, given: dict[str, Any]) -> bool:
    try:
        check_all(endpoint, by_name(endpoint, given))
    except LookalikeError as error:
        assert 10 < len(str(error)) < 500
        return False
    return True


def test_description_is_valid_openapi(server: str) -> None:
    document = httpx.get(f"{server}/gradio_api/openapi.json").json()
    validate(document)
    assert document["servers"] == [{"url": server}]
    assert {path for path in document["paths"] if "/v2/" in path} == {f"/gradio_api/call/v2/{name}" for name in NAMES}


@pytest.mark.parametrize("endpoint", NAMES)
def test_what_an_endpoint_accepts_is_what_its_schema_says(endpoint: str) -> None:
    """Beyond the schema, only the order of a region's sides is checked."""
    schemas = description("http://x")["components"]["schemas"]
    schema = {**request_schema(endpoint), "components": {"schemas": schemas}}
    validator = jsonschema.Draft202012Validator(schema)
    names, draw = list(arguments_of(endpoint)), random.Random(3)
    needed = {name: value for name, value in LIKELY.items() if name in schema["required"]}
    tried = [{**needed, name: value} for name in names for value in VALUES]
    tried += [{}, {"colour": 1}, needed, {**needed, "colour": 1}]
    for _ in range(200):
        tried.append({**needed, **{draw.choice([*names, "x"]): draw.choice(VALUES) for _ in range(draw.randrange(4))}})
    both = 0
    for given in tried:
        assert accepted(endpoint, given) == validator.is_valid(given), given
        both += validator.is_valid(given)
    assert 0 < both < len(tried)
