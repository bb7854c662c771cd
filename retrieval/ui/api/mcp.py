"""The endpoints as MCP tools: Gradio's own server of them, with arguments that are safe to take and answers in JSON."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote

import gradio.mcp
from gradio_client import handle_file
from gradio_client.utils import is_file_obj_with_meta

from retrieval.errors import QueryError
from retrieval.ui import strings

_FILE_ROUTE = "/gradio_api/file="


class Tools(gradio.mcp.GradioMCPServer):  # type: ignore[misc]
    """What a client of the Model Context Protocol sees: a tool for each public endpoint, at `/gradio_api/mcp/`."""

    def get_input_schema(
        self, tool_name: str, parameters: dict[str, str] | None = None
    ) -> tuple[dict[str, Any], list[Any]]:
        """The JSON schema of a tool's arguments, and which of them are pictures."""
        schema, places = super().get_input_schema(tool_name, parameters)
        pictures = sorted({name for name, *_ in places})  # one that may be left out lies deeper: image, oneOf, 1
        for name in pictures:
            said = schema["properties"][name].get("description", "")
            schema["properties"][name] = {"type": "string", "description": f"{said} {strings.TOOL_PICTURE}".strip()}
        return schema, [[name] for name in pictures]

    def convert_strings_to_filedata(self, value: dict[str, Any], filedata_positions: list[Any]) -> dict[str, Any]:
        """The arguments as the endpoint takes them: pictures become files, whose deletion is seen to.

        Raises QueryError for an argument that is a file already. Gradio gives the arguments to a client of its own,
        which runs on this machine and would upload any file that they name to where everyone may read it.
        """
        if _holds_a_file(value):
            raise QueryError(strings.TOOL_FILE)
        uploads, taken = self.blocks.upload_file_set, dict(value)
        for (name,) in filedata_positions:
            path = unquote(str(value.get(name)).rpartition(_FILE_ROUTE)[2])
            if path in uploads:
                taken[name] = handle_file(path)
        taken = dict(super().convert_strings_to_filedata(taken, filedata_positions))
        uploads.update(file["path"] for file in taken.values() if is_file_obj_with_meta(file) and "url" not in file)
        return taken

    def postprocess_output_data(self, data: Any, root_url: str) -> list[Any]:
        """The answers as JSON; Gradio would give the text that Python prints."""
        as_text = [output if is_file_obj_with_meta(output) else json.dumps(output) for output in data]
        return list(super().postprocess_output_data(as_text, root_url))


def offer_tools() -> bool:
    """Have Gradio serve the tools as they are here; False where the package that it takes is not installed."""
    if find_spec("mcp") is None:
        return False
    gradio.mcp.GradioMCPServer = Tools
    return True


def _holds_a_file(value: Any) -> bool:
    if isinstance(value, dict):
        return {"path", "meta"} <= value.keys() or any(map(_holds_a_file, value.values()))
    return isinstance(value, list) and any(map(_holds_a_file, value))
