"""Which formats are accepted, and what to say of the others."""

from __future__ import annotations

import re

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

_ACCEPTED = "JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are accepted"

# Only for the wording of errors: Pillow's own checks of the content decide which files are read. First match wins.
_SIGNATURES = [
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG"),
    ("WebP", rb"RIFF....WEBP"),
    ("GIF", rb"GIF8[79]a"),
    ("TIFF", rb"II[*+]\0|MM\0[*+]|MM\*\0"),
    ("BMP", rb"BM.{4}\0\0\0\0"),
    ("AVIF", rb".{4}ftyp(avif|avis)|.{4}ftyp(mif1|msf1).{0,40}avi[fs]"),
    ("HEIC", rb".{4}ftyp(hei|hev|mif1|msf1)"),
    ("MP4 or QuickTime video", rb".{4}ftyp"),
    ("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("JPEG XL", rb"\0\0\0\x0cJXL |\xff\x0a"),
    ("PDF", rb"%PDF-"),
    ("EPS or PostScript", rb"%!PS|\xc5\xd0\xd3\xc6"),
    ("PSD (Photoshop)", rb"8BPS"),
    ("ICO or CUR icon", rb"\0\0[\x01\x02]\0[^\0]"),
    ("SVG", rb".{0,2000}<svg[\s:>]"),
    ("HTML", rb"\s*<(?i:!doctype html|html)"),
    ("PNM", rb"P[1-7fF]\s"),
    ("ZIP", rb"PK\x03\x04"),
    ("gzip", rb"\x1f\x8b"),
    ("text", rb"[\t\n\r\x20-\x7e]{16}"),
]


class RefusedError(Exception):
    """A file that no decoder should be given; the message is what follows the name of the file in a sentence."""


def is_pointer(data: bytes) -> bool:
    """Whether these are the first bytes of a pointer of Git LFS instead of a file."""
    return data.startswith(b"version https://git-lfs.github.com/spec/")


def complaint(data: bytes) -> str:
    """The reason why these bytes could not be decoded, with the format they resemble."""
    head = data[:4096]
    if is_pointer(head):
        return "is a pointer of Git LFS, not the picture itself: run `git lfs pull` in its folder"
    found = next((kind for kind, pattern in _SIGNATURES if re.match(pattern, head, re.DOTALL)), None)
    if found and found.upper() in FORMATS:
        return f"is damaged, cut short, or an unsupported variant of {found}"
    return f"is not a readable picture{f' (found: {found})' if found else ''}; {_ACCEPTED}"
