"""What is checked before a decoder sees a file: bombs, damaged files, and what has to be left of a whole one."""

import io
import json
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import bombs
import numpy as np
import pytest
from bombs import chunk, encoded, png_with, shared_tags, small
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images.door.checks import only_needed, remark
from retrieval.images.door.checks.blocks.av1 import stream_sizes
from retrieval.images.door.decode import MAX_PIXELS, decode
from retrieval.images.open import open_image

ROOT = Path(__file__).parents[2]
OPENS = "opens"

# name -> how it ends: a part of the refusal, or OPENS
BOMBS = {
    "TIFF, 3,000 tags on the same megabyte": (bombs.tiff_shared, OPENS),
    "TIFF, a million fractions": (lambda: bombs.tiff_rationals(1_000_000), OPENS),
    "TIFF, 500,000 tiles of one pixel": (lambda: bombs.tiff_tiny_tiles(500_000), "2,000,000 strips or tiles"),
    "TIFF, a million strips for one picture": (lambda: bombs.tiff_many_strips(1_000_000), OPENS),
    "TIFF, a page that follows itself": (bombs.tiff_loop, OPENS),
    "PNG, EXIF tags on the same bytes": (lambda: png_with((b"eXIf", shared_tags(300, 1_000_000))), OPENS),
    "PNG, a million EXIF marks": (lambda: bombs.png_nested_exif_marks(1_000_000), OPENS),
    "PNG, a profile of 4,000 steps": (lambda: bombs.png_profile(bombs.long_pipeline()), OPENS),
    "PNG, 20,000 profiles": (bombs.png_many_profiles, OPENS),
    "PNG, 500,000 empty chunks": (lambda: bombs.png_many_chunks(500_000), "more than 250,000 chunks"),
    "PNG, 25 megapixels of 16 bits": (bombs.png_wide, OPENS),
    "PNG, a text of 60 MB": (lambda: png_with((b"zTXt", b"x\0\0" + zlib.compress(bytes(60_000_000)))), OPENS),
    "JPEG, 1,000 scans": (bombs.jpeg_scans, "at most 100"),
    "JPEG, 300 EXIF segments": (lambda: bombs.jpeg_exif_segments(300), OPENS),
    "JPEG, 3,000 EXIF tags on the same bytes": (bombs.jpeg_exif_shared, OPENS),
    "JPEG, a million comments": (lambda: bombs.jpeg_comments(1_000_000), "more than 10,000 segments"),
    "JPEG, a header of fill bytes": (lambda: bombs.jpeg_padded_header(10_000_000), OPENS),
    "JPEG, a scan of fill bytes": (lambda: bombs.jpeg_padded_scan(20_000_000), OPENS),
    "JPEG, a profile that claims a huge table": (
        lambda: small("JPEG", icc_profile=bombs.huge_cube(200, 3, b"RGB ")),
        OPENS,
    ),
    "WebP, EXIF tags on the same bytes": (lambda: bombs.webp_with((b"EXIF", shared_tags(300, 1_000_000))), OPENS),
    "WebP, a canvas of 268 megapixels": (lambda: bombs.webp_with(width=16384, height=16384), "16384 x 16384"),
    "WebP, 10,000 frames": (bombs.webp_frames, OPENS),
    "GIF, a comment of 8 MB": (bombs.gif_comment, OPENS),
    "GIF, 1,500,000 blocks of one byte": (lambda: bombs.gif_tiny_blocks(1_500_000), "more than 1,000,000 blocks"),
    "BMP, 5,000 lines of one pixel": (bombs.bmp_lines, OPENS),
    "BMP, 5 million runs in one line": (lambda: bombs.bmp_runs(10_000_000), "damaged"),
    "AVIF, EXIF tags on the same bytes": (lambda: small("AVIF", exif=shared_tags(300, 1_000_000)), OPENS),
    "AVIF, a profile of 4,000 steps": (lambda: small("AVIF", icc_profile=bombs.long_pipeline()), OPENS),
    "AVIF, 134 million parts of items in 12 kB": (bombs.avif_extents, "more than 20,000 pieces"),
    "AVIF, 2,500,000 frames of one byte": (bombs.avif_frames, "2,500,000 frames"),
    "AVIF, 60,000 items": (bombs.avif_items, "more than 20,000 parts"),
}

# Decodes the files that it is given, within limits, and prints for each: how it ended, and the CPU seconds.
CHILD = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from PIL import Image, ImageCms
from retrieval.errors import ImageError
from retrieval.images.door.decode import decode
Image.init()
size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 500 * 2**20,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (60, 61))
for path in sys.argv[2:]:
    data = Path(path).read_bytes()
    start, end = time.process_time(), "opens"
    try:
        decode(Path(path).name, data, None)
    except ImageError as error:
        end = str(error)
    print(json.dumps([path, end, time.process_time() - start]), flush=True)
"""


def opened_within_limits(paths):
    """Open files in a process of their own with 500 MB and one minute of CPU time for all: path -> (end, seconds)."""
    command = [sys.executable, "-c", CHILD, str(ROOT), *map(str, paths)]
    run = subprocess.run(command, capture_output=True, text=True)
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(rows) == len(paths), f"ended at {paths[len(rows)]}: {run.stderr[-500:]}"
    return {path: (end, seconds) for path, end, seconds in rows}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory that only Linux keeps")
def test_bombs_are_refused_or_harmless(tmp_path):
    paths = {name: tmp_path / f"{number}.bin" for number, name in enumerate(BOMBS)}
    for name, (make, _) in BOMBS.items():
        paths[name].write_bytes(make())
    found = opened_within_limits(list(paths.values()))
    for name, (_, expected) in BOMBS.items():
        end, seconds = found[str(paths[name])]
        assert expected in end, (name, end)
        assert seconds < 2, (name, seconds)


# Damaged files

SEEDS = {
    "JPEG": [{}, {"progressive": True}, {"exif": shared_tags(9, 40, 270, 4)}],
    "PNG": [{}, {"exif": shared_tags(9, 40, 270, 4), "icc_profile": bombs.icc(*bombs.matrix_tags())}],
    "WEBP": [{}, {"lossless": True, "exif": shared_tags(9, 40, 270, 4)}],
    "GIF": [{}, {"comment": b"a comment"}],
    "BMP": [{}],
    "TIFF": [{}, {"compression": "tiff_lzw"}],
    "AVIF": [{"speed": 10}, {"speed": 10, "icc_profile": bombs.icc(*bombs.matrix_tags())}],
}


def mutated(data, dice):
    """A copy with a few bytes changed, a number made extreme, a part cut out, repeated or cut off."""
    data = bytearray(data)
    near = dice.choice([len(data), min(len(data), 400)])  # half of the time in the header
    for _ in range(dice.randint(1, 4)):
        place, kind = dice.randrange(near), dice.randrange(6)
        if kind < 2:
            data[place % len(data)] = dice.choice([0, 1, 255, dice.randrange(256)])
        elif kind == 2:
            number = dice.choice([0, 1, 2**31, 2**32 - 1, 2**16, dice.randrange(2**32)])
            data[place : place + 4] = struct.pack(dice.choice("<>") + "I", number)
        elif kind == 3:
            del data[place : place + dice.randrange(1, 40)]
        elif kind == 4:
            data[place:place] = data[place : place + dice.randrange(1, 400)]
        else:
            del data[max(8, place) :]
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_files_raise_nothing_but_image_errors(kind):
    dice = random.Random(f"damaged {kind}")
    seeds = [small(kind, **options) for options in SEEDS[kind]]
    if kind == "BMP":
        seeds.append(bombs.bmp_rle(b"\5\1\0\3\1\2\3\0\0\2\1\1\3\4\0\0\0\1", 9))
        seeds.append(bombs.bmp_rle(b"\5\x12\0\5\x12\x34\x50\0\0\0\0\1", 9, bits=4))
    refused = 0
    for _ in range(200):
        data = mutated(dice.choice(seeds), dice)
        try:
            decode("a file", data, None)
        except ImageError:
            refused += 1
    assert 0 < refused < 200


# What is kept


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_file_without_extras_is_not_copied(kind):
    data = small(kind, **({"dpi": (72, 72)} if kind == "JPEG" else {}))
    assert only_needed("a file", data, MAX_PIXELS) is data


def test_tiff_with_extras_keeps_its_length():
    """Or the end of a file that is cut short would be filled with what was added."""
    for options in (
        {"software": "x" * 5000},
        {"icc_profile": bombs.long_pipeline()},
        {"big_tiff": True, "save_all": True},
    ):
        more = {"append_images": [Image.new("L", (9, 9))]} if "save_all" in options else {}
        data = small("TIFF", **options, **more)
        cleaned = only_needed("a file", data, MAX_PIXELS)
        assert cleaned is not data and len(cleaned) == len(data)
        assert open_image(cleaned).tobytes() == open_image(data).tobytes()


@pytest.mark.parametrize("turn", [1, 6])
def test_orientation_among_thousands_of_tags_is_applied(turn):
    block = shared_tags(3000, 9, 0x8000)
    at = 10 + 12 * 1500
    block = block[:at] + struct.pack("<HHII", 274, 3, 1, turn) + block[at + 12 :]
    size = (48, 64) if turn == 6 else (64, 48)
    assert open_image(png_with((b"eXIf", block))).size == size
    assert open_image(bombs.webp_with((b"EXIF", block))).size == size
    plain = small("JPEG")
    segment = struct.pack(">HH", 0xFFE1, len(block) + 8) + b"Exif\0\0" + block
    assert open_image(plain[:2] + segment + plain[2:]).size == size


def test_orientation_in_the_text_of_old_png_files_is_applied():
    block = b"Exif\0\0" + struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 274, 3, 1, 8, 0, 0)
    text = b"\nexif\n      %d\n" % len(block) + block.hex().encode() + b"\n"
    head = b"Raw profile type exif\0"
    assert open_image(png_with((b"tEXt", head + text))).size == (48, 64)
    assert open_image(png_with((b"zTXt", head + b"\0" + zlib.compress(text)))).size == (48, 64)


@pytest.mark.parametrize("name", [b"tEXt", b"zTXt", b"iTXt", b"prVt"])
def test_png_with_a_large_text_opens_unchanged(name):
    text = bytes(range(256)) * 20_000
    body = {b"tEXt": b"x\0" + text, b"zTXt": b"x\0\0" + zlib.compress(text)}.get(
        name, b"x\0\1\0\0\0" + zlib.compress(text)
    )
    assert open_image(png_with((name, body))).tobytes() == open_image(small("PNG")).tobytes()


def test_png_profile_over_a_mebibyte_is_applied():
    tags = bombs.matrix_tags()
    plain = open_image(bombs.png_profile(bombs.icc(*tags)))
    large = bombs.icc(*tags, (b"desc", np.random.default_rng(0).bytes(1_500_000)))
    assert open_image(bombs.png_profile(large)).tobytes() == plain.tobytes()
    assert plain.tobytes() != open_image(small("PNG")).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_profile_with_a_long_pipeline_counts_without_it(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = small(kind, icc_profile=bombs.icc(*bombs.matrix_tags()), **options)
    expected = open_image(plain).tobytes()
    assert open_image(small(kind, icc_profile=bombs.long_pipeline(), **options)).tobytes() == expected
    assert expected != open_image(small(kind, **options)).tobytes()


@pytest.mark.parametrize(
    "profile",
    [
        bombs.huge_cube(200, 3, b"RGB "),
        bombs.icc(*bombs.matrix_tags()[1:], (b"gXYZ", bytes(20)))[:-8],
        bombs.icc(*bombs.matrix_tags(), (b"rTRC", struct.pack(">4sII", b"curv", 0, 2**31))),
        bytes(200),
    ],
)
def test_unsound_profile_is_passed_over(profile):
    assert open_image(bombs.png_profile(profile)).tobytes() == open_image(small("PNG")).tobytes()


# JPEG without its end


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}])
def test_jpeg_that_lacks_only_its_end_marker_opens(options):
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG", quality=90, **options)
    for cut in (whole[:-2], whole[:-1]):
        assert open_image(cut).tobytes() == open_image(whole).tobytes()
        assert "end marker" in remark(cut)
    assert remark(whole) is None
    for missing in (4, 5, 6, 8, 20, len(whole) // 2):
        with pytest.raises(ImageError, match="cut short"):
            open_image(whole[:-missing])


def test_progressive_jpeg_without_its_last_scan_is_refused():
    whole = encoded(Image.open(io.BytesIO(small("PNG"))), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    table = whole.rindex(b"\xff\xc4")
    for end in (last, min(last, table)):
        with pytest.raises(ImageError, match="cut short"):
            open_image(whole[:end])


# Run-length coded BMP


def run_length(pixels, bits, dice):
    """Code rows of palette entries in runs and literals of any length, as a BMP file has them from the last row on."""
    out = bytearray()
    for row in pixels[::-1].tolist():
        while row:
            count = dice.randint(1, min(255, len(row)))
            part, row = row[:count], row[count:]
            packed = part if bits == 8 else [a << 4 | b for a, b in zip(part[::2], [*part[1::2], 0], strict=False)]
            if count >= 3 and len(set(part)) > 1:
                out += bytes([0, count, *packed]) + bytes(len(packed) % 2)
            else:
                for value in part:
                    out += bytes([1, value if bits == 8 else value << 4])
        out += b"\0\0"
    return bytes(out) + b"\0\1"


@pytest.mark.parametrize("bits", [4, 8])
def test_run_length_coded_bmp_matches_its_pixels(bits):
    pixels = np.random.default_rng(bits).integers(0, 1 << bits, (31, 31), dtype=np.uint8)
    pixels[5:20, 3:28] = 7
    opened = np.asarray(open_image(bombs.bmp_rle(run_length(pixels, bits, random.Random(1)), 31, bits)))
    assert np.array_equal(opened[..., 2], pixels)
    assert np.array_equal(opened[..., 1], 255 - pixels)


def test_bmp_runs_and_jumps():
    """Two alternating values in a run of 4 bits, an empty row, a jump, and an end before the last row."""
    data = b"\5\x12\0\0" + b"\0\0" + b"\0\2\2\1" + b"\1\x30" + b"\0\1"
    rows = np.asarray(open_image(bombs.bmp_rle(data, 6, 4)))[::-1, :, 2].tolist()
    empty = [0] * 6
    assert rows == [[1, 2, 1, 2, 1, 0], empty, empty, [0, 0, 3, 0, 0, 0], empty, empty]


# AVIF


def bits(*fields):
    """Bytes from (value, number of bits) pairs."""
    text = "".join(f"{value:0{count}b}" for value, count in fields)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


def test_stream_sizes_are_those_of_the_encoder():
    frames = [Image.new("RGB", (70 + 2, 50), (i, 90, 9)) for i in range(3)]
    for data in (small("AVIF"), encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:])):
        start = data.index(b"\x12\0\x0a")  # a delimiter, then a sequence header
        sizes = stream_sizes(data[start : start + 40], [100])
        assert set(sizes) == {Image.open(io.BytesIO(data)).size}


def test_key_frame_larger_than_its_sequence_is_seen():
    sequence = bits((0, 5), (0, 1), (0, 1), (0, 5), (0, 12), (0, 5), (15, 4), (15, 4), (63, 16), (63, 16), (0, 30))
    frame = bits((0, 3), (1, 1), (0, 1), (1, 1), (9999, 16), (8888, 16), (0, 30))
    # The bits of the sequence after its size are 0: no screen content, and so on.
    stream = b"".join(bytes([kind << 3 | 2, len(body)]) + body for kind, body in ((1, sequence), (6, frame)))
    assert stream_sizes(stream, [100]) == [(64, 64), (10_000, 8889)]


def test_avif_whose_stream_is_larger_than_the_limit_is_refused():
    data = bombs.avif_smaller_than_its_stream(200)
    assert open_image(data).size == (64, 64)
    with pytest.raises(ImageError, match=r"a file has 200 x 200 pixels; at most 10,000 are accepted"):
        only_needed("a file", data, 10_000)


def test_avif_grid_larger_than_the_limit_is_refused():
    data = small("AVIF")
    place = data.index(b"\x12\0\x0a")
    grid = struct.pack(">BBBBII", 0, 1, 0, 0, 60_000, 60_000)
    with pytest.raises(ImageError, match="60000 x 60000"):
        open_image(data[:place].replace(b"av01Color", b"gridColor") + grid + data[place + len(grid) :])


def test_wrong_chunk_of_a_png_is_left_to_the_decoder():
    with pytest.raises(ImageError, match="damaged"):
        open_image(png_with((b"g\xc4MA", b"\0\0\0\1")))
    broken = bytearray(chunk(b"gAMA", struct.pack(">I", 45455)))
    broken[-1] ^= 1
    with pytest.raises(ImageError, match="damaged"):
        open_image(small("PNG")[:33] + bytes(broken) + small("PNG")[33:])
