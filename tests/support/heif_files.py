"""HEIC files made box by box around video of the encoder of pillow-heif (ISO/IEC 14496-12 and 23008-12)."""

import io
import struct
from dataclasses import dataclass, field


def box(name, content=b"", version=None, flags=0):
    """A box; with a version, a full box."""
    head = b"" if version is None else struct.pack(">I", version << 24 | flags)
    return struct.pack(">I4s", 8 + len(head) + len(content), name) + head + content


def ispe(width, height):
    return box(b"ispe", struct.pack(">II", width, height), 0)


def irot(turns):
    """To the left, in quarters."""
    return box(b"irot", bytes([turns]))


def imir(axis):
    return box(b"imir", bytes([axis]))


def clap(width, height, right=0, down=0):
    """The part to show, and how far its centre is from that of the picture."""
    return box(b"clap", struct.pack(">8i", width, 1, height, 1, int(2 * right), 2, int(2 * down), 2))


def nclx(primaries, transfer, matrix=6):
    return box(b"colr", b"nclx" + struct.pack(">HHHB", primaries, transfer, matrix, 0x80))


def icc(profile):
    return box(b"colr", b"prof" + profile)


def auxc(name):
    return box(b"auxC", name + b"\0", 0)


ALPHA = auxc(b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha")
DEPTH = auxc(b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth")


@dataclass
class Item:
    """A picture, or something else, in a HEIF file."""

    kind: bytes
    content: bytes
    properties: list[bytes] = field(default_factory=list)
    references: list[tuple[bytes, list[int]]] = field(default_factory=list)


def picture(image, *properties, size=None, references=(), quality=-1, chroma=444, **options):
    """An item of video that shows this image; its sides must be multiples of 64."""
    assert not (image.width % 64 or image.height % 64)  # or the encoder fills it up
    image.save(file := io.BytesIO(), "HEIF", quality=quality, chroma=chroma, **options)
    return item_of(file.getvalue(), *properties, size=size or image.size, references=references)


def item_of(data, *properties, size, references=()):
    """The only picture of a file that the encoder has written, as an item."""
    place = data.index(b"hvcC") - 4
    hvcc = data[place : place + struct.unpack_from(">I", data, place)[0]]
    start = data.index(b"mdat") + 4
    length = struct.unpack_from(">I", data, start - 8)[0]
    return Item(b"hvc1", data[start : start - 8 + length], [ispe(*size), hvcc, *properties], list(references))


def grid(rows, columns, size, tiles, *properties, content=None):
    """An item of rows and columns of tiles, which are numbers of items."""
    stated = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, *size)
    return Item(b"grid", stated if content is None else content, [ispe(*size), *properties], [(b"dimg", list(tiles))])


def heif(*items, primary=1, major=b"heic", brands=(b"mif1", b"heic"), more=b""):
    """A file of these items, numbered from 1 on, and further boxes behind them."""
    every = list(dict.fromkeys(each for item in items for each in item.properties))
    iinf = b"".join(
        box(b"infe", struct.pack(">HH4s", number, 0, item.kind) + b"\0", 2) for number, item in enumerate(items, 1)
    )
    iref = b"".join(
        box(name, struct.pack(f">HH{len(targets)}H", number, len(targets), *targets))
        for number, item in enumerate(items, 1)
        for name, targets in item.references
    )
    ipma = b"".join(
        struct.pack(">HB", number, len(item.properties))
        + bytes((0 if each[4:8] == b"colr" else 0x80) | (every.index(each) + 1) for each in item.properties)
        for number, item in enumerate(items, 1)
    )

    def meta(start):
        places, extents = start, b""
        for number, item in enumerate(items, 1):
            extents += struct.pack(">HHHII", number, 0, 1, places, len(item.content))
            places += len(item.content)
        parts = [
            box(b"hdlr", struct.pack(">I4s", 0, b"pict") + bytes(13), 0),
            box(b"pitm", struct.pack(">H", primary), 0),
            box(b"iloc", struct.pack(">BBH", 0x44, 0, len(items)) + extents, 0),
            box(b"iinf", struct.pack(">H", len(items)) + iinf, 0),
            box(b"iref", iref, 0) if iref else b"",
            box(b"iprp", box(b"ipco", b"".join(every)) + box(b"ipma", struct.pack(">I", len(items)) + ipma, 0)),
        ]
        return box(b"meta", b"".join(parts), 0)

    head = box(b"ftyp", major + bytes(4) + b"".join(brands))
    start = len(head) + len(meta(0)) + 8
    return head + meta(start) + box(b"mdat", b"".join(item.content for item in items)) + more
