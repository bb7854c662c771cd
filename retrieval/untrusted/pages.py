"""Pages: what the page headers of a parquet column chunk declare, read before anything is unpacked.

The footer of a parquet file comes from the same stranger as its pages, and a reader allocates what the pages say.
Headers are in Thrift's compact protocol (https://parquet.apache.org/docs/file-format/data-pages/).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_WINDOW = 1024  # bytes read at once: all pages of most column chunks
_LONGEST = 1 << 16  # bytes of a header, which can hold the smallest and the largest value
_DEEPEST = 3
_NO_HEADER = "a page header that is not of parquet"
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # types of pages
_DETAILS = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}  # type of page -> the field with its own header
# PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY. A page in another encoding, such as DELTA_BYTE_ARRAY, can hold values
# that are much longer than the page; Lookalike never writes one.
_ENCODINGS = {0, 2, 3, 8}
_PLAIN, _RLE = 0, 3


@dataclass
class Declared:
    """The sum over the pages of a column chunk."""

    values: int = 0
    plain: int = 0
    """Bytes of all data pages, unpacked."""
    dictionary: int = 0
    """Bytes of the dictionary, unpacked; 0 without one."""
    pages: list[tuple[int, int, int]] = field(default_factory=list)
    """Place in the file, bytes and number of values of each data page, with its header."""
    is_plain: bool = True
    """Whether `plain_values` can read all data pages, if they are not compressed."""

    @property
    def most(self) -> int:
        """The most bytes that the values can need: each of them could be the longest one of the dictionary."""
        return self.plain + self.values * (8 + self.dictionary)


def declared(read: Callable[[int, int], bytes], start: int, size: int) -> Declared:
    """What the pages of a column chunk declare, which begins at byte `start` and has `size` bytes in the file.

    `read(count, offset)` gives bytes of the file. Raises ValueError for what is no sequence of pages.
    """
    found, headers, place, end = Declared(), _Headers(read, start + size), start, start + size
    while place < end:
        header, length = headers.at(place)
        kind, unpacked, packed = (_count(header, field) for field in (1, 2, 3))
        details = header.get(_DETAILS.get(kind, -1))
        if not isinstance(details, dict):
            raise ValueError(_NO_HEADER)
        begin, place = place, place + length + packed
        if kind == _DICTIONARY:
            found.dictionary += unpacked
            found.is_plain = False
            continue
        encoding = details.get(4 if kind == _DATA_V2 else 2)
        if encoding not in _ENCODINGS:
            raise ValueError(f"a page in encoding number {encoding}, which is not supported")
        found.values += _count(details, 1)
        found.pages.append((begin, place - begin, _count(details, 1)))
        found.is_plain &= _is_plain(kind, details)
        found.plain += unpacked
    if place != end:
        raise ValueError(f"pages of {place - start:,} bytes in a column chunk of {size:,}")
    return found


def plain_values(page: bytes, count: int, *, levels: bool) -> list[bytes]:
    """The values of a data page of texts or bytes, none of them missing; `page` begins with its header.

    `levels`: whether the column could have missing values. Raises ValueError for any other page, such as one with
    another number of values than `count`, before anything is allocated.
    """
    try:
        header, at = _struct(page, 0)
    except IndexError:
        raise ValueError("a page header that does not end") from None
    kind, details = _count(header, 1), header.get(_DETAILS[_DATA])
    if not isinstance(details, dict) or not _is_plain(kind, details) or _count(details, 1) != count:
        raise ValueError(_NO_HEADER)
    if 4 * count > len(page) or at + _count(header, 3) != len(page):
        raise ValueError(f"a page of {len(page):,} bytes for {count:,} values")
    if levels:
        at += 4 + int.from_bytes(page[at : at + 4], "little")
    values = []
    for _ in range(count):
        at += 4 + (length := int.from_bytes(page[at : at + 4], "little"))
        values.append(page[at - length : at])
    if at != len(page):
        raise ValueError(f"values of another length than their page, or fewer than {count:,}")
    return values


def _is_plain(kind: int, details: dict[int, Any]) -> bool:
    return kind == _DATA and details.get(2) == _PLAIN and details.get(3) == _RLE


def _count(header: dict[int, Any], field: int) -> int:
    number = header.get(field)
    if type(number) is not int or number < 0:
        raise ValueError(_NO_HEADER)
    return number


class _Headers:
    """Reads page headers, a window of the file at a time."""

    def __init__(self, read: Callable[[int, int], bytes], end: int) -> None:
        self._read, self._end = read, end
        self._window, self._first = b"", 0

    def at(self, place: int) -> tuple[dict[int, Any], int]:
        """The fields of the header at this byte of the file, and its length."""
        here = place - self._first
        if 0 <= here < len(self._window):
            with suppress(IndexError):  # it goes on beyond the window
                fields, after = _struct(self._window, here)
                return fields, after - here
        for length in (_WINDOW, _LONGEST):
            self._window, self._first = self._read(min(length, self._end - place), place), place
            with suppress(IndexError):
                return _struct(self._window, 0)
        raise ValueError("a page header that does not end")


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """The fields of a struct that begins at `at`, number -> value, and the place after it.

    Only the types that page headers have: booleans, integers, structs, and texts, which are passed over. Raises
    IndexError at the end of the data, ValueError for anything else.
    """
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        kind = head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        if kind in (4, 5, 6):
            fields[number], at = _integer(data, at)
        elif kind == 12 and depth < _DEEPEST:
            fields[number], at = _struct(data, at, depth + 1)
        elif kind == 8:
            length, at = _varint(data, at)
            at += length
        elif kind in (1, 2):
            fields[number] = kind == 1
        else:
            raise ValueError(_NO_HEADER)
    return fields, at + 1


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 128:
        return byte, at + 1
    value, shift = byte & 127, 7
    while byte >= 128:
        at += 1
        byte = data[at]
        value |= (byte & 127) << shift
        shift += 7
        if shift > 63:
            raise ValueError(_NO_HEADER)
    return value, at + 1
