"""TIFFs that Pillow alone reads wrong or not at all. The files are made here. The expected values follow from the
numbers, and ImageMagick 6.9.11 reads them the same, tifffile 2026.3.3 where it refuses; YCbCr with fewer samples of
colour is compared with libtiff."""

import struct
import zlib

import numpy as np
import pytest
from picture_files import tiff, tiff_of

from retrieval.errors import ImageError
from retrieval.images.open import open_image

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of the broken tags below
GREY, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB = 1, 2, 3, 5, 6, 8, 9
BOTH = pytest.mark.parametrize("order", ["<", ">"])
RAMP = [0, 257, 25700, 65535]


def row(data):
    """The pixels of the first row, as lists of red, green and blue."""
    return np.asarray(open_image(data))[0].tolist()


def greys(data):
    opened = row(data)
    assert all(len(set(pixel)) == 1 for pixel in opened)
    return [pixel[0] for pixel in opened]


def of(values, dtype=np.uint16):
    """One row of pixels, of shape (1, W, samples)."""
    array = np.array([values], dtype)
    return array[..., None] if array.ndim == 2 else array


def packed(values, bits):
    """Numbers of so many bits one after the other, in whole bytes."""
    text = "".join(f"{value:0{bits}b}" for value in values)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


@BOTH
@pytest.mark.parametrize("deflate", [False, True])
def test_16_bit_white_is_zero_is_not_a_negative(order, deflate):
    assert greys(tiff_of(of(RAMP), 0, order, deflate=deflate)) == [255, 254, 155, 0]


@BOTH
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_float_white_is_zero_stays_as_it_is(order, dtype):
    """ImageMagick and libvips turn only integers round."""
    assert greys(tiff_of(of([0, 0.25, 1], dtype), 0, order)) == [0, 64, 255]


@BOTH
def test_palette_of_bytes_is_not_nearly_black(order):
    colours = [255, 0, 10, 0, 200, 20, 7, 100, 30] + [0] * 759
    colour_map = tuple(np.array(colours).reshape(256, 3).T.ravel().tolist())
    assert row(tiff_of(of([0, 1, 2], np.uint8), PALETTE, order, t320=colour_map)) == [
        [255, 0, 10],
        [0, 200, 20],
        [7, 100, 30],
    ]
    wide = tuple(value * 257 for value in colour_map)
    assert row(tiff_of(of([0, 1, 2], np.uint8), PALETTE, order, t320=wide))[1] == [0, 200, 20]


@BOTH
def test_unsigned_32_bit_numbers_above_2_to_31_do_not_wrap(order):
    assert greys(tiff_of(of([0, 2**31 - 1, 2**31, 2**32 - 1], np.uint32), GREY, order)) == [0, 127, 128, 255]


@BOTH
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
@pytest.mark.parametrize("deflate", [False, True])
def test_signed_numbers_are_scaled_from_the_smallest_to_the_largest(order, dtype, deflate):
    assert greys(tiff_of(of([-20, 0, 60], dtype), GREY, order, deflate=deflate)) == [0, 64, 255]


@BOTH
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("deflate", [False, True])
def test_floats_are_read_in_both_byte_orders(order, dtype, deflate):
    assert greys(tiff_of(of([0, 0.5, 0.75, 1], dtype), GREY, order, deflate=deflate)) == [0, 128, 191, 255]


@BOTH
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(
    ("samples", "photometric", "extra", "expected"),
    [
        ([[51400, 25700, 12850], [0, 65535, 257]], RGB, None, [[200, 100, 50], [0, 255, 1]]),
        ([[51400, 25700, 12850, 0], [0, 65535, 257, 0]], RGB, (0,), [[200, 100, 50], [0, 255, 1]]),
        ([[51400, 25700, 12850, 13107], [0, 65535, 257, 65535]], RGB, (2,), [[244, 224, 214], [0, 255, 1]]),
        ([[10280, 5140, 2570, 13107], [0, 65535, 257, 65535]], RGB, (1,), [[244, 224, 214], [0, 255, 1]]),
        ([[51400, 25700, 12850, 7, 9], [0, 65535, 257, 7, 9]], RGB, (0, 0), [[200, 100, 50], [0, 255, 1]]),
        ([[51400, 25700, 12850, 7], [0, 65535, 257, 7]], RGB, (3,), [[200, 100, 50], [0, 255, 1]]),
        ([[0, 65535, 65535, 0], [65535, 65535, 0, 0]], CMYK, None, [[255, 0, 0], [0, 0, 255]]),
        ([[0, 65535, 65535, 0, 13107], [65535, 65535, 0, 0, 65535]], CMYK, (2,), [[255, 204, 204], [0, 0, 255]]),
        ([[25700, 13107], [257, 65535]], GREY, (2,), [[224] * 3, [1] * 3]),
        ([[5140, 13107], [257, 65535]], GREY, (1,), [[224] * 3, [1] * 3]),
        ([[25700, 13107], [257, 65535]], GREY, (0,), [[100] * 3, [1] * 3]),
    ],
)
def test_16_bit_colours_are_read_whole_and_plane_by_plane(
    order, deflate, planar, samples, photometric, extra, expected
):
    more = {} if extra is None else {"t338": extra}
    opened = np.array(row(tiff_of(of(samples), photometric, order, planar, deflate, **more)))
    assert np.abs(opened - expected).max() <= 1
    small = (of(samples) // 257).astype(np.uint8)
    opened = np.array(row(tiff_of(small, photometric, order, planar, deflate, **more)))
    assert np.abs(opened - expected).max() <= 2


@BOTH
@pytest.mark.parametrize("planar", [False, True])
def test_float_rgb_is_read(order, planar):
    samples = of([[0, 0.5, 1], [0.25, 1, 0]], np.float32)
    assert row(tiff_of(samples, RGB, order, planar)) == [[0, 128, 255], [64, 255, 0]]
    assert row(tiff_of(samples * 4, RGB, order, planar)) == [[0, 128, 255], [64, 255, 0]]  # from 0 to the largest


@BOTH
def test_float_rgb_with_a_predictor_is_read(order):
    samples = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 4, 3)
    planes = samples.astype(">f4").view(np.uint8).reshape(2, 12, 4).swapaxes(1, 2).reshape(2, -1, 3)
    differences = np.diff(planes, axis=1, prepend=np.zeros((2, 1, 3), np.uint8)).astype(np.uint8)
    tags = {256: 4, 257: 2, 258: (32,) * 3, 259: 8, 262: RGB, 277: 3, 278: 2, 317: 3, 339: (3,) * 3}
    opened = np.asarray(open_image(tiff(tags, zlib.compress(differences.tobytes()), order=order)))
    assert np.array_equal(opened, np.rint(samples * 255))


@BOTH
@pytest.mark.parametrize("planar", [False, True])
def test_16_bit_tiles_with_a_predictor_are_read(order, planar):
    samples = (np.random.default_rng(0).integers(0, 256, (20, 40, 3)) * 257).astype(np.uint16)
    whole = np.zeros((32, 48, 3), np.uint16)
    whole[:20, :40] = samples
    tiles = []
    for part in np.moveaxis(whole, -1, 0)[..., None] if planar else [whole]:
        for top in (0, 16):
            for left in (0, 16, 32):
                tile = part[top : top + 16, left : left + 16]
                moved = np.diff(tile, axis=1, prepend=np.zeros((16, 1, tile.shape[2]), np.uint16))
                tiles.append(zlib.compress(moved.astype(order + "u2").tobytes()))
    tags = {256: 40, 257: 20, 258: (16,) * 3, 259: 8, 262: RGB, 277: 3, 317: 2, 322: 16, 323: 16}
    opened = np.asarray(open_image(tiff(tags | {284: 2 if planar else 1}, *tiles, order=order)))
    assert np.array_equal(opened, samples // 257)


@BOTH
@pytest.mark.parametrize("bits", [6, 10, 12, 14])
def test_grey_and_colours_of_other_depths_are_scaled_to_the_full_range(order, bits):
    white = 2**bits - 1
    data = packed([0, white, white // 2, 1], bits)
    tags = {256: 4, 257: 1, 258: bits, 259: 1, 262: GREY, 277: 1, 278: 1}
    middle, least = (round(value * 255 / white) for value in (white // 2, 1))
    assert greys(tiff(tags, data, order=order)) == [0, 255, middle, least]
    assert greys(tiff(tags | {259: 8}, zlib.compress(data), order=order)) == [0, 255, middle, least]
    assert greys(tiff(tags | {262: 0}, data, order=order)) == [255, 0, 255 - middle, 255 - least]
    tags |= {256: 1, 258: (bits,) * 3, 262: RGB, 277: 3}
    assert row(tiff(tags, packed([0, white, white // 2], bits), order=order)) == [[0, 255, middle]]


def ycbcr(across, down, planar, order, deflate=False):
    """4 x 4 pixels of one hue, grey to the left: luminance 16 apart, and two differences for each unit."""
    luma = (np.arange(16).reshape(4, 4) * 16).astype(np.uint8)
    blue = np.where(np.arange(4) < 2, 128, 160).astype(np.uint8)[None].repeat(4, axis=0)
    red = np.where(np.arange(4) < 2, 128, 100).astype(np.uint8)[None].repeat(4, axis=0)
    tags = {256: 4, 257: 4, 258: (8, 8, 8), 259: 1, 262: YCBCR, 277: 3, 278: 4, 530: (across, down)}
    if planar:
        strips = [luma.tobytes(), *(plane[::down, ::across].tobytes() for plane in (blue, red))]
        return tiff(tags | {284: 2}, *strips, order=order)
    units = b""
    for top in range(0, 4, down):
        for left in range(0, 4, across):
            units += luma[top : top + down, left : left + across].tobytes()
            units += bytes((blue[top, left], red[top, left]))
    return tiff(tags | {259: 8}, zlib.compress(units), order=order) if deflate else tiff(tags, units, order=order)


@BOTH
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (2, 2), (1, 2)])
def test_ycbcr_that_is_not_compressed_is_converted(order, planar, across, down):
    opened = np.asarray(open_image(ycbcr(across, down, planar, order))).astype(int)
    assert opened[:, :2].tolist() == [[[y * 64 + x * 16] * 3 for x in range(2)] for y in range(4)]
    assert np.abs(opened[2, 2] - [121, 169, 217]).max() <= 1  # luminance 160, differences +32 and -28
    assert np.abs(opened[3, 3] - [201, 249, 255]).max() <= 1
    by_libtiff = np.asarray(open_image(ycbcr(across, down, False, order, deflate=True))).astype(int)
    assert np.abs(opened - by_libtiff).max() <= 1


def test_ycbcr_of_video_range_is_stretched():
    tags = {256: 2, 257: 1, 258: (8, 8, 8), 259: 1, 262: YCBCR, 277: 3, 278: 1, 530: (1, 1)}
    data = bytes([16, 128, 128, 235, 128, 128])
    assert row(tiff(tags | {532: (16.0, 235.0, 128.0, 240.0, 128.0, 240.0)}, data)) == [[0] * 3, [255] * 3]


@BOTH
@pytest.mark.parametrize(("photometric", "offset"), [(CIELAB, 0), (ICCLAB, 128)])
def test_lab_of_8_and_16_bits_is_converted(order, photometric, offset):
    white = {CIELAB: 65535, ICCLAB: 65280}[photometric]
    small = np.array([[[153, 20 + offset, (226 + offset) % 256], [128, offset, offset]]], np.uint8)
    wide = np.array([[[0.6 * white, (20 + offset) * 256, (226 + offset) % 256 * 256],
                      [0.5 * white, offset * 256, offset * 256]]]).astype(np.uint16)  # fmt: skip
    for samples in (small, wide):  # L* 60, a* 20, b* -30 of D50, by the formulas of CIE 15 and IEC 61966-2-1
        opened = np.array(row(tiff_of(samples, photometric, order)))
        assert np.abs(opened - [[159, 133, 198], [119, 119, 119]]).max() <= 2


def test_orientation_is_applied_to_what_is_read_here():
    data = tiff_of(of(RAMP), 0, t274=6)
    assert np.asarray(open_image(data))[:, 0, 0].tolist() == [255, 254, 155, 0]


@pytest.mark.parametrize("deflate", [False, True])
def test_truncated_tiff_is_refused(deflate):
    samples = np.random.default_rng(0).integers(0, 2**16, (40, 40, 3)).astype(np.uint16)
    whole = tiff_of(samples, RGB, planar=True, deflate=deflate)
    tags = {256: 40, 257: 40, 258: (16,) * 3, 259: 1, 262: RGB, 277: 3, 278: 40, 284: 2}
    assert open_image(whole).size == (40, 40)
    for data in (whole[:-100], tiff(tags, b"\1" * 100, b"\1" * 100, b"\1" * 100), tiff(tags, bytes(3200))):
        with pytest.raises(ImageError):
            open_image(data)


def test_tags_that_point_nowhere_are_refused():
    """Offsets, sizes and counts at their limits: an answer in words, whatever they are."""
    good = tiff_of(of(RAMP), 0)
    for place in range(len(good) - 4):
        for value in (0, 1, 2**31, 2**32 - 1):
            data = good[:place] + struct.pack("<I", value) + good[place + 4 :]
            try:
                open_image(data)
            except ImageError as error:
                assert str(error).isprintable()
