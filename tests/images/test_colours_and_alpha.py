"""PNG, AVIF, BMP and GIF whose colours or transparency Pillow alone passes over. The files are made here; the expected
values were read from them with Chromium 156, and with libheif 1.15 for the clean aperture of AVIF, which Chromium
passes over."""

import io
import struct
import zlib

import numpy as np
import pytest
from picture_files import bmp, png
from PIL import Image, ImageCms

from retrieval.errors import ImageError
from retrieval.images.open import open_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOURS = [[0, 0, 0], [64, 128, 192], [200, 100, 50], [255, 255, 255]]
LINEAR = [[0, 0, 0], [137, 188, 225], [229, 168, 122], [255, 255, 255]]
DISPLAY_P3 = [[0, 0, 0], [32, 130, 197], [215, 93, 31], [255, 255, 255]]
PQ = [[0, 0, 0], [0, 87, 255], [255, 0, 0], [255, 255, 255]]
HLG = [[0, 0, 0], [0, 102, 176], [230, 48, 17], [255, 255, 255]]


def row(data):
    return np.asarray(open_image(data)).astype(int)[0].tolist()


def close(data, expected, tolerance=1):
    return np.abs(np.array(row(data)) - expected).max() <= tolerance


def gama(gamma):
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


def chrm(*points):
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in points))


def cicp(primaries, transfer, matrix=0, full=1):
    return b"cICP", bytes((primaries, transfer, matrix, full))


P3 = chrm(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
ICCP = (b"iCCP", b"sRGB\0\0" + zlib.compress(SRGB))


def png_of(colours, *chunks, depth=8):
    data = (np.array(colours) * (257 if depth == 16 else 1)).astype(">u2" if depth == 16 else np.uint8).tobytes()
    return png(len(colours), 1, depth, 2, [data], *chunks)


# PNG


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([gama(1)], LINEAR),
        ([gama(1), P3], [[0, 0, 0], [122, 190, 229], [240, 165, 114], [255, 255, 255]]),
        ([gama(0.55556)], [[0, 0, 0], [81, 146, 203], [210, 119, 65], [255, 255, 255]]),
        ([gama(0.45455)], COLOURS),  # what sRGB writers write
        ([gama(0.45455), P3], [[0, 0, 0], [24, 131, 199], [216, 93, 24], [255, 255, 255]]),
        ([P3], COLOURS),  # counts only beside gAMA
        ([gama(0)], COLOURS),
        ([gama(1), chrm(*[0.3] * 8)], COLOURS),
        ([gama(1), (b"sRGB", b"\0")], COLOURS),
        ([gama(1), ICCP], COLOURS),
        ([cicp(1, 13)], COLOURS),
        ([cicp(12, 13)], DISPLAY_P3),
        ([cicp(12, 13), ICCP], DISPLAY_P3),
        ([cicp(12, 13), (b"sRGB", b"\0"), gama(1)], DISPLAY_P3),
        ([cicp(1, 8)], LINEAR),
        ([cicp(9, 16)], PQ),
        ([cicp(9, 18)], HLG),
        ([cicp(2, 2)], COLOURS),
        ([cicp(12, 13, 0, 0)], COLOURS),  # a limited range
    ],
)
def test_png_colour_chunks_are_applied(depth, chunks, expected):
    assert close(png_of(COLOURS, *chunks, depth=depth), expected, 2)


def test_png_colour_chunks_are_applied_in_every_colour_type():
    grey, linear = [0, 64, 128, 255], [[0] * 3, [137] * 3, [188] * 3, [255] * 3]
    wide = b"".join(struct.pack(">H", value * 257) for value in grey)
    palette = (b"PLTE", bytes(np.ravel(COLOURS).tolist()))
    half = bytes(np.ravel([[*colour, 128] for colour in COLOURS]).tolist())
    blended = [[round((value * 128 + 255 * 127) / 255) for value in colour] for colour in LINEAR]
    assert row(png(4, 1, 8, 0, [bytes(grey)], gama(1))) == linear
    assert row(png(4, 1, 16, 0, [wide], gama(1))) == linear
    assert row(png(4, 1, 16, 0, [wide], cicp(12, 13))) == [[value] * 3 for value in grey]
    assert close(png(4, 1, 8, 3, [bytes(range(4))], gama(1), palette), LINEAR)
    assert close(png(4, 1, 8, 6, [half], gama(1)), blended)
    assert close(png(4, 1, 16, 6, [bytes(byte for byte in half for _ in range(2))], gama(1)), blended)
    both = b"".join(struct.pack(">HH", value * 257, 128 * 257) for value in grey)
    assert close(png(4, 1, 16, 4, [both], gama(1)), [[(v[0] * 128 + 255 * 127) / 255] * 3 for v in linear])


def test_16_bit_linear_png_keeps_its_dark_tones():
    """Its first 8 bits alone have 1 tone between 0 and 13 of sRGB."""
    dark = b"".join(struct.pack(">3H", *[level] * 3) for level in (0, 64, 128, 192, 256))
    assert [pixel[0] for pixel in row(png(5, 1, 16, 2, [dark], gama(1)))] == [0, 3, 6, 10, 13]


def test_transparent_16_bit_colour_is_compared_whole():
    """The colours of the first two pixels differ in the last bit of blue only."""
    pixels = struct.pack(">9H", 4096, 8192, 12288, 4096, 8192, 12289, 0, 0, 0)
    key = (b"tRNS", struct.pack(">3H", 4096, 8192, 12288))
    assert row(png(3, 1, 16, 2, [pixels], key)) == [[255] * 3, [16, 32, 48], [0] * 3]


# XMP


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_in_xmp_alone_turns_nothing(kind):
    image = Image.new("RGB", (6, 4), (200, 100, 50))
    xmp = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><a tiff:Orientation="6"/></x:xmpmeta>'
    file = io.BytesIO()
    if kind == "PNG":
        text = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        file.write(png(6, 4, 8, 2, [bytes([200, 100, 50] * 6)] * 4, text))
    else:
        image.save(file, kind, **({"tiffinfo": {700: xmp}} if kind == "TIFF" else {"xmp": xmp}))
    assert Image.open(io.BytesIO(file.getvalue())).getexif().get(274) == 6
    assert open_image(file.getvalue()).size == (6, 4)
    exif = Image.Exif()
    exif[274] = 6
    if kind not in ("PNG", "TIFF"):
        turned = io.BytesIO()
        image.save(turned, kind, xmp=xmp.replace(b'"6"', b'"1"'), exif=exif)
        assert open_image(turned.getvalue()).size == (4, 6)


# AVIF


def avif(colours, primaries=1, transfer=13, clap=None, irot=0):
    """An AVIF of one colour for each quarter of 64 x 64 pixels; its boxes are changed after it was written."""
    image = Image.new("RGB", (64, 64))
    for number, colour in enumerate(colours):
        image.paste(tuple(colour), (number % 2 * 32, number // 2 * 32, number % 2 * 32 + 32, number // 2 * 32 + 32))
    file = io.BytesIO()
    exif = Image.Exif()
    if irot:
        exif[274] = irot
    image.save(file, "AVIF", quality=100, subsampling="4:4:4", exif=exif)
    data = file.getvalue()
    place = data.index(b"colrnclx")
    data = data[: place + 8] + struct.pack(">HH", primaries, transfer) + data[place + 12 :]
    return data if clap is None else with_property(data, b"clap", struct.pack(">8I", *(n % 2**32 for n in clap)))


def with_property(data, name, content):
    """Add a property to the first item, before its transformations: every box around it grows, and every offset."""
    box = struct.pack(">I4s", 8 + len(content), name) + content
    ipco, ipma = data.index(b"ipco") - 4, data.index(b"ipma") - 4
    count = data[ipma + 18]
    size = struct.unpack(">I", data[ipco : ipco + 4])[0]
    start, properties = ipco + 8, 0
    while start < ipco + size:
        start, properties = start + struct.unpack(">I", data[start : start + 4])[0], properties + 1
    assert (struct.unpack(">I", data[ipma + 12 : ipma + 16])[0], data[ipma + 8], data[ipma + 11] & 1) == (1, 0, 0)
    listed = list(data[ipma + 19 : ipma + 19 + count])
    kinds = [data[at + 4 : at + 8] for at in tops(data, ipco + 8, ipco + size)]
    turns = [index for index in listed if kinds[(index & 127) - 1] in (b"irot", b"imir")]
    new = bytes([*[index for index in listed if index not in turns], 128 | (properties + 1), *turns])
    grown = bytearray(
        data[: ipco + size] + box + data[ipco + size : ipma + 18] + bytes([count + 1]) + new + data[ipma + 19 + count :]
    )
    for around, more in ((b"meta", len(box) + 1), (b"iprp", len(box) + 1), (b"ipco", len(box)), (b"ipma", 1)):
        at = grown.index(around) - 4
        grown[at : at + 4] = struct.pack(">I", struct.unpack(">I", grown[at : at + 4])[0] + more)
    extent = struct.unpack(">I", data[data.index(b"mdat") - 4 : data.index(b"mdat")])[0] - 8
    iloc = grown.index(b"iloc")
    at = grown.index(struct.pack(">II", data.index(b"mdat") + 4, extent), iloc)
    grown[at : at + 4] = struct.pack(">I", data.index(b"mdat") + 4 + len(box) + 1)
    return bytes(grown)


def tops(data, start, end):
    while start < end:
        yield start
        start += struct.unpack(">I", data[start : start + 4])[0]


@pytest.mark.parametrize(
    ("primaries", "transfer", "expected"),
    [
        (1, 13, COLOURS),
        (2, 2, COLOURS),
        (1, 1, COLOURS),  # written by encoders of video for what is sRGB
        (12, 13, DISPLAY_P3),
        (12, 2, DISPLAY_P3),
        (1, 8, LINEAR),
        (9, 16, PQ),
        (9, 18, HLG),
    ],
)
def test_colour_space_of_avif_is_applied(primaries, transfer, expected):
    opened = np.asarray(open_image(avif(COLOURS, primaries, transfer))).astype(int)
    found = np.array([opened[y, x] for y in (16, 48) for x in (16, 48)])
    assert np.abs(found - expected).max() <= 6


@pytest.mark.parametrize("orientation", [0, 3, 6, 8])
def test_clean_aperture_of_avif_is_cut_out_before_it_is_turned(orientation):
    clap = (40, 1, 20, 1, -4, 1, 6, 1)  # 40 x 20, its middle 4 to the left and 6 below that of the picture
    whole = open_image(avif(COLOURS, irot=orientation))
    part = open_image(avif(COLOURS, clap=clap, irot=orientation))
    left, top = 32 - 4 - 20, 32 + 6 - 10
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}.get(orientation)
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(orientation)
    stored = whole.transpose(back) if back is not None else whole
    expected = stored.crop((left, top, left + 40, top + 20))
    expected = expected.transpose(turn) if turn is not None else expected
    assert part.size == ((20, 40) if orientation in (6, 8) else (40, 20))
    assert part.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "clap", [(80, 1, 20, 1, 0, 1, 0, 1), (40, 1, 20, 1, 30, 1, 0, 1), (40, 0, 20, 1, 0, 1, 0, 1),
             (41, 1, 20, 1, 0, 1, 0, 1), (0, 1, 20, 1, 0, 1, 0, 1), (2**31 - 1, 1, 20, 1, 0, 1, 0, 1)]
)  # fmt: skip
def test_clean_aperture_that_makes_no_sense_is_passed_over(clap):
    assert open_image(avif(COLOURS, clap=clap)).size == (64, 64)


# BMP


def test_4_bit_runs_of_an_odd_length_are_read():
    """Three pixels one by one take two bytes; then come a run of five, and five one by one, which take four."""
    palette = [(n * 16, 255 - n * 16, n) for n in range(16)]
    lowest = bytes([0, 3, 0x12, 0x30, 5, 0x45, 0, 0])
    middle = bytes([0, 5, 0x67, 0x89, 0xA0, 0, 0, 2, 1, 0, 2, 0xBC, 0, 0])  # and a step to the right
    data = bmp(8, 3, 4, lowest + middle + b"\0\1", compression=2, palette=palette)
    opened = np.asarray(open_image(data))
    assert opened[2].tolist() == [list(palette[n]) for n in (1, 2, 3, 4, 5, 4, 5, 4)]
    assert opened[1].tolist() == [list(palette[n]) for n in (6, 7, 8, 9, 10, 0, 11, 12)]
    assert opened[0].tolist() == [list(palette[n]) for n in (0,) * 8]


@pytest.mark.parametrize(
    ("bits", "compression", "listed", "expected"),
    [
        (8, 1, bytes([0, 3, 1, 2, 3, 0, 2, 4, 0, 1]), [1, 2, 3, 4, 4]),
        (8, 1, bytes([9, 2, 0, 1]), [2] * 5),  # beyond the row
        (8, 1, bytes([1, 1, 0, 2, 2, 0, 2, 3, 0, 1]), [1, 0, 0, 3, 3]),
        (4, 2, bytes([5, 0x12, 0, 1]), [1, 2, 1, 2, 1]),
        (4, 2, bytes([0, 5, 0x12, 0x34, 0x50, 0, 0, 1]), [1, 2, 3, 4, 5]),
    ],
)
def test_run_length_bmp_is_read(bits, compression, listed, expected):
    palette = [(n * 10, n, 255 - n) for n in range(16)]
    assert row(bmp(5, 1, bits, listed, compression, palette)) == [list(palette[n]) for n in expected]


def test_run_length_bmp_that_stops_early_is_refused():
    for data in (b"", b"\4", b"\4\1", b"\0\5\1\2", b"\5\1\0\0", b"\0\2\1"):
        with pytest.raises(ImageError):
            open_image(bmp(5, 2, 8, data, 1, [(0, 0, 0)] * 16))


@pytest.mark.parametrize(
    ("bits", "masks", "numbers", "expected"),
    [
        (16, (0x7C00, 0x3E0, 0x1F, 0x8000), [0xFC00, 0x7C00, 0x801F], [[255, 0, 0], [255] * 3, [0, 0, 255]]),
        (16, (0xF00, 0xF0, 0xF, 0xF000), [0xFF00, 0x80F0, 0xF555], [[255, 0, 0], [119, 255, 119], [85] * 3]),
        (16, (0xF00, 0xF0, 0xF, 0), [0xF00, 0x80, 0x5], [[255, 0, 0], [0, 136, 0], [0, 0, 85]]),
        (32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000), [0xFFF00000, 0xC00FFC00, 0xC0000200],
         [[255, 0, 0], [0, 255, 0], [0, 0, 128]]),
        (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), [0x00102030, 0x80102030, 0xFF102030],
         [[255] * 3, [135, 143, 151], [16, 32, 48]]),
    ],
)  # fmt: skip
def test_bit_fields_of_bmp_are_read_with_their_alpha(bits, masks, numbers, expected):
    data = struct.pack(f"<{len(numbers)}{'H' if bits == 16 else 'I'}", *numbers)
    opened = row(bmp(3, 1, bits, data.ljust(-(-len(data) // 4) * 4, b"\0"), 3, masks=masks, header=124))
    assert np.abs(np.array(opened) - expected).max() <= 1


def test_profile_of_a_v5_bmp_is_applied():
    profile = bytearray(SRGB)  # with red and green swapped
    table = {SRGB[132 + 12 * i : 136 + 12 * i]: 132 + 12 * i for i in range(struct.unpack(">I", SRGB[128:132])[0])}
    profile[table[b"rXYZ"] : table[b"rXYZ"] + 4], profile[table[b"gXYZ"] : table[b"gXYZ"] + 4] = b"gXYZ", b"rXYZ"
    data = bytes([50, 100, 200, 0])
    assert close(bmp(1, 1, 24, data, header=124, space=b"DEBM", profile=bytes(profile)), [[100, 200, 50]])
    assert row(bmp(1, 1, 24, data, header=124, space=b"BGRs", profile=bytes(profile))) == [[200, 100, 50]]
    assert row(bmp(1, 1, 24, data, header=124, space=b"DEBM", profile=b"broken")) == [[200, 100, 50]]


# GIF


@pytest.mark.parametrize("transparent", [None, 1])
def test_what_a_gif_frame_does_not_cover_is_white(transparent):
    """A frame of 2 x 1 pixels, of colours 0 and 1, in the middle of a canvas of 4 x 3."""
    small = Image.new("P", (2, 1))
    small.putpalette([250, 0, 0, 0, 250, 0])
    small.putdata([0, 1])
    file = io.BytesIO()
    small.save(file, "GIF", optimize=False, **({} if transparent is None else {"transparency": transparent}))
    data = bytearray(file.getvalue())
    data[6:10] = struct.pack("<HH", 4, 3)
    frame = data.index(struct.pack("<BHHHH", 0x2C, 0, 0, 2, 1))
    data[frame + 1 : frame + 5] = struct.pack("<HH", 1, 1)
    expected = np.full((3, 4, 3), 255)
    expected[1, 1:3] = [[250, 0, 0], [0, 250, 0] if transparent is None else [255] * 3]
    assert np.array_equal(np.asarray(open_image(bytes(data))), expected)
