"""The column of a list that names the pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FILES = "image, imagepath, imgpath, imagefile, imagefilename, imgfile, imagename, img, picture, picturepath"
_FILES += ", photo, photopath, filename, filepath, file, path, imagefilepath, relativepath"
_ADDRESSES = "imageurl, imgurl, photoimageurl, pictureurl, photourl, imagelink, imglink, imageuri, imagesrc, url, uri"
_ADDRESSES += ", link, href, src"
_TEXTS = "imagebase64, imageb64, base64, b64, imagebytes, imagedata"
NAMES = tuple(f"{_FILES}, {_ADDRESSES}, {_TEXTS}".split(", "))
"""Names of columns with pictures, the most likely first; written without blanks, `_`, `-` and `.`, in lower case."""


def plain(column: str) -> str:
    """The name of a column as in `NAMES`.

    >>> plain("Image_Path")
    'imagepath'
    """
    return re.sub(r"[\s_.-]+", "", column).lower()


def find(columns: Iterable[str]) -> str | None:
    """The column with the most likely name for pictures; None if no name is known."""
    named = {plain(column): column for column in reversed(list(columns))}
    return next((named[name] for name in NAMES if name in named), None)


def is_base64(column: str) -> bool:
    """Whether a column is named for pictures as base64 text."""
    return plain(column).endswith(("base64", "b64"))
