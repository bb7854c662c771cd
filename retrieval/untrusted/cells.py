"""Cells of CSV files: a spreadsheet runs a text that begins like a formula, so such a text gets an apostrophe in front.

See https://owasp.org/www-community/attacks/CSV_Injection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# Excel, LibreOffice and Google Sheets also take the full-width signs that Asian keyboards write.
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", re.ASCII)


def disarmed(cells: Iterable[Any]) -> list[Any]:
    """The cells of a line, where a text that a spreadsheet would run as a formula gets an apostrophe in front.

    These are texts that begin with = + - @, a tab or the end of a line. Numbers are left as they are, and so are texts
    that are a number as a whole, such as `-5` or `+1.5e-3`.

    >>> disarmed(["=1+1", "-5", -5, "+49 30 1234", "red", None])
    ["'=1+1", '-5', -5, "'+49 30 1234", 'red', None]
    """
    return [f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell for cell in cells]


def _is_formula(text: str) -> bool:
    return bool(_FORMULA.match(text)) and not _NUMBER.fullmatch(text)
