"""Serve the endpoints as MCP tools with Gradio's MCP server, but with safe arguments and JSON answers."""

from __future__ import annotations

import base64
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import gradio.mcp
from gradio.utils import get_upload_folder
from gradio_client import handle_file
from gradio_client.utils import is_file_obj_with_meta

from retrieval.errors import QueryError
from retrieval.ui import strings
from retrieval.ui.api.arguments import UPLOADED
from retrieval.ui.api.signatures import NAMES, by_name, check_all
from retrieval.ui.intake.files.data_urls import WRONG
from retrieval.ui.intake.files.folder import Uploads
from retrieval.ui.intake.refusing import RefusedError

_FILE_ROUTE = "/gradio_api/file="


class Tools(gradio.mcp.GradioMCPServer):  # type: ignore[misc]
    """The tools that a Model Context Protocol client sees, one per public endpoint, at `/gradio_api/mcp/`."""

    def get_input_schema(
        self, tool_name: str, parameters: dict[str, str] | None = None
    ) -> tuple[dict[str, Any], list[Any]]:
        """The JSON schema of a tool's arguments, and the paths of those that are images."""
        schema, places = super().get_input_schema(tool_name, parameters)
        pictures = sorted({name for name, *_ in places})  # an optional one is nested deeper: image, oneOf, 1
        for name in pictures:
            said = schema["properties"][name].get("description", "")
            schema["properties"][name] = {"type": "string", "description": f"{said} {strings.TOOL_PICTURE}".strip()}
        return schema, [[name] for name in pictures]

    def convert_strings_to_filedata(self, value: dict[str, Any], filedata_positions: list[Any]) -> dict[str, Any]:
        """Convert a tool's arguments for the endpoint: images become uploads.

        Raises QueryError for an argument that is already a file. Gradio passes the arguments to its own client, which
        runs on this machine and would upload any file they name to a publicly readable place.
        """
        if _holds_a_file(value):
            raise QueryError(strings.TOOL_FILE)
        uploads, taken = self.blocks.uploads, dict(value)
        for (name,) in filedata_positions:
            given = str(value.get(name))
            path = unquote(given.rpartition(_FILE_ROUTE)[2])
            if given.startswith("data:"):  # written in a way that it was not taken out of the request
                path = str(_decoded(given, uploads))
            if uploads.holds(path):
                taken[name] = {UPLOADED: path}  # Gradio's client would upload a file again
            elif _is_upload(path):
                taken[name] = handle_file(path)
        return dict(super().convert_strings_to_filedata(taken, filedata_positions))

    def _prepare_tool_call_args(self, name: str, arguments: dict[str, Any]) -> Any:
        """Check the arguments before Gradio does, which would quote its own help; raises LookalikeError."""
        endpoint = self.tool_to_endpoint.get(name, "").lstrip("/")
        if endpoint in NAMES:
            given = by_name(endpoint, arguments)
            check_all(endpoint, {each: value for each, value in given.items() if each != "image"})
        return super()._prepare_tool_call_args(name, arguments)

    def postprocess_output_data(self, data: Any, root_url: str) -> list[Any]:
        """The answers as JSON; Gradio would return Python's `str` of them."""
        as_text = [output if is_file_obj_with_meta(output) else json.dumps(output) for output in data]
        return list(super().postprocess_output_data(as_text, root_url))


def _decoded(given: str, uploads: Uploads) -> Path:
    """The picture in a data URL, as an upload; raises QueryError."""
    try:
        content = base64.b64decode(given.split(";base64,", 1)[1], validate=True)
    except (ValueError, IndexError) as error:
        raise QueryError(WRONG) from error
    try:
        file = uploads.new("picture")
        try:
            file.write(content)
            return file.keep()
        except RefusedError:
            file.delete()
            raise
    except RefusedError as error:
        raise QueryError(error.sentence) from error


def offer_tools() -> bool:
    """Make Gradio use these tools; returns False if the `mcp` package is not installed."""
    if find_spec("mcp") is None:
        return False
    gradio.mcp.GradioMCPServer = Tools
    return True


def _is_upload(path: str) -> bool:
    """Whether another process of this server has saved this upload: they share a folder, but no list of files."""
    try:
        file = Path(path).resolve()
        return file.is_file() and file.is_relative_to(Path(get_upload_folder()).resolve())
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a loop of links
        return False


def _holds_a_file(value: Any) -> bool:
    if isinstance(value, dict):
        return {"path", "meta"} <= value.keys() or any(map(_holds_a_file, value.values()))
    return isinstance(value, list) and any(map(_holds_a_file, value))
