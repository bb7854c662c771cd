"""Pictures of more than 25 million pixels, and the estimate of the memory that decoding takes."""

import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from picture_files import png, tiff, tiff_of
from PIL import Image, ImageDraw

from retrieval.errors import ImageError
from retrieval.images.door.convert import open_data
from retrieval.images.door.formats import HEIC
from retrieval.images.door.limits import MAX_MEMORY, MAX_PIXELS, check_memory, reduction
from retrieval.images.open import open_image

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def halves(width, height, mode="L"):
    """Dark to the left, light to the right."""
    image = Image.new(mode, (width, height), 50)
    image.paste(200, (width // 2, 0, width, height))
    return image


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((8064, 6048), {}, (4032, 3024)),  # a telephone's 48 MP
        ((11648, 8736), {"quality": 50}, (2912, 2184)),  # a medium format camera's 100 MP
    ],
)
def test_photographs_of_48_and_100_megapixels_open_at_a_part_of_their_size(size, options, expected):
    data = encode(halves(*size), "JPEG", **options)
    image = open_image(data)
    assert image.size == expected
    assert image.getpixel((10, 10)) == (50, 50, 50)
    assert image.getpixel((expected[0] - 10, 10)) == (200, 200, 200)
    assert min(open_image(data, at_least=300).size) < min(expected)


def test_photograph_of_200_megapixels_opens_at_a_part_of_its_size_without_a_warning():
    """Made of one row of blocks, repeated: its restart markers let each begin anew."""
    width, height = 20000, 10000
    one = encode(halves(width, 8), "JPEG", restart_marker_rows=1)
    head, row = one[: (scan := one.index(b"\xff\xda") + 10)], one[scan:-2]
    size = head.index(b"\xff\xc0") + 5
    head = head[:size] + struct.pack(">H", height) + head[size + 2 :]
    rows = (row + b"\xff" + bytes((0xD0 + number % 8,)) for number in range(height // 8 - 1))
    image = open_image(head + b"".join(rows) + row + b"\xff\xd9")
    assert (image.size, image.getpixel((9, 2000)), image.getpixel((4990, 9))) == ((5000, 2500), (50,) * 3, (200,) * 3)


def test_a_scanned_page_of_600_dpi_is_opened():
    page = Image.new("1", (4960, 7016), 1)
    ImageDraw.Draw(page).rectangle((1000, 2000, 2000, 3000), fill=0)
    data = encode(page, "TIFF", compression="group4")
    assert len(data) < 5000
    image = open_image(data)
    assert image.size == (2480, 3508)
    assert (image.getpixel((750, 1250)), image.getpixel((50, 50))) == ((0, 0, 0), (255, 255, 255))


def test_large_pictures_of_every_kind_keep_colour_and_transparency():
    size = (5002, 5000)
    red = Image.new("P", size, 1)
    red.putpalette([0, 0, 0, 250, 10, 30])
    for data in (
        encode(red, "PNG"),
        encode(red, "BMP"),
        encode(Image.new("RGBA", size, (250, 10, 30, 255)), "PNG", compress_level=1),
    ):
        image = open_image(data)
        assert (image.size, image.getpixel((9, 9))) == ((2501, 2500), (250, 10, 30))
    assert open_image(encode(red, "PNG", transparency=1)).getpixel((9, 9)) == (255, 255, 255)


def test_what_is_shown_never_has_more_than_the_limit():
    for width, height in ((5000, 5000), (5001, 5000), (10000, 10000), (13000, 13000), (50000, 501), (7, 3)):
        by = reduction(width, height)
        assert (width // by) * (height // by) <= MAX_PIXELS
        assert by == 1 or (2 * width // by) * (2 * height // by) > MAX_PIXELS


def test_too_much_memory_is_refused_with_the_way_out():
    with pytest.raises(
        ImageError, match=r"9000 x 8000 pixels, which take 769 MiB .* at most 768 MiB .* 25,000,000 pixels"
    ):
        check_memory("a.png", (9000, 8000), MAX_MEMORY + 2**20)
    with pytest.raises(ImageError, match=r"at most 768 MiB are allowed: save it as a JPEG$"):
        check_memory("a.png", (5000, 5000), MAX_MEMORY + 1)
    check_memory("a.png", (9, 8), MAX_MEMORY)


def heics(rgba, rgb, array):
    import pillow_heif

    quick = {"enc_params": {"preset": "ultrafast"}, "chroma": 444}
    deep = pillow_heif.from_bytes("RGB;16", rgb.size, (array[..., :3].astype(np.uint16) * 257).tobytes())
    deep.save(file := io.BytesIO(), **quick)
    return {
        "heic": encode(rgb, "HEIF", **quick),
        "heic alpha": encode(rgba, "HEIF", **quick),
        "heic tiles": encode(rgb, "HEIF", tile_size=512, **quick),
        "heic 10": file.getvalue(),
    }


def kinds(side):
    """One file for each way of decoding that needs memory of its own."""
    x, y = np.meshgrid(np.linspace(0, 255, side), np.linspace(0, 255, side))
    array = np.stack([x, y, (x + y) / 2, x], axis=-1).astype(np.uint8)
    rgba = Image.fromarray(array)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    wide, gamma = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), (b"gAMA", struct.pack(">I", 100_000))
    return {
        "png rgb": encode(rgb, "PNG", compress_level=1),
        "png rgba": encode(rgba, "PNG", compress_level=1),
        "png grey 16": encode(wide, "PNG", compress_level=1),
        "png rgb 16 of another space": png(side, side, 16, 2, rows(array[..., :3]), gamma),
        "png rgba 16 of another space": png(side, side, 16, 6, rows(array), gamma),
        "png rgb 16 with a transparent colour": png(side, side, 16, 2, rows(array[..., :3]), (b"tRNS", bytes(6))),
        "png grey and alpha 16 of another space": png(side, side, 16, 4, rows(array[..., :2]), gamma),
        "png palette": encode(rgb.quantize(16), "PNG", transparency=3, compress_level=1),
        "jpeg": encode(rgb, "JPEG"),
        "jpeg progressive, less colour": encode(rgb, "JPEG", progressive=True, subsampling=2),
        "jpeg progressive": encode(rgb, "JPEG", progressive=True, subsampling=0),
        "gif": encode(rgb.quantize(16), "GIF", transparency=3),
        "bmp": encode(rgb, "BMP"),
        "webp": encode(rgba, "WEBP", method=0),
        "avif": encode(rgba, "AVIF", speed=10, subsampling="4:4:4"),
        **({} if not HEIC else heics(rgba, rgb, array)),
        "tiff lzw": encode(rgb, "TIFF", compression="tiff_lzw"),
        "tiff group 4": encode(grey.convert("1"), "TIFF", compression="group4"),
        "tiff float": tiff_of(array[..., :3].astype(np.float32), 2),
        "tiff float packed": tiff_of(array[..., :3].astype(np.float32), 2, deflate=True),
        "tiff packed in one strip": packed(np.asarray(grey).astype(np.float64)),
        "tiff planar 16": tiff_of(array.astype(np.uint16), 2, planar=True, t338=(2,)),
    }


def rows(samples):
    """The rows of a PNG of 16 bits."""
    return [row.astype(">u2").tobytes() for row in samples]


def packed(grey):
    """A TIFF of float64 grey in one strip that is packed, byte for byte, as PackBits."""
    data, size = grey.tobytes(), grey.shape[1]
    strip = b"".join(bytes((len(part) - 1,)) + part for at in range(0, len(data), 128) if (part := data[at : at + 128]))
    return tiff({256: size, 257: len(grey), 258: 64, 259: 32773, 262: 1, 277: 1, 278: len(grey), 339: 3}, strip)


MEASURE = """
import gc, json, pathlib, sys
from retrieval.images.door.decode import decode

def memory(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

peaks = {}
for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    data = file.read_bytes()
    decode("", data[:100] and data, None)  # once for what stays loaded
    gc.collect()
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    decode("", data, None)
    peaks[file.name] = memory("VmHWM") - before
print(json.dumps(peaks))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from Linux's /proc")
def test_estimate_of_memory_is_an_upper_one_and_not_far_off(tmp_path):
    side = 1000
    files = kinds(side)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)],
        cwd=ROOT,
        env={"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    peaks = json.loads(run.stdout)
    constant = 2**24
    for name, data in files.items():
        estimate = open_data(data).memory
        assert peaks[name] <= estimate, name
        assert estimate - constant <= 3 * peaks[name], name
