"""Picture files made by hand, byte by byte, for what no encoder here writes."""

import struct
import zlib

import numpy as np


def tiff(tags, *strips, order="<"):
    """A TIFF with these strips (or tiles, if there is a tag 324); a tag's value is a number, a tuple of 16-bit numbers,
    a list of 32-bit numbers, bytes, or rationals as floats in a tuple. Offsets and counts are added."""
    place, data = 8, b""
    offsets = []
    for strip in strips:
        offsets.append(place + len(data))
        data += strip + bytes(len(strip) % 2)
    tiled = 322 in tags
    tags = {**tags, (324 if tiled else 273): offsets, (325 if tiled else 279): [len(strip) for strip in strips]}
    entries, extra = b"", b""
    start = place + len(data)
    after = start + 2 + 12 * len(tags) + 4
    for tag, value in sorted(tags.items()):
        kind, count, packed = _packed(value, order)
        if len(packed) > 4:
            field = struct.pack(order + "I", after + len(extra))
            extra += packed + bytes(len(packed) % 2)
        else:
            field = packed.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, count) + field
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, start)
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4) + extra


def _packed(value, order):
    if isinstance(value, bytes):
        return 7, len(value), value
    if isinstance(value, int):
        return (3, 1, struct.pack(order + "H", value)) if value < 2**16 else (4, 1, struct.pack(order + "I", value))
    if isinstance(value, list):
        return 4, len(value), struct.pack(f"{order}{len(value)}I", *value)
    if any(isinstance(each, float) for each in value):
        numbers = [part for each in value for part in (round(each * 10**6), 10**6)]
        return 5, len(value), struct.pack(f"{order}{len(numbers)}I", *numbers)
    return 3, len(value), struct.pack(f"{order}{len(value)}H", *value)


def tiff_of(samples, photometric, order="<", planar=False, deflate=False, **tags):
    """A TIFF of an array of shape (H, W, samples), in one strip for each plane; further tags as t262=..."""
    height, width, count = samples.shape
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    parts = np.moveaxis(samples, -1, 0) if planar else [samples]
    strips = [part.astype(samples.dtype.newbyteorder(order)).tobytes() for part in parts]
    every = {
        256: width, 257: height, 258: (samples.dtype.itemsize * 8,) * count, 259: 8 if deflate else 1, 262: photometric,
        277: count, 278: height, 284: 2 if planar else 1, 339: (kind,) * count,
    }  # fmt: skip
    every |= {int(name[1:]): value for name, value in tags.items()}
    return tiff(every, *[zlib.compress(strip) if deflate else strip for strip in strips], order=order)


def png(width, height, depth, colour, rows, *chunks):
    """A PNG with these rows, or none, and with these chunks before them."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))]
    parts += [chunk(*pair) for pair in chunks]
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bmp(width, height, bits, data, compression=0, palette=(), masks=(), header=40, space=b"BGRs", profile=b""):
    """A BMP with a header of 40 to 124 bytes; masks are of red, green, blue and alpha."""
    info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, len(data), 0, 0, len(palette), 0)
    info += struct.pack(f"<{len(masks)}I", *masks)
    if header == 124:
        info = info.ljust(56, b"\0") + space + bytes(48) + struct.pack("<4I", 2, header + len(data), len(profile), 0)
    info = info.ljust(header, b"\0") + b"".join(bytes((*reversed(colour), 0)) for colour in palette)
    start = 14 + len(info)
    return struct.pack("<2sIII", b"BM", start + len(data) + len(profile), 0, start) + info + data + profile
