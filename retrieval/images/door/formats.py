"""Which formats are accepted, and what to say of the others."""

from __future__ import annotations

import re

try:
    from pillow_heif import register_heif_opener
except ImportError:  # no wheel for this machine, or uninstalled because of its licence
    HEIC = False
else:
    register_heif_opener()
    HEIC = True

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", *(["HEIF"] if HEIC else []))

_ACCEPTED = f"JPEG, PNG, WebP, GIF, BMP, TIFF{', AVIF and HEIC' if HEIC else ' and AVIF'} are accepted"
_OURS = {*FORMATS, "HEIC"} if HEIC else {*FORMATS}

EDIT = "open it in an image editor, and save it as a JPEG or PNG"
EXPORT = "export it as a JPEG with the program of the camera"
_PHONE = "save it as a JPEG (an iPhone takes JPEGs with Settings > Camera > Formats > Most Compatible)"
_FRAME = "save one frame of it as a JPEG"
_UNPACK = "unpack it first"

# Only for the wording of errors: Pillow's own checks of the content decide which files are read. First match wins.
_KINDS = [
    ("JPEG", rb"\xff\xd8\xff", ""),
    ("PNG", rb"\x89PNG", ""),
    ("WebP", rb"RIFF....WEBP", ""),
    ("GIF", rb"GIF8[79]a", ""),
    ("TIFF", rb"II[*+]\0|MM\0[*+]|MM\*\0", ""),
    ("BMP", rb"BM.{4}\0\0\0\0", ""),
    ("AVIF", rb".{4}ftyp(avif|avis)|.{4}ftyp(mif1|msf1).{0,40}avi[fs]", ""),
    ("HEIC", rb".{4}ftyp(hei|hev|mif1|msf1)", _PHONE),
    ("RAW photograph, Canon CR3", rb".{4}ftypcrx ", EXPORT),
    ("RAW photograph, Fujifilm RAF", rb"FUJIFILMCCD-RAW", EXPORT),
    ("RAW photograph, Olympus ORF", rb"II(RO|RS)|MMOR", EXPORT),
    ("RAW photograph, Panasonic RW2", rb"IIU\0", EXPORT),
    ("RAW photograph, Sigma X3F", rb"FOVb", EXPORT),
    ("RAW photograph, Minolta MRW", rb"\0MRM", EXPORT),
    ("MP4 or QuickTime video", rb".{4}ftyp", _FRAME),
    ("Matroska or WebM video", rb"\x1aE\xdf\xa3", _FRAME),
    ("AVI video", rb"RIFF....AVI ", _FRAME),
    ("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", EDIT),
    ("JPEG XL", rb"\0\0\0\x0cJXL |\xff\x0a", EDIT),
    ("JPEG XR", rb"II\xbc", EDIT),
    ("PDF", rb"%PDF-", "save the page as a JPEG or PNG"),
    ("EPS or PostScript", rb"%!PS|\xc5\xd0\xd3\xc6", EDIT),
    ("PSD (Photoshop)", rb"8BPS", EDIT),
    ("XCF (GIMP)", rb"gimp xcf", "open it in GIMP, and export it as a JPEG or PNG"),
    ("Krita document", rb"PK\x03\x04.{26}mimetypeapplication/x-krita", EDIT),
    ("OpenRaster", rb"PK\x03\x04.{26}mimetypeimage/openraster", EDIT),
    ("Affinity document", rb"\0\xffKA", EDIT),
    ("OpenEXR", rb"v/1\x01", EDIT),
    ("Radiance HDR", rb"#\?(RADIANCE|RGBE)", EDIT),
    ("DICOM", rb".{128}DICM", "export it as a PNG with a DICOM viewer"),
    ("FITS", rb"SIMPLE  =", "export it as a PNG with a FITS viewer"),
    ("DDS texture", rb"DDS ", EDIT),
    ("QOI", rb"qoif", EDIT),
    ("DjVu", rb"AT&TFORM", "save the page as a JPEG or PNG"),
    ("ICNS icon", rb"icns", EDIT),
    ("ICO or CUR icon", rb"\0\0[\x01\x02]\0[^\0]", EDIT),
    ("PCX", rb"\n[\0\x02-\x05]\x01[\x01\x02\x04\x08]", EDIT),
    ("WMF", rb"\xd7\xcd\xc6\x9a", EDIT),
    ("EMF", rb"\x01\0\0\0.{36} EMF", EDIT),
    ("SVG", rb".{0,2000}<svg[\s:>]", "export it as a PNG"),
    ("HTML", rb"\s*<(?i:!doctype html|html)", "save the picture itself, not the page around it"),
    ("PNM", rb"P[1-7fF]\s", EDIT),
    ("ZIP", rb"PK\x03\x04", _UNPACK),
    ("gzip", rb"\x1f\x8b", _UNPACK),
    ("text", rb"[\t\n\r\x20-\x7e]{16}", ""),
    # Without a signature: no or any id, colour map, type, the places of the map, and 8 to 32 bits per pixel.
    ("TGA", rb".[\0\1][\1\2\3\x09\x0a\x0b].{13}[\x08\x0f\x10\x18\x20]", EDIT),
]
SIGNATURES = [(kind, re.compile(pattern, re.DOTALL), advice) for kind, pattern, advice in _KINDS]
"""Name, pattern of the first bytes, and what helps."""


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
    found, advice = next(((kind, advice) for kind, pattern, advice in SIGNATURES if pattern.match(head)), ("", ""))
    if found.upper() in _OURS:
        return f"is damaged, cut short, or an unsupported variant of {found}"
    ways = "; ".join(filter(None, (advice, _ACCEPTED)))
    return f"is not a readable picture{f' (found: {found})' if found else ''}; {ways}"
