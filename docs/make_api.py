"""Writes docs/api.md from the docstrings of `retrieval` and the examples in docs/api_examples.md.

python -m docs.make_api
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import retrieval

HERE = Path(__file__).parent
INTRODUCTION = """\
# API reference

Import these names from `retrieval`. The examples run in a folder with a picture `photo.jpg`, a folder of labelled
pictures `my_pictures`, and an artifact `my_artifact`. `python -m docs.make_api` writes this page from the docstrings.
"""
LONGEST = 100  # characters of a signature on one line


def signature(name: str, function: Any) -> str:
    """`name(argument: type = default) -> type`, one argument per line if that is long."""
    full = inspect.signature(function)
    kept = [each for each in full.parameters.values() if each.name not in ("self", "cls")]
    line = _unquoted(name + str(full.replace(parameters=kept))).removesuffix(" -> None")
    if len(line) <= LONGEST:
        return line
    lines = [f"    {_unquoted(str(each))},\n" for each in kept]
    if keywords := [at for at, each in enumerate(kept) if each.kind is each.KEYWORD_ONLY]:
        lines.insert(keywords[0], "    *,\n")
    return f"{name}(\n{''.join(lines)}){line.rpartition(')')[2]}"


def _unquoted(text: str) -> str:
    """Annotations without the quotes that `inspect` puts around them."""
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text).replace("<factory>", "...")


def prose(docstring: str | None) -> str:
    """A docstring as Markdown: `Args:`, `Returns:` and `Raises:` become headings, and what they list a list."""

    def headed(found: re.Match[str]) -> str:
        body = textwrap.dedent(found[2]).strip()
        return f"**{found[1]}**\n\n" + re.sub(r"^(\w+): ", r"- `\1`: ", body, flags=re.MULTILINE) + "\n\n"

    return re.sub(
        r"(?m)^(Args|Returns|Raises):\n((?: {4}.*\n?|\n)+)", headed, inspect.cleandoc(docstring or "")
    ).strip()


def fields_of(cls: Any) -> Iterator[str]:
    """A line for each field of a dataclass, with the text that stands below it in the code."""
    body: list[Any] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            text = getattr(getattr(after, "value", None), "value", "") if isinstance(after, ast.Expr) else ""
            yield f"- `{ast.unparse(node.target)}: {ast.unparse(node.annotation)}`" + (f": {text}" if text else "")


def members_of(cls: type) -> Iterator[str]:
    """A section for each public method and property that the class itself defines."""
    for name, member in vars(cls).items():
        function = getattr(member, "__func__", None) or getattr(member, "fget", None) or getattr(member, "func", member)
        if not name.startswith("_") and inspect.isfunction(function):
            called = f"{cls.__name__}.{name}"
            is_method = function is member or isinstance(member, classmethod | staticmethod)
            head = f"```python\n{signature(called, function)}\n```" if is_method else "A property."
            yield f"### {called}\n\n{head}\n\n{prose(function.__doc__)}"


def section(name: str, value: Any, example: str = "") -> str:
    """The section of a name: its signature, docstring, fields, example and members."""
    parts = [f"## {name}", prose(value.__doc__)]
    if not (is_error := isinstance(value, type) and issubclass(value, Exception)):
        parts.insert(1, f"```python\n{signature(name, value)}\n```")
    if dataclasses.is_dataclass(value):
        parts.append("\n".join(fields_of(value)))
    if example:
        parts.append(f"**Example**\n\n```python\n{example}\n```")
    if isinstance(value, type) and not is_error:
        parts += members_of(value)
    return "\n\n".join(parts)


def returned_by(members: list[Any]) -> dict[str, Any]:
    """Dataclasses of ours that public functions and methods return, without being public names themselves."""
    said = [
        (name, getattr(function, "__globals__", {}).get(name))
        for function in (getattr(each, "__func__", each) for each in members)
        for name in re.findall(r"\w+", str(getattr(function, "__annotations__", {}).get("return", "")))
    ]
    return {name: value for name, value in said if dataclasses.is_dataclass(value) and name not in retrieval.__all__}


def examples() -> dict[str, str]:
    """Public name -> its example."""
    text = Path(__file__).with_name("api_examples.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^## (\w+)\n+```python\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE))


def api() -> str:
    """The whole page: public names in the order of the alphabet, then what they return."""
    public = {name: getattr(retrieval, name) for name in sorted(retrieval.__all__, key=str.lower)}
    members = [member for each in public.values() if isinstance(each, type) for member in vars(each).values()]
    others = dict(sorted(returned_by([*public.values(), *members]).items()))
    links = ", ".join(f"[{name}](#{name.lower()})" for name in [*public, *others])
    sections = [section(name, value, examples().get(name, "")) for name, value in {**public, **others}.items()]
    return "\n\n".join([INTRODUCTION.strip(), textwrap.fill(links, 120), *sections]) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("api.md").write_text(api(), encoding="utf-8")
