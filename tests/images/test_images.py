"""Images opened by `retrieval.images.open`: files made here with Pillow or by hand, and a folder of hostile files."""

import io
import math
import os
import random
import re
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
from conftest import DATA
from picture_files import png, tiff_of
from PIL import ExifTags, Image, ImageCms, ImageDraw, ImageFile

from retrieval.errors import ImageError
from retrieval.images.door.decode import MAX_ASPECT, MAX_PIXELS, decode
from retrieval.images.door.files import MAX_BYTES, read_bytes
from retrieval.images.door.formats import FORMATS, SIGNATURES
from retrieval.images.open import open_image, thumbnail_jpeg
from retrieval.images.regions import as_region, crop

HOSTILE = DATA / "hostile_images"
# These tests feed Pillow broken metadata on purpose, and it warns when it ignores them: not a failure, even in a run
# that turns warnings into errors.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
needs_hostile = pytest.mark.skipif(not HOSTILE.is_dir(), reason=f"no folder of hostile images at {HOSTILE}")

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(width=96, height=64):
    """A smooth image whose corners all differ, and whose channels all differ."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    image = Image.fromarray((np.stack([x, y, 1 - x * y], axis=-1) * 255).astype(np.uint8))
    ImageDraw.Draw(image).rectangle((4, 4, 20, 12), fill=(250, 30, 30))
    return image


def noise(width=160, height=120):
    """An image that no format can compress well, so that every part of the file holds pixels."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def difference(left, right):
    """Mean absolute difference, in levels of 255."""
    assert left.size == right.size
    return float(np.abs(np.asarray(left, dtype=float) - np.asarray(right, dtype=float)).mean())


def exif(orientation):
    block = Image.Exif()
    block[ExifTags.Base.Orientation] = orientation
    return block


def tiff(tags, data=b""):
    """A little-endian TIFF made by hand: `data` starts at byte 8, and every tag is one unsigned 32-bit number."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def bmp(width, height, bits, compression, data):
    """A BMP made by hand, with a palette of 256 greys."""
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 256, 0)
    start = 14 + len(info) + len(palette)
    return struct.pack("<2sIII", b"BM", start + len(data), 0, start) + info + palette + data


def refused(source, *words, by=open_image):
    """Check that `source` is refused with a one-line message that contains all the words; returns the message."""
    with pytest.raises(ImageError) as caught:
        by(source)
    message = str(caught.value)
    assert "\n" not in message and "Error" not in message and " object at 0x" not in message
    for word in words:
        assert word in message
    return message


def decode_here(data):
    """Open a picture as where there are no workers, and where a switch of this process has an effect."""
    return decode("the image", data, None)


# Formats


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 3),
        ("JPEG", {"quality": 95, "progressive": True}, 3),
        ("MPO", {"quality": 95, "save_all": True, "append_images": [Image.new("RGB", (96, 64))]}, 3),
        ("PNG", {}, 0),
        ("WEBP", {"quality": 95}, 4),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"lossless": True, "save_all": True, "append_images": [Image.new("RGB", (96, 64))]}, 0),
        ("GIF", {}, 12),
        ("GIF", {"save_all": True, "append_images": [Image.new("RGB", (96, 64))]}, 12),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "jpeg", "quality": 95}, 4),
        ("TIFF", {"save_all": True, "append_images": [Image.new("RGB", (96, 64))]}, 0),
        ("AVIF", {"quality": 95}, 4),
    ],
)
def test_every_format_opens_as_its_first_image(kind, options, tolerance):
    opened = open_image(encode(picture(), kind, **options))
    assert type(opened) is Image.Image
    assert opened.mode == "RGB"
    assert opened.info == {}
    assert difference(opened, picture()) <= tolerance


def test_paths_bytes_and_files_open_alike(tmp_path):
    data = encode(picture(), "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    expected = open_image(data).tobytes()
    for source in (str(path), path, io.BytesIO(data), bytearray(data), memoryview(data)):
        assert open_image(source).tobytes() == expected
    with path.open("rb") as file:
        assert open_image(file).tobytes() == expected
    with path.open("rb", buffering=0) as file:
        assert open_image(file).tobytes() == expected
    assert read_bytes(path) == data


@pytest.mark.parametrize("name", ["picture.txt", "picture.svg", "picture.png", "picture"])
def test_format_is_detected_from_content_not_from_the_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(encode(picture(), "JPEG", quality=95))
    assert difference(open_image(path), picture()) < 3


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9"/>', "SVG"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        (b"8BPS\0\1" + bytes(40), "PSD"),
        (b"a text of some words, and nothing else", "text"),
        (encode(picture(), "ICO"), "ICO"),
        (encode(picture(), "EPS"), "EPS"),
        (encode(picture(), "JPEG2000"), "JPEG 2000"),
        (encode(picture(), "PPM"), "PNM"),
        (encode(picture(), "TGA"), "TGA"),
        (encode(picture(), "TGA", compression="tga_rle"), "TGA"),
        (encode(picture(), "PCX"), "PCX"),
        (encode(picture(), "DDS"), "DDS"),
        (encode(picture(), "ICNS"), "ICNS"),
        (b"\xff\x0a\xfa\x7f\x02" + bytes(40), "JPEG XL"),
        (b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a" + bytes(40), "JPEG XL"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40), "RAW photograph, Canon CR3"),
        (b"FUJIFILMCCD-RAW 0201FF129502X-T30" + bytes(40), "RAW photograph, Fujifilm RAF"),
        (b"IIRO\x08\0\0\0" + bytes(40), "RAW photograph, Olympus ORF"),
        (b"IIU\0\x18\0\0\0" + bytes(40), "RAW photograph, Panasonic RW2"),
        (b"gimp xcf v011\0" + bytes(40), "XCF"),
        (b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/x-krita", "Krita"),
        (b"PK\x03\x04" + bytes(26) + b"names.txt", "ZIP"),
        (b"v/1\x01\2\0\0\0channels\0chlist\0", "OpenEXR"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 2\n", "Radiance HDR"),
        (bytes(128) + b"DICM\2\0\0\0UL", "DICOM"),
        (b"SIMPLE  =                    T / conforms", "FITS"),
        (b"\x1aE\xdf\xa3\x01\0\0\0\0\0\0\x1fB\x86", "Matroska or WebM"),
        (b"RIFF\x24\0\0\0AVI LIST", "AVI video"),
        (b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(8), "EMF"),
        (b"\xd7\xcd\xc6\x9a\0\0" + bytes(16), "WMF"),
    ],
)
def test_unsupported_formats_are_refused_by_name(tmp_path, data, found):
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    message = refused(path, "picture.jpg", "JPEG, PNG, WebP, GIF, BMP, TIFF", "are accepted")
    assert f"found: {found}" in message if found else "found" not in message
    assert str(tmp_path) not in message
    assert "save" in message or "export" in message or "unpack" in message or found in ("", "text")


PREVIEW = {254: 1, 330: 8, 271: b"NIKON CORPORATION\0"}


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        (PREVIEW, "Nikon NEF"),
        (PREVIEW | {271: b"SONY\0"}, "Sony ARW"),
        (PREVIEW | {271: b"SAMSUNG\0"}, "Samsung SRW"),
        (PREVIEW | {271: b"PENTAX \0"}, "Pentax PEF"),
        (PREVIEW | {271: b"Hasselblad\0"}, "of a camera"),
        (PREVIEW | {50706: b"\1\4\0\0"}, "DNG"),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_raw_photograph_is_refused_by_name_and_not_opened_as_its_preview(tags, kind, order):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert open_image(tiff_of(grey[..., None], 1, order)).size == (8, 8)
    message = refused(tiff_of(grey[..., None], 1, order, **{f"t{number}": value for number, value in tags.items()}))
    assert f"is a RAW photograph ({kind})" in message
    assert "export it as a JPEG" in message


def cr2(mark=b"CR\2\0", start=16):
    """A Canon CR2 as Canon writes it, up to its first directory: a JPEG preview, and the place of the raw directory."""
    head = struct.pack("<2sHI4sI", b"II", 42, start, mark, 16 + 2 + 12 * 8)
    values = {256: 64, 257: 64, 259: 6, 262: 6, 271: 0, 273: 0, 279: 0, 278: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    return head.ljust(start, b"\0") + struct.pack("<H", len(values)) + entries + bytes(64)


def test_canon_cr2_is_refused_by_name():
    assert "is a RAW photograph (Canon CR2)" in refused(cr2())
    for other in (cr2(b"CR\3\0"), cr2(b"\0\0\0\0"), cr2(start=24)):
        assert "RAW" not in refused(other)
    grey = np.frombuffer(b"CR\2\0" + bytes(60), np.uint8).reshape(8, 8)  # pixels that read like the mark
    assert open_image(tiff_of(grey[..., None], 1)).size == (8, 8)


@pytest.mark.parametrize(
    ("maker", "kind"),
    [
        (b"PENTAX Corporation \0", "Pentax PEF"),
        (b"RICOH IMAGING COMPANY, LTD.  \0", "Pentax PEF"),
        (b"SAMSUNG\0", "Samsung SRW"),
        (b"SONY \0", "Sony ARW"),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_values_of_a_sensor_in_the_first_page_are_refused_by_the_name_of_their_maker(maker, kind, order):
    sensor = np.zeros((8, 8, 1), np.uint16)
    message = refused(tiff_of(sensor, 32803, order, t271=maker), f"is a RAW photograph ({kind})", "export it as a JPEG")
    assert "preview" not in message
    assert open_image(tiff_of(sensor, 1, order, t271=maker)).size == (8, 8)  # a scan by the program of a camera


def test_what_other_formats_look_like_is_compiled_when_it_is_loaded():
    assert all(isinstance(pattern, re.Pattern) for _, pattern, _ in SIGNATURES)


def test_tiff_with_smaller_copies_of_its_picture_opens():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    for tags in ({"t254": 0, "t330": 8}, {"t330": 8}, {"t254": 1}, {"t50706": b"\1\4\0\0"}):
        assert open_image(tiff_of(grey, 1, **tags)).size == (8, 8)


def test_decoders_of_unsupported_formats_are_never_called(monkeypatch):
    Image.init()
    asked = []
    for kind, (factory, accept) in Image.OPEN.items():

        def spy(*args, kind=kind, factory=factory):
            asked.append(kind)
            return factory(*args)

        monkeypatch.setitem(Image.OPEN, kind, (spy, accept))
    for kind in ("PNG", "PPM", "ICO", "TGA", "EPS", "PCX", "JPEG2000", "MPO", "DDS"):
        with nullcontext() if kind in ("PNG", "MPO") else pytest.raises(ImageError):
            decode_here(encode(picture(), kind))
    assert asked == ["PNG", "JPEG"]


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "options"), [("JPEG", {}), ("PNG", {}), ("WEBP", {}), ("TIFF", {}), ("AVIF", {})])
def test_exif_orientation_is_applied_once(kind, options, orientation):
    # Stored as a camera does: the upright image, transformed by the inverse of the tag.
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    stored = picture() if inverse is None else picture().transpose(Image.Transpose(inverse))
    if kind in ("JPEG", "WEBP", "AVIF"):
        options = {"quality": 95}
    opened = open_image(encode(stored, kind, exif=exif(orientation), **options))
    assert difference(opened, picture()) < 4
    assert opened.getexif().get(ExifTags.Base.Orientation) is None


def test_orientation_of_a_compressed_tiff_is_applied_once():
    stored = picture().transpose(Image.Transpose.ROTATE_90)
    assert difference(open_image(encode(stored, "TIFF", exif=exif(6), compression="tiff_lzw")), picture()) == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "block", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_exif_is_ignored(kind, block):
    opened = open_image(encode(picture(), kind, exif=block))
    assert difference(opened, picture()) < 4


# Transparency


def test_transparent_pixels_are_blended_over_white():
    colours = [(200, 100, 0, 255), (200, 100, 0, 128), (200, 100, 0, 0), (0, 0, 0, 51)]
    image = Image.new("RGBA", (4, 1))
    image.putdata(colours)
    expected = [[round(c * a / 255 + 255 * (1 - a / 255)) for c in rgb] for *rgb, a in colours]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        opened = np.asarray(open_image(encode(image, kind, **options)))
        assert np.abs(opened[0].astype(int) - expected).max() <= 1, kind


def test_grey_with_alpha_is_blended_over_white():
    image = Image.new("LA", (3, 1))
    image.putdata([(40, 255), (40, 0), (40, 102)])
    assert np.asarray(open_image(encode(image, "PNG")))[0].tolist() == [[40] * 3, [255] * 3, [169] * 3]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255]), bytes([255, 0])])
@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entry_becomes_white(kind, transparency):
    if kind == "GIF" and isinstance(transparency, bytes):
        transparency = 1
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    opened = np.asarray(open_image(encode(image, kind, transparency=transparency)))
    assert opened[0].tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]


def test_half_transparent_palette_entry_is_blended_over_white():
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 100, 100, 100])
    image.putdata([0, 1])
    opened = np.asarray(open_image(encode(image, "PNG", transparency=bytes([51, 255]))))
    assert opened[0].tolist() == [[204] * 3, [100] * 3]


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key", "expected"),
    [
        (1, 0, b"\x40", ">H 1", [0, 255, 0]),  # pixels 0, 1, 0; 1 is white anyway
        (1, 0, b"\x40", ">H 0", [255, 255, 255]),
        (2, 0, b"\x18", ">H 1", [0, 255, 170]),  # pixels 0, 1, 2 of 3
        (4, 0, b"\x09\x30", ">H 9", [0, 255, 51]),  # pixels 0, 9, 3 of 15
        (8, 0, b"\x07\x09\x08", ">H 9", [7, 255, 8]),
        (16, 0, b"\x10\x10\x20\x20\x20\x21", ">H 8224", [16, 255, 32]),  # the last two differ only in the lower byte
        (8, 2, b"\1\1\1\2\2\2\3\3\3", ">HHH 2", [1, 255, 3]),
        (16, 2, b"\1\0" * 3 + b"\2\0" * 3 + b"\3\0" * 3, ">HHH 512", [1, 255, 3]),
    ],
)
def test_transparent_colour_becomes_white_at_every_bit_depth(depth, colour, row, key, expected):
    layout, value = key.split()
    chunk = struct.pack(layout, *[int(value)] * layout.count("H"))
    opened = np.asarray(open_image(png(3, 1, depth, colour, [row], (b"tRNS", chunk))))
    assert opened[0].tolist() == [[level] * 3 for level in expected]


def test_premultiplied_alpha_is_blended_over_white():
    data = bytes([100, 50, 0, 128, 20, 20, 20, 255])
    tags = {256: 2, 257: 1, 258: 8, 259: 1, 262: 2, 273: 8, 277: 4, 278: 1, 279: len(data), 338: 1}
    opened = np.asarray(open_image(tiff(tags, data))).astype(int)
    assert np.abs(opened[0] - [[227, 177, 127], [20, 20, 20]]).max() <= 2


# Depth


def test_16_bit_is_scaled_and_not_clipped():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for kind in ("PNG", "TIFF"):
        opened = np.asarray(open_image(encode(Image.fromarray(ramp), kind)))
        assert np.array_equal(opened[..., 0].ravel(), np.rint(np.arange(65536) / 257).astype(np.uint8))
        assert np.array_equal(opened[..., 0], opened[..., 2])


def test_16_bit_is_read_in_both_byte_orders():
    values = np.array([[0, 257, 25700, 65535]])
    tags = {256: 4, 257: 1, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 8}
    little = tiff(tags, values.astype("<u2").tobytes())
    big = encode(Image.fromarray(values.astype(">u2")), "TIFF")
    for data in (little, big):
        assert np.asarray(open_image(data))[0, :, 1].tolist() == [0, 1, 100, 255]


def test_12_bit_tiff_is_scaled_to_the_full_range():
    data = bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x01])  # 0, 4095, 2048, 1
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(data)}
    assert np.asarray(open_image(tiff(tags, data)))[0, :, 0].tolist() == [0, 255, 128, 0]


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_png_with_colour_or_alpha_is_scaled(channels):
    level = np.linspace(0, 65535, 300)
    grey = channels < 3
    pixels = np.stack([level] * (1 if grey else 3) + [np.full(300, 65535)] * (channels % 2 == 0), axis=-1)
    data = png(300, 3, 16, {2: 4, 3: 2, 4: 6}[channels], [pixels.astype(">u2").tobytes()] * 3)
    opened = np.asarray(open_image(data)).astype(int)[0]
    assert np.abs(opened - (level / 257)[:, None]).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.25, 0.5, 1.0]], np.float32), [0, 64, 128, 255]),  # in [0, 1]: multiplied by 255
        (np.array([[0.1, 0.2, 0.2, 0.3]], np.float32), [26, 51, 51, 77]),
        (np.array([[-1.0, 0.0, 1.0, 3.0]], np.float32), [0, 64, 128, 255]),  # otherwise scaled from minimum to maximum
        (np.array([[-3e38, 0, 0, 3e38]], np.float32), [0, 128, 128, 255]),
        (np.array([[np.nan, 0.0, 1.0, np.inf]], np.float32), [0, 0, 255, 255]),
        (np.array([[-np.inf, 10.0, 20.0, np.nan]], np.float32), [0, 0, 255, 0]),
        (np.array([[np.nan, np.nan, np.inf, -np.inf]], np.float32), [0, 0, 0, 0]),
        (np.array([[7.0, 7.0, 7.0, 7.0]], np.float32), [0, 0, 0, 0]),
        (np.array([[-1000, 0, 1000, 3000]], np.int32), [0, 64, 128, 255]),
        (np.array([[-(2**31), 0, 2**31 - 1, 0]], np.int32), [0, 128, 255, 128]),
        (np.array([[2**30, 2**30 + 51, 2**30 + 255, 2**30]], np.int32), [0, 51, 255, 0]),
    ],
)
def test_32_bit_is_scaled_and_not_clipped(values, expected):
    opened = np.asarray(open_image(encode(Image.fromarray(values), "TIFF")))
    assert opened[0, :, 0].tolist() == expected


def test_float_gradient_stays_monotonic():
    ramp = np.linspace(-5, 70000, 4096, dtype=np.float32).reshape(64, 64)
    level = np.asarray(open_image(encode(Image.fromarray(ramp), "TIFF")))[..., 0].ravel().astype(int)
    assert np.diff(level).min() >= 0
    assert len(np.unique(level)) == 256


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {"compression": "group4"})])
def test_1_bit_image_becomes_black_and_white(kind, options):
    image = picture().convert("1")
    assert np.array_equal(
        np.asarray(open_image(encode(image, kind, **options)))[..., 0], np.asarray(image).astype(np.uint8) * 255
    )


# Colour


def adobe_like():
    """An RGB profile that is not sRGB: sRGB with its red and green columns swapped."""
    table = {SRGB[132 + 12 * i : 136 + 12 * i]: 132 + 12 * i for i in range(struct.unpack(">I", SRGB[128:132])[0])}
    profile = bytearray(SRGB)
    red, green = table[b"rXYZ"], table[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def grey_profile(gamma=1.0):
    """A grey profile made by hand (version 2), with D50 as the white point and one gamma."""
    curve = struct.pack(">4sIIH", b"curv", 0, 1, round(gamma * 256)) + bytes(2)
    white = struct.pack(">4sIiii", b"XYZ ", 0, 63190, 65536, 54061)
    tags = struct.pack(">I", 2) + struct.pack(">4sII4sII", b"kTRC", 156, len(curve), b"wtpt", 172, len(white))
    head = struct.pack(">I4sI4s4s4s12s4s", 192, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ", bytes(12), b"acsp")
    head += bytes(68 - len(head)) + struct.pack(">iii", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + tags + curve + white


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_embedded_colour_profile_is_applied(kind):
    options = {"quality": 95} if kind in ("JPEG", "WEBP", "AVIF") else {}
    opened = open_image(encode(picture(), kind, icc_profile=adobe_like(), **options))
    red, green, blue = picture().split()
    # Red and green are swapped in the profile, and therefore in the opened image.
    assert difference(opened, Image.merge("RGB", (green, red, blue))) < 4
    assert "icc_profile" not in opened.info


def test_srgb_profile_changes_no_pixel():
    assert open_image(encode(picture(), "PNG", icc_profile=SRGB)).tobytes() == picture().tobytes()


def test_colour_profile_and_alpha_are_both_applied():
    image = Image.new("RGBA", (3, 1))
    image.putdata([(250, 10, 30, 255), (250, 10, 30, 0), (250, 10, 30, 128)])
    opened = np.asarray(open_image(encode(image, "PNG", icc_profile=adobe_like()))).astype(int)
    assert np.abs(opened[0] - [[10, 250, 30], [255, 255, 255], [132, 252, 142]]).max() <= 2


def test_grey_colour_profile_is_applied():
    image = Image.new("L", (2, 1), 55)  # linear 55 / 255 = 0.2157, which is 0.5020 * 255 = 128 in sRGB
    for kind in ("PNG", "TIFF"):
        opened = np.asarray(open_image(encode(image, kind, icc_profile=grey_profile()))).astype(int)
        assert np.abs(opened - 128).max() <= 1


@pytest.mark.parametrize(
    ("image", "profile"),
    [
        (picture(), b"not a profile"),
        (picture(), SRGB[:200]),
        (picture(), grey_profile()),
        (picture().convert("L"), SRGB),
        (picture().convert("L"), b"\0"),
        (picture().convert("CMYK"), SRGB),
    ],
)
def test_broken_or_mismatched_profile_is_ignored(image, profile):
    opened = open_image(encode(image, "TIFF", icc_profile=profile))
    assert opened.tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize(("kind", "tolerance"), [("JPEG", 4), ("TIFF", 0)])
def test_cmyk_without_a_profile_is_converted_to_rgb(kind, tolerance):
    image = picture().convert("CMYK")
    options = {"quality": 98} if kind == "JPEG" else {}
    assert difference(open_image(encode(image, kind, **options)), picture()) <= tolerance


def cmyk_profile():
    """A CMYK profile made by hand (version 2, lut8): no ink is Lab white, and the other colours come from a 2-point
    grid in which only black ink reduces the lightness."""
    identity = bytes(range(256))
    grid = b"".join(bytes((0 if i & 1 else 255, 128, 128)) for i in range(16))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + matrix + identity * 4 + grid + identity * 3
    lut += bytes(-len(lut) % 4)
    size = 128 + 4 + 12 + len(lut)
    head = struct.pack(">I4sI4s4s4s12s4s", size, b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp")
    head += bytes(68 - len(head)) + struct.pack(">iii", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_profile_is_applied(kind):
    # Cyan has no effect in this profile, so a cyan image becomes white only if the profile is applied.
    for ink, expected in (((255, 0, 0, 0), 255), ((0, 0, 0, 255), 0)):
        image = Image.new("CMYK", (8, 8), ink)
        opened = np.asarray(open_image(encode(image, kind, icc_profile=cmyk_profile()))).astype(int)
        assert np.abs(opened - expected).max() <= 2


def test_lab_is_converted_to_rgb():
    lab = ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(picture(), ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    assert difference(open_image(encode(image, "TIFF")), picture()) < 3


def test_ycbcr_is_converted_to_rgb():
    assert difference(open_image(encode(picture().convert("YCbCr"), "TIFF", compression="tiff_lzw")), picture()) < 3


# Truncation

CUTS = {
    "jpeg": ("JPEG", {}),
    "jpeg-progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "webp-lossless": ("WEBP", {"lossless": True}),
    "webp-exif": ("WEBP", {"exif": exif(6)}),
    "gif": ("GIF", {"interlace": False}),
    "gif-interlaced": ("GIF", {"interlace": True}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff-deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff-jpeg": ("TIFF", {"compression": "jpeg"}),
    "avif": ("AVIF", {}),
}


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("lenient", [False, True])
def test_truncated_file_is_refused(monkeypatch, name, lenient):
    kind, options = CUTS[name]
    data = encode(noise(), kind, **options)
    open_image(data)
    # Another library in the process may have set this; a broken image must still be refused.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    for share in (0.01, 0.1, 0.3, 0.6, 0.9, 0.99):
        refused(data[: int(len(data) * share)], by=decode_here if lenient else open_image)
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)


@pytest.mark.parametrize("name", CUTS)
def test_file_without_its_last_bytes_is_refused_or_unchanged(name):
    kind, options = CUTS[name]
    data = encode(noise(40, 30), kind, **options)
    whole = open_image(data).tobytes()
    for missing in range(1, 40):
        try:
            opened = open_image(data[:-missing])
        except ImageError:
            continue
        assert opened.tobytes() == whole, f"{missing} bytes short"


def test_png_truncated_between_or_inside_idat_chunks_is_refused():
    data = encode(noise(300, 300), "PNG")
    starts = [i for i in range(len(data)) if data.startswith(b"IDAT", i)]
    assert len(starts) > 2
    for start in starts[1:]:
        refused(data[: start - 4], "PNG")  # after a whole chunk
        refused(data[: start + 500], "PNG")  # inside the next
        refused(data[: start - 4] + data[-12:], "PNG")  # chunks are missing, but the end chunk is there


def test_truncated_run_length_bmp_is_refused():
    data = bmp(64, 64, 8, 1, b"".join(bytes((32, i, 32, 255 - i, 0, 0)) for i in range(64)) + b"\0\1")
    opened = np.asarray(open_image(data))
    assert opened[-1, 0].tolist() == [0] * 3  # rows are stored from the bottom up
    assert opened[0, 63].tolist() == [255 - 63] * 3
    for share in (0.3, 0.6, 0.9, 0.99):
        refused(data[: int(len(data) * share)])


# Empty files, and files that are too large


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"hello", bytes(1000), b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"]
)
def test_empty_and_garbage_data_are_refused(data):
    refused(data)
    refused(io.BytesIO(data))


def test_corrupted_file_is_refused_or_opened_in_every_format():
    generator = np.random.default_rng(1)
    for kind in FORMATS:
        data = bytearray(encode(noise(24, 16), kind))
        for _ in range(60):
            broken = bytearray(data)
            for place in generator.integers(4, len(data), 6):
                broken[place] = generator.integers(256)
            try:
                opened = open_image(bytes(broken))
            except ImageError:
                continue
            assert opened.mode == "RGB"
            assert opened.width * opened.height <= MAX_PIXELS


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_images_without_pixels_are_refused(size):
    refused(png(*size, 8, 2, []))
    refused(
        struct.pack("<6sHHBBB", b"GIF89a", *size, 0, 0, 0) + b",\0\0\0\0" + struct.pack("<HHB", *size, 0) + b"\2\0;"
    )
    refused(bmp(*size, 24, 0, b""))


BOMBS = {
    "png 30000 x 30000": png(30000, 30000, 8, 2, [bytes(90000)] * 10),
    "png 2^31 x 2^31": png(2**31 - 1, 2**31 - 1, 8, 2, []),
    "png of 150 million": png(15_000, 10_000, 8, 2, []),  # between the limits at which Pillow warns and raises
    "gif canvas": struct.pack("<6sHHBBB", b"GIF89a", 60000, 60000, 0x80, 0, 0)
    + bytes(6)
    + struct.pack("<BHHHHB", 0x2C, 0, 0, 1, 1, 0)
    + b"\2\2\x44\1\0;",
    "gif frame over its canvas": struct.pack("<6sHHBBB", b"GIF89a", 10, 10, 0x80, 0, 0)
    + bytes(6)
    + struct.pack("<BHHHHB", 0x2C, 0, 0, 60000, 60000, 0)
    + b"\2\2\x44\1\0;",
    "tiff": tiff({256: 50000, 257: 50000, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 50000, 279: 1}, b"\0" * 8),
    "bmp": bmp(30000, 30000, 24, 0, b""),
    "webp": encode(Image.new("RGB", (6000, 6000)), "WEBP", lossless=True, quality=0, method=0),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("action", ["ignore", "error"])
def test_decompression_bomb_is_refused_by_its_header(name, action):
    warnings.simplefilter(action)  # pytest puts the filters back after each test
    refused(BOMBS[name], "pixels", f"{MAX_PIXELS:,}", by=decode_here if action == "error" else open_image)


def test_small_tiff_with_one_huge_tile_is_refused():
    side = 2**15
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: 8}
    refused(tiff(tags, bytes(8)), "MiB of memory", "save it as a JPEG")
    small = zlib.compress(bytes(range(256)))
    assert open_image(tiff(tags | {322: 16, 323: 16, 325: len(small)}, small)).getpixel((15, 15)) == (255, 255, 255)


def test_image_over_the_pixel_limit_is_opened_at_half_its_size():
    side = int(MAX_PIXELS**0.5)
    assert side * side == MAX_PIXELS
    assert open_image(encode(Image.new("1", (side, side)), "PNG")).size == (side, side)
    assert open_image(encode(Image.new("1", (side, side + 2)), "PNG")).size == (side // 2, side // 2 + 1)


def test_aspect_ratio_is_limited_to_100_to_1():
    for size in ((MAX_ASPECT * 3, 3), (3, MAX_ASPECT * 3)):
        assert open_image(encode(Image.new("RGB", size), "PNG")).size == size
    for size in ((MAX_ASPECT * 3 + 1, 3), (3, MAX_ASPECT * 3 + 1)):
        refused(encode(Image.new("RGB", size), "PNG"), f"{size[0]} x {size[1]}", "100:1")


def test_files_over_64_mib_are_refused(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.write(encode(picture(), "PNG"))
        file.truncate(MAX_BYTES + 1)  # a sparse file: it takes no disk space
    assert refused(path) == "large.png is too large; at most 64 MiB are accepted"
    with path.open("rb") as file:
        refused(file, "large.png", "64 MiB")
        assert file.tell() <= MAX_BYTES + 1
    refused(io.BytesIO(bytes(MAX_BYTES + 1)), "64 MiB")
    refused(bytes(MAX_BYTES + 1), "64 MiB")
    os.truncate(path, MAX_BYTES)
    assert open_image(path).size == picture().size


def test_endless_stream_is_read_only_up_to_the_size_limit():
    class Endless(io.RawIOBase):
        given = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            self.given += len(buffer)
            return len(buffer)

    endless = Endless()
    refused(endless, "64 MiB")
    assert endless.given == MAX_BYTES + 1


# Not regular files


def test_missing_file_is_refused_by_name(tmp_path):
    assert refused(tmp_path / "gone.jpg") == "gone.jpg: no such file"
    refused(tmp_path / "no" / "folder.jpg", "no such file")


def test_folders_fifos_and_devices_are_not_opened(tmp_path):
    refused(tmp_path, "is a folder")
    refused("", "is a folder")  # pathlib takes this for the working directory
    fifo = tmp_path / "pipe.jpg"
    os.mkfifo(fifo)  # opening it would wait forever for a writer
    assert refused(fifo) == "pipe.jpg is not a regular file"
    refused("/dev/zero", "zero is not a regular file")
    with pytest.raises(ImageError, match="not a regular file"):
        read_bytes(fifo)


def test_symlink_is_followed_and_a_loop_is_refused(tmp_path):
    (tmp_path / "picture.png").write_bytes(encode(picture(), "PNG"))
    (tmp_path / "link").symlink_to("picture.png")
    assert open_image(tmp_path / "link").size == picture().size
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / "loop", "loop cannot be read")


@pytest.mark.parametrize("name", ["a\0b.png", "a" * 5000, "a\nb.png", "a\udcffb.png"])
def test_odd_file_names_are_refused_with_a_one_line_error(tmp_path, name):
    message = refused(f"{tmp_path}/{name}")
    assert str(tmp_path) not in message
    assert message.isprintable()
    assert len(message) < 200


def test_text_mode_and_closed_files_are_refused(tmp_path):
    refused(io.StringIO("text"), "binary")
    path = tmp_path / "closed.png"
    path.write_bytes(encode(picture(), "PNG"))
    with path.open("rb") as file:
        pass
    refused(file, "closed.png cannot be read")


# Threads


def test_several_threads_open_the_same_images():
    sources = [encode(picture(), kind) for kind in FORMATS]
    sources += [encode(picture(), "PNG", icc_profile=profile) for profile in (adobe_like(), SRGB, b"broken")]
    sources += [encode(Image.new("CMYK", (300, 300), (9, 8, 7, 6)), "TIFF", icc_profile=cmyk_profile())]
    expected = [open_image(source).tobytes() for source in sources]
    with ThreadPoolExecutor(8) as pool:
        for way in (open_image, decode_here):
            assert [opened.tobytes() for opened in pool.map(way, sources * 20)] == expected * 20
        shared = picture()
        assert len(set(pool.map(lambda _: thumbnail_jpeg(shared, 500), range(100)))) == 1


# Thumbnails


@pytest.mark.parametrize(
    ("size", "longer_side", "expected"),
    [
        ((960, 640), 256, (256, 171)),
        ((640, 960), 256, (171, 256)),
        ((96, 64), 256, (96, 64)),
        ((256, 256), 256, (256, 256)),
        ((3000, 30), 50, (50, 1)),
    ],
)
def test_thumbnails_keep_the_aspect_ratio_and_are_never_enlarged(size, longer_side, expected):
    data = thumbnail_jpeg(picture(*size), longer_side)
    small = Image.open(io.BytesIO(data))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", expected)
    assert difference(open_image(data), picture(*size).resize(expected, Image.Resampling.BOX)) < 5


def test_thumbnails_carry_no_metadata_and_do_not_change_the_image():
    image = Image.open(io.BytesIO(encode(picture(), "JPEG", comment=b"secret", exif=exif(6), icc_profile=SRGB)))
    image.load()
    before = image.tobytes()
    for side in (32, 500):
        data = thumbnail_jpeg(image, side)
        assert b"secret" not in data
        assert b"Exif" not in data
        assert b"ICC_PROFILE" not in data
    assert image.size == (96, 64)
    assert image.tobytes() == before


def test_thumbnail_quality_changes_the_file_size():
    assert len(thumbnail_jpeg(noise(), quality=95)) > 2 * len(thumbnail_jpeg(noise(), quality=30))


# The hostile folder


HARMLESS = {"pil__Tests__images__truncated_jpeg.jpg", "pil__Tests__images__png_decompression_dos.png"}


@needs_hostile
def test_hostile_files_are_opened_or_refused_as_expected():
    opened, refusals = [], []
    for path in sorted(HOSTILE.iterdir()):
        try:
            image = open_image(path)
        except ImageError as error:
            assert str(error).startswith(path.name[:40])
            assert str(error).isprintable()
            assert str(HOSTILE) not in str(error)
            refusals.append(path.name)
        else:
            assert image.mode == "RGB"
            assert 0 < image.width * image.height <= MAX_PIXELS
            assert max(image.size) <= MAX_ASPECT * min(image.size)
            opened.append(path.name)
    # Listed here so that the test fails when a change in Pillow or in the rules opens or refuses other files.
    for suffix in (".psd", ".ico", ".cur", ".tga", ".dds", ".fli", ".pcx", ".qoi", ".jp2", ".emf"):
        assert not [name for name in opened if name.endswith(suffix)]
    for suffix in (".webp", ".avif"):
        assert not [name for name in refusals if name.endswith(suffix)]
    for part in ("broken_data_stream", "crash-", "oom-", "reallybig"):
        assert [name for name in refusals if part in name]
        assert not [name for name in opened if part in name]
    # A JPEG without its end marker and a PNG with a huge text open everywhere.
    assert set(opened) >= HARMLESS


@needs_hostile
def test_photos_in_all_exif_orientations_look_alike():
    upright = open_image(HOSTILE / "exif__Landscape_1.jpg")
    for number in range(9):
        assert difference(open_image(HOSTILE / f"exif__Landscape_{number}.jpg"), upright) < 6


@needs_hostile
def test_4_bit_grey_with_transparency_matches_its_reference():
    """The reference is a farbfeld file, a very simple format: a header of 16 bytes, then 16-bit RGBA."""
    pixels = (HOSTILE / "irs__tests__images__farbfeld__transparency__tbbn0g04.ff").read_bytes()[16:]
    reference = np.frombuffer(pixels, ">u2").reshape(32, 32, 4) / 65535
    linear = reference[..., :3]  # the file's gAMA is 1.0, and farbfeld holds its numbers as they are
    colour = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    expected = 255 * (colour * reference[..., 3:] + 1 - reference[..., 3:])
    opened = np.asarray(open_image(HOSTILE / "irs__tests__images__png__transparency__tbbn0g04.png"))
    assert np.abs(opened - expected).max() <= 1


def test_jpeg_can_be_decoded_at_a_smaller_size():
    file = io.BytesIO()
    picture(400, 260).save(file, "JPEG", quality=95)
    whole, small = open_image(file.getvalue()), open_image(file.getvalue(), at_least=48)
    assert (whole.size, small.size) == ((400, 260), (100, 65))
    shrunk = whole.resize(small.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(shrunk, int) - np.asarray(small, int)).mean() < 3
    assert open_image(file.getvalue(), at_least=261).size == (400, 260)


# A region of an image


def test_region_is_cropped_to_whole_pixels():
    pixels = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    picture = Image.fromarray(pixels)
    for region, rows, columns in [
        ((0, 0, 1, 1), slice(0, 10), slice(0, 20)),
        ([0.25, 0.5, 0.75, 1.0], slice(5, 10), slice(5, 15)),
        ((np.float32(0.5), 0.0, 1, 0.1), slice(0, 1), slice(10, 20)),
        ((0.99, 0.99, 1, 1), slice(9, 10), slice(19, 20)),
        ((0.5 - 1e-12, 0.2 - 1e-12, 1, 1), slice(2, 10), slice(10, 20)),
        ((0, 0, 1e-9, 1e-9), slice(0, 1), slice(0, 1)),
        ((1 - 1e-12, 0, 1, 1e-300), slice(0, 1), slice(19, 20)),
    ]:
        assert np.array_equal(np.asarray(crop(picture, region)), pixels[rows, columns])
    assert as_region([0, 0, 1, 1]) == (0.0, 0.0, 1.0, 1.0)
    assert crop(Image.new("RGB", (1, 1)), (0.9, 0, 1, 0.1)).size == (1, 1)


@pytest.mark.parametrize(
    "value",
    [None, 5, "0011", b"0011", [], [0, 0, 1], [0, 0, 1, 1, 1], [0, 0, 1, 2], [-0.1, 0, 1, 1], [0.5, 0, 0.5, 1],
     [1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 1, math.nan], [0, 0, math.inf, 1], [0, 0, 1, 10**400], [False, False, True, 1],
     ["0", "0", "1", "1"], [[0], 0, 1, 1], {"left": 0}, {0, 0.5, 1}, [0] * 10**6],
)  # fmt: skip
def test_invalid_region_is_refused_with_a_short_error(value):
    with pytest.raises(
        ImageError, match=r"a region must be \[left, top, right, bottom\], as fractions of the picture"
    ) as raised:
        crop(Image.new("RGB", (9, 9)), value)
    assert len(str(raised.value)) < 250


def test_damaged_fax_shows_nothing_of_what_lay_in_memory():
    grey = np.random.default_rng(0).random((1200, 1000)) > 0.5
    whole = bytearray(encode(Image.fromarray(grey.astype(np.uint8) * 255).convert("1"), "TIFF", compression="group4"))
    unclear = 0
    for seed in (7, 13, 14, 20):
        chance, data = random.Random(seed), bytearray(whole)
        for _ in range(20):
            data[chance.randrange(8, len(data) - 400)] = chance.randrange(256)
        shown = set()
        for value in (0, 0x55, 0xFF):
            earlier = [bytes([value]) * size for size in (150_000, 200_000, 4096) * 6]  # as the pictures of others
            del earlier
            shown.add(decode("fax.tif", bytes(data), None).tobytes())
        unclear += len(shown) > 1
    assert unclear == 0
