"""Run a command-line app, from its arguments to an exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from retrieval.console import run_command
from retrieval.installed import VERSION, needs

HELP = ("--help", "-h")


class _EndedError(Exception):
    """Carries an exit status out of Typer, which would end the process."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Commands(TyperGroup):
    """Sub-commands whose errors and interruptions are reported by `run_command`, and wrong usage by Typer."""

    def invoke(self, ctx: Any) -> Any:
        def run() -> None:
            with needs("this command"), _in_plain_words():
                super(_Commands, self).invoke(ctx)

        raise _EndedError(run_command(run, ctx.obj))


@contextmanager
def _in_plain_words() -> Iterator[None]:
    """Leave out how pydantic, which converts the options for Typer, names its own exceptions."""
    try:
        yield
    except typer.BadParameter as error:
        error.message = error.message.removeprefix("Value error, ")
        raise


def new_app(text: str, *commands: typer.Typer) -> typer.Typer:
    """Combine commands into one app with `-h` and `--version`; `text` opens its help."""
    # Plain text: importing Rich takes almost as long as everything else, and its boxes are hard to search and copy.
    app = typer.Typer(
        cls=_Commands,
        help=text,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        no_args_is_help=True,
        context_settings={"help_option_names": list(HELP), "max_content_width": 100},
    )
    for group in commands:
        app.add_typer(group)
    app.callback()(_root)
    return app


def run_app(app: typer.Typer, argv: Sequence[str] | None, program: str, interrupted: str) -> int:
    """Run one command; returns 0 on success, 1 after an error (one line on standard error), 130 after Ctrl-C.

    `program` is its name in the help, `interrupted` the message after Ctrl-C. Raises SystemExit if no command runs:
    status 0 for help, status 2 with the command's usage for wrong usage.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        get_command(app).main(words, prog_name=program, obj=interrupted)
    except _EndedError as ended:
        return ended.status
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lookalike {VERSION}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass
