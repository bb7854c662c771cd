"""Filters: conditions on the columns of a gallery, from a mapping (Python, JSON) or from text (the command line).

A filter is parsed once, into a `Filter`. Which rows it selects is decided by each column (`retrieval.images.values`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval.errors import QueryError, short, short_repr
from retrieval.images.scalars import as_written
from retrieval.words import did_you_mean

ORDERED = ("<", "<=", ">", ">=")
OPERATORS = ("=", "!=", *ORDERED)
_CONDITION = re.compile(r"(?P<column>.*?)(?P<operator>!=|<=|>=|=|<|>)(?P<value>.*)", re.DOTALL)
_LONGEST_SHOWN = 100  # characters of the user's input quoted in a message


@dataclass(frozen=True)
class Condition:
    """One condition on one column: `=` any of the values, `!=` none of them, or `<`, `<=`, `>`, `>=` the only one.

    None among the values of `=` and `!=` stands for a missing value.
    """

    column: str
    operator: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Filter:
    """Conditions that a row has to pass, all of them; without conditions, every row passes."""

    conditions: tuple[Condition, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.conditions)


Where = Mapping[str, Any] | Filter
"""A filter: a mapping of columns to conditions, all of which must hold, or a `Filter` from `parse` or `parse_where`.

A condition is one of these:

- a value: the row has this value, or, in a column of lists, this member;
- None: the row has no value. In a column of lists, a list without members is no value;
- a list (tuple, set, NumPy array): any of these. An empty list accepts no row;
- a mapping of operators to operands, all of which must hold: `=` and `!=` take a value, None or a list, and `<`, `<=`,
  `>` and `>=` take a value.

`!=` accepts exactly the rows that `=` does not, so also those without a value. `{"size": {"!=": None}}` accepts the
rows that have a value. None as a filter, and an empty mapping, accept every row.
"""


def parse(where: Where | None) -> Filter:
    """The conditions of a filter; raises QueryError for what is no mapping, and for wrong operators and operands."""
    if where is None:
        return Filter()
    if isinstance(where, Filter):
        return where
    if not isinstance(where, Mapping):
        raise QueryError(
            f'a filter must be a mapping such as {{"label": "shirt"}}, not {short_repr(where, _LONGEST_SHOWN)}.'
        )
    return Filter(tuple(each for column, wanted in where.items() for each in _conditions(str(column), wanted)))


def parse_where(conditions: Iterable[str]) -> Filter:
    """Parse arguments such as `colour=red`, `colour!=red` or `price<=50`: a column, an operator and a value.

    The operator is the first one in the text. A row must pass all of them, but several `=` of one column mean any of
    these values. `COLUMN=` means a missing value, and `COLUMN!=` any value. Raises QueryError for anything else.
    """
    any_of: dict[str, list[str | None]] = {}
    others = []
    for text in conditions:
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise QueryError(
                f"a filter must have the form COLUMN=VALUE, not {shown(text)!r}; instead of = it can have !=, <, <=, > "
                "or >=."
            )
        column, operator, value = found["column"], found["operator"], found["value"] or None
        if operator == "=":
            any_of.setdefault(column, []).append(value)
        else:
            others.append(Condition(column, operator, _operands(column, operator, value)))
    return Filter((*(Condition(column, "=", tuple(values)) for column, values in any_of.items()), *others))


def parse_line(text: str) -> Filter:
    """Parse several conditions in one line, with commas between them: `price<=50, colour!=red`.

    Blanks around commas, operators, columns and values do not count. What follows a comma and has no operator belongs
    to the value before it: `city=Paris, Texas` is one condition. Raises QueryError like `parse_where`.
    """
    conditions: list[str] = []
    for piece in text.split(","):
        if conditions and not _CONDITION.fullmatch(piece):
            conditions[-1] += f",{piece}"
        elif piece.strip():
            conditions.append(piece)
    found = [(_CONDITION.fullmatch(each), each) for each in conditions]
    return parse_where("".join(part.strip() for part in parts.groups()) if parts else each for parts, each in found)


def values_of(wanted: Any) -> tuple[Any, ...]:
    """The values of a list, tuple, set or array, or the only value; NumPy's numbers as Python's.

    A float32 becomes the number that it is written as, as in a gallery: 0.1, not 0.10000000149011612.
    """
    if isinstance(wanted, np.ndarray):
        wanted = list(wanted.ravel())
    values = wanted if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
    return tuple(_plain(value) for value in values)


def shown(value: Any) -> str:
    """A requested value for a message, shortened; text that is not valid UTF-8 could not be sent to a client."""
    text = value if isinstance(value, str) else short_repr(value, _LONGEST_SHOWN)
    return short(text[: _LONGEST_SHOWN + 1].encode("utf-8", "replace").decode(), _LONGEST_SHOWN)


def printed(value: Any, kind: pa.DataType) -> str:
    """A value as a column of this type prints it; a value that cannot be cast is printed unchanged."""
    try:
        return str(pa.scalar(value).cast(kind).cast(pa.string()).as_py())
    except (pa.ArrowException, OverflowError, UnicodeError):  # a number or text that Arrow cannot represent
        return str(value)


def no_value(column: str, text: str, known: Iterable[str]) -> QueryError:
    """The error for a value that no row has, with those that resemble it."""
    return QueryError(f"no image has {column}={shown(text)}; {did_you_mean(text, known)}")


def _conditions(column: str, wanted: Any) -> Iterator[Condition]:
    if not isinstance(wanted, Mapping):
        yield Condition(column, "=", values_of(wanted))
        return
    if not wanted:
        raise QueryError(f'the filter of {shown(column)!r} is empty: give a value, or an operator as in {{"<=": 50}}.')
    for operator, operand in wanted.items():
        if operator not in OPERATORS:
            raise QueryError(
                f"the filter of {shown(column)!r} has no operator {shown(operator)!r}; use =, !=, <, <=, > or >=."
            )
        yield Condition(column, operator, _operands(column, operator, operand))


def _operands(column: str, operator: str, operand: Any) -> tuple[Any, ...]:
    values = values_of(operand)
    if operator in ORDERED and (len(values) != 1 or values[0] is None):
        what = "none" if operand is None or not values else f"{len(values)}"
        raise QueryError(f"{shown(column)}{operator} must be followed by one value, not {what}.")
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, np.floating):
        return as_written(value)
    return value.item() if isinstance(value, np.bool_ | np.integer | np.str_) else value
