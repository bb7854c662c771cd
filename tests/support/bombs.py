"""Small files that cost far more to decode than any picture is worth, made here byte by byte.

Each function is one file. The larger ones take a size, so that a test can make a cheap one.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

SIDE = 5000  # of a picture of 25 million pixels, the most that is accepted


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def small(kind, **options):
    """A small valid picture, which each bomb is built around."""
    ramp = np.arange(64 * 48 * 3, dtype=np.uint32).reshape(48, 64, 3) * 7 % 251
    return encoded(Image.fromarray(ramp.astype(np.uint8)), kind, **options)


# TIFF and EXIF


def shared_tags(count, size, first=0x8000, kind=1):
    """A TIFF header and directory of `count` tags which all point at the same `size` bytes."""
    start = 8 + 2 + 12 * count + 4
    width = {1: 1, 4: 4, 5: 8}[kind]
    entries = b"".join(struct.pack("<HHII", first + i, kind, size // width, start) for i in range(count))
    return struct.pack("<2sHIH", b"II", 42, 8, count) + entries + bytes(4) + bytes(size)


def tiff_of(tags, data=b""):
    """A little-endian TIFF: `data` starts at byte 8; a tag is (number, type, count, value or place)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    start = 8 + len(data)
    return struct.pack("<2sHI", b"II", 42, start) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def grey(width, height, *more, data=b"\x80", **changes):
    """The tags of a grey picture of one strip, with the data at byte 8."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    tags |= {int(number[1:]): value for number, value in changes.items()}
    return [*((number, 4, 1, value) for number, value in tags.items() if value is not None), *more]


def tiff_shared(count=3000, size=1_000_000):
    data = bytes(max(size, 3072))
    more = [(40_000 + i, 1, size, 8) for i in range(count)]
    return tiff_of(grey(64, 48, *more, data=data[:3072]), data)


def tiff_rationals(count=4_000_000):
    data = bytes(8 * count)
    return tiff_of(grey(64, 48, (40_000, 5, count, 8), data=data[:3072]), data)


def tiff_tiny_tiles(count=2_000_000):
    data = bytes(4 * count)
    tags = grey(2000, 1000, (324, 4, count, 8), _273=None, _278=None, _279=None, _322=1, _323=1)
    return tiff_of(tags, data)


def tiff_many_strips(count=8_000_000):
    data = bytes(4 * count)
    return tiff_of([t for t in grey(64, 48, (273, 4, count, 8), _278=1) if t != (273, 4, 1, 8)], data)


def tiff_loop():
    data = small("TIFF")
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    after = start + 2 + 12 * count
    return data[:after] + struct.pack("<I", start) + data[after + 4 :]


# PNG


def png_with(*chunks, body=None):
    """A small PNG with chunks after its header."""
    plain = body or small("PNG")
    return plain[:33] + b"".join(chunk(name, data) for name, data in chunks) + plain[33:]


def chunk(name, data):
    return struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data))


def png_wide(side=SIDE):
    """A picture of 16-bit colours with a gamma of its own."""
    row = b"\0" + np.arange(3 * side, dtype=">u2").tobytes()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)) + chunk(
        b"gAMA", struct.pack(">I", 10**5)
    )
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(row * side, 1)) + chunk(b"IEND", b"")


def icc(*tags, space=b"RGB "):
    """An ICC profile of version 4 with these (name, content) tags."""
    place = 132 + 12 * len(tags)
    table = contents = b""
    for name, content in tags:
        table += struct.pack(">4sII", name, place + len(contents), len(content))
        contents += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s", place + len(contents), b"lcms", 0x04400000, b"mntr", space, b"XYZ ", bytes(12), b"acsp"
    )
    head = head.ljust(68, b"\0") + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + contents


def matrix_tags():
    """The tags of an RGB profile with a gamma of 1, its red and green exchanged, so that it changes colours."""
    xyz = {b"gXYZ": (28578, 14581, 912), b"rXYZ": (25240, 46981, 6361), b"bXYZ": (9374, 3973, 46792)}
    tags = [(name, struct.pack(">4sIiii", b"XYZ ", 0, *value)) for name, value in xyz.items()]
    curve = struct.pack(">4sII", b"curv", 0, 0)
    white = struct.pack(">4sIiii", b"XYZ ", 0, 63190, 65536, 54061)
    return [*tags, *((name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")), (b"wtpt", white)]


def long_pipeline(count=4000):
    """A profile with a pipeline of `count` elements, all the same matrix."""
    matrix = struct.pack(">4sIHH12f", b"matf", 0, 3, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    head = struct.pack(">4sIHHI", b"mpet", 0, 3, 3, count)
    places = struct.pack(">II", 16 + 8 * count, len(matrix)) * count
    return icc((b"D2B0", head + places + matrix), *matrix_tags())


def huge_cube(points, inputs, space):
    """A profile whose colour table claims `points` ** `inputs` entries, of which it has none."""
    lut = struct.pack(">4sIBBBx9iHH", b"mft2", 0, inputs, 3, points, *[65536, 0, 0] * 3, 2, 2) + bytes(24)
    return icc((b"A2B0", lut), space=space)


def png_profile(profile):
    return png_with((b"iCCP", b"x\0\0" + zlib.compress(profile, 9)))


def png_many_profiles(count=20_000):
    return png_with(*[(b"iCCP", b"x\0\0" + zlib.compress(icc(*matrix_tags())))] * count)


def png_many_chunks(count=2_000_000):
    plain = small("PNG")
    return plain[:33] + chunk(b"IDAT", b"") * count + plain[33:]


def png_nested_exif_marks(count=5_000_000):
    return png_with((b"eXIf", b"Exif\0\0" * count))


# JPEG


def jpeg_scans(count=1000, side=SIDE):
    """A progressive JPEG with `count` refinements of nothing."""
    plain = encoded(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    scan = struct.pack(">HHBBBBBB", 0xFFDA, 8, 1, 1, 0, 1, 63, 0x10)
    return plain[:-2] + scan * count + plain[-2:]


def jpeg_exif_segments(count=900):
    plain = small("JPEG")
    segment = struct.pack(">HH", 0xFFE1, 65_535) + b"Exif\0\0" + shared_tags(2, 65_000)
    return plain[:2] + (segment[:65_537]).ljust(65_537, b"\0") * count + plain[2:]


def jpeg_exif_shared():
    plain = small("JPEG")
    block = b"Exif\0\0" + shared_tags(3000, 29_000)
    return plain[:2] + struct.pack(">HH", 0xFFE1, len(block) + 2) + block + plain[2:]


def jpeg_comments(count=4_000_000):
    plain = small("JPEG")
    return plain[:2] + b"\xff\xfe\0\2" * count + plain[2:]


def jpeg_padded_header(size=30_000_000, byte=b"\xff"):
    plain = small("JPEG")
    return plain[:2] + byte * size + plain[2:]


def jpeg_padded_scan(size=30_000_000):
    plain = small("JPEG")
    return plain[:-200] + b"\xff" * size + plain[-200:]


# WebP, GIF, BMP


def riff(*chunks):
    body = b"".join(struct.pack("<4sI", name, len(data)) + data + bytes(len(data) % 2) for name, data in chunks)
    return struct.pack("<4sI4s", b"RIFF", 4 + len(body), b"WEBP") + body


def webp_with(*chunks, width=64, height=48, flags=0x2C):
    plain = small("WEBP", lossless=True)
    canvas = bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff((b"VP8X", canvas), (b"VP8L", plain[20 : 20 + struct.unpack_from("<I", plain, 16)[0]]), *chunks)


def webp_frames(count=10_000):
    frames = [Image.new("RGB", (64, 48), (i % 256, i // 256, 0)) for i in range(2)]
    plain = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    last = plain.rindex(b"ANMF")
    whole = plain + plain[last:] * count
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]


def gif_with(extension):
    """A small GIF with bytes before its picture."""
    plain = small("GIF")
    start = plain.index(b",\0\0\0\0")
    return plain[:start] + extension + plain[start:]


def gif_comment(size=8_000_000):
    return gif_with(b"!\xfe" + (b"\xff" + b"x" * 255) * (size // 256) + b"\0")


def gif_tiny_blocks(count=10_000_000):
    return gif_with(b"!\xfe" + b"\1x" * count + b"\0")


def bmp_rle(data, side=SIDE, bits=8):
    palette = b"".join(bytes((i, 255 - i, i, 0)) for i in range(1 << bits))
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, bits, 1 if bits == 8 else 2, len(data), 0, 0, 1 << bits, 0)
    start = 14 + len(info) + len(palette)
    return struct.pack("<2sIII", b"BM", start + len(data), 0, start) + info + palette + data


def bmp_lines(side=SIDE):
    return bmp_rle(b"\1\7\0\0" * side + b"\0\1", side)


def bmp_runs(size=20_000_000, side=SIDE):
    return bmp_rle(b"\1\7" * (size // 2), side)


# AVIF


def avif_smaller_than_its_stream(side, box=64):
    """An AVIF whose box says `box` x `box`, while its video stream has `side` x `side`."""
    plain = encoded(Image.new("RGB", (side, side), (9, 90, 200)), "AVIF", speed=10, quality=20)
    return plain.replace(struct.pack(">4sIII", b"ispe", 0, side, side), struct.pack(">4sIII", b"ispe", 0, box, box))


def with_box(data, name, box):
    """An AVIF in whose `meta` box another box takes the place of the one with this name."""
    start, meta = data.index(name) - 4, data.index(b"meta") - 4
    size, whole = struct.unpack_from(">I", data, start)[0], struct.unpack_from(">I", data, meta)[0]
    inside = data[meta + 4 : start] + box + data[start + size : meta + whole]
    return data[:meta] + struct.pack(">I", 4 + len(inside)) + inside + data[meta + whole :]


def avif_items(count=60_000):
    """An AVIF with `count` more items in its list."""
    plain = small("AVIF")
    start = plain.index(b"iinf") - 4
    size, old = struct.unpack_from(">I", plain, start)[0], struct.unpack_from(">H", plain, start + 12)[0]
    infe = b"".join(struct.pack(">I4sIHH4sx", 21, b"infe", 2 << 24, 100 + i, 0, b"zzzz") for i in range(count))
    head = struct.pack(">I4sIH", size + len(infe), b"iinf", 0, old + count)
    return with_box(plain, b"iinf", head + plain[start + 14 : start + size] + infe)


def avif_frames(count=2_500_000):
    """An animation whose one chunk claims `count` frames of a byte each."""
    frames = [Image.new("RGB", (64, 48), (i, 0, 0)) for i in range(3)]
    data = bytearray(encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:]) + bytes(count))
    struct.pack_into(">I", data, data.index(b"stsz") + 8, 1)
    struct.pack_into(">I", data, data.index(b"stsc") + 16, count)
    return bytes(data)


def avif_extents(count=2048):
    """An AVIF with `count` items of 65,535 parts each, which take no bytes."""
    items = b"".join(struct.pack(">HHH", 1 + i, 0, 65_535) for i in range(count))
    return with_box(small("AVIF"), b"iloc", struct.pack(">I4sIBBH", 16 + len(items), b"iloc", 0, 0, 0, count) + items)
