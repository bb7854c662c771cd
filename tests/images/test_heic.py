"""HEIC, the format of phones: every way of turning, tiling and colouring, and files that say what is not so."""

import io
import itertools
import struct
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from conftest import ROOT
from heif_files import ALPHA, DEPTH, Item, auxc, box, clap, grid, heif, icc, imir, irot, ispe, item_of, nclx, picture
from PIL import Image, ImageCms

from retrieval import open_source
from retrieval.errors import ImageError
from retrieval.images.door.checks import heif as heif_checks
from retrieval.images.door.checks.blocks.hevc import declared_size
from retrieval.images.door.decode import decode
from retrieval.images.door.formats import HEIC
from retrieval.images.open import open_image

pytestmark = pytest.mark.skipif(not HEIC, reason="pillow-heif is not installed")

W, H = 128, 64


def colours(width=W, height=H, seed=0):
    """Soft colours that show which side is which."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def here(data):
    return np.asarray(decode("a file", data, None)).astype(int)


def apart(one, other):
    assert np.shape(one) == np.shape(other)
    return np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max()


@pytest.fixture(scope="module")
def plain():
    return picture(colours())


PIXELS = np.asarray(colours())


def test_picture_of_a_phone_opens_in_a_worker_whatever_its_name(tmp_path, plain):
    data = heif(plain)
    for name in ("a.heic", "a.HIF", "a.jpg", "a.heics", "a"):
        (tmp_path / name).write_bytes(data)
        opened = open_image(tmp_path / name)
        assert opened.mode == "RGB" and opened.info == {}
        assert apart(opened, PIXELS) <= 3
    assert apart(here(data), np.asarray(open_image(data))) == 0


@pytest.mark.parametrize("major", [b"heic", b"heix", b"hevc", b"msf1", b"mif1"])
def test_every_brand_of_hevc_opens(plain, major):
    assert apart(here(heif(plain, major=major)), PIXELS) <= 3
    assert apart(here(heif(plain, major=major, brands=[b"mif1", b"miaf"])), PIXELS) <= 3


def avif(*properties):
    """An AVIF of the same picture, which another library decodes, with these boxes."""
    colours().save(file := io.BytesIO(), "AVIF", quality=100, subsampling="4:4:4", speed=10)
    data = file.getvalue()
    place = data.index(b"av1C") - 4
    av1c = data[place : place + struct.unpack_from(">I", data, place)[0]]
    start = data.index(b"mdat") + 4
    return heif(Item(b"av01", data[start:], [ispe(W, H), av1c, *properties]), major=b"avif", brands=[b"avif", b"mif1"])


@pytest.mark.parametrize(("turns", "axis"), list(itertools.product((None, 0, 1, 2, 3), (None, 0, 1))))
def test_turned_and_mirrored_as_an_avif_with_the_same_boxes(plain, turns, axis):
    boxes = [*([] if turns is None else [irot(turns)]), *([] if axis is None else [imir(axis)])]
    opened = here(heif(Item(b"hvc1", plain.content, [*plain.properties, *boxes])))
    assert apart(opened, here(avif(*boxes))) <= 6
    left = np.rot90(PIXELS, turns or 0)
    assert apart(opened, left if axis is None else left[::-1] if axis == 0 else left[:, ::-1]) <= 3


def test_clean_aperture_is_cut_out_before_it_is_turned(plain):
    for more, turn in (([], 0), ([irot(1)], 1)):
        cut = Item(b"hvc1", plain.content, [*plain.properties, clap(40, 30, 4, -3), *more])
        left, top = (W - 40) // 2 + 4, (H - 30) // 2 - 3
        assert apart(here(heif(cut)), np.rot90(PIXELS[top : top + 30, left : left + 40], turn)) <= 3


def exif(orientation):
    entry = struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 0x112, 3, 1, orientation)
    return Item(b"Exif", bytes(4) + entry + bytes(4), [], [(b"cdsc", [1])])


def test_orientation_in_exif_turns_nothing(plain):
    assert apart(here(heif(plain, exif(6))), PIXELS) <= 3


def tiles(columns=3, rows=2, side=64):
    whole = colours(columns * side, rows * side, 5)
    places = [(x * side, y * side) for y in range(rows) for x in range(columns)]
    return whole, [picture(whole.crop((x, y, x + side, y + side))) for x, y in places]


def test_tiles_are_put_together_and_cut_at_the_edge():
    whole, parts = tiles()
    size = (150, 100)
    numbers = range(2, 8)
    made = here(heif(grid(2, 3, size, numbers), *parts))
    assert apart(made, np.asarray(whole)[:100, :150]) <= 3
    turned = here(heif(grid(2, 3, size, numbers, irot(3)), *parts))
    assert apart(turned, np.rot90(made, 3)) == 0
    swapped = here(heif(grid(2, 3, size, [3, 2, 4, 5, 6, 7]), *parts))
    assert apart(swapped[:64, :64], made[:64, 64:128]) <= 3


def test_memory_is_that_of_the_whole_picture_before_it_is_cut(plain):
    large = [ispe(9000, 9000), plain.properties[1], clap(40, 30)]
    with pytest.raises(ImageError, match="MiB of memory to decode"):
        decode("a file", heif(Item(b"hvc1", plain.content, large)), None)


def test_tile_that_is_missing_or_cut_short_is_refused():
    _, parts = tiles()
    whole = grid(2, 3, (150, 100), range(2, 8))
    for broken, why in (
        ([grid(2, 3, (150, 100), range(2, 7)), *parts], "5 tiles of 6"),
        ([grid(2, 3, (150, 100), [*range(2, 7), 99]), *parts], "no"),
        ([grid(1, 1, (150, 100), [2]), *parts], "1 x 1 tiles of 64 x 64 for 150 x 100"),
        ([grid(2, 3, (64, 100), range(2, 8)), *parts], "3 x 2 tiles"),
        (
            [grid(1, 1, (64, 64), [2]), Item(b"hvc1", parts[0].content, [ispe(4000, 4000), parts[0].properties[1]])],
            "a tile",
        ),
        ([whole, *parts[:-1], picture(colours(128, 128))], "differ in size"),
        ([Item(b"grid", whole.content[:5], whole.properties, whole.references), *parts], "cut short"),
        ([whole, *parts[:-1], Item(b"hvc1", b"", parts[-1].properties)], "."),
    ):
        with pytest.raises(ImageError, match=why):
            decode("a file", heif(*broken), None)
    data = heif(whole, *parts)
    with pytest.raises(ImageError, match=r"a file is a damaged HEIC picture \(cut short\)"):
        decode("a file", data[:-60], None)


def test_only_the_primary_picture_is_shown(plain):
    """Not a thumbnail, depth map, gain map, or another picture of a burst, whatever comes first."""
    other = colours(W, H, 9)
    thumbnail = picture(other.resize((64, 64)), references=[(b"thmb", [4])])
    depth = picture(other.convert("L"), DEPTH, references=[(b"auxl", [4])])
    gain = picture(other.convert("L"), auxc(b"urn:com:apple:photo:2020:aux:hdrgainmap"), references=[(b"auxl", [4])])
    tone = Item(b"tmap", bytes(62), [ispe(W, H)], [(b"dimg", [4, 3])])
    data = heif(picture(other), thumbnail, gain, plain, depth, tone, primary=4)
    assert apart(here(data), PIXELS) <= 3


def test_sequence_shows_its_still_picture_and_is_refused_without_one(plain):
    film = box(b"moov", box(b"trak", bytes(100)))
    assert apart(here(heif(plain, major=b"msf1", brands=[b"hevc", b"heic", b"mif1"], more=film)), PIXELS) <= 3
    with pytest.raises(ImageError, match="is an HEIF sequence without a still picture; save one frame of it as a JPEG"):
        decode("a file", box(b"ftyp", b"hevc\0\0\0\0msf1hevc") + film, None)


def test_transparency_is_put_on_white(plain):
    mask = Image.fromarray(np.repeat(np.arange(W, dtype=np.uint8)[None] * 2, H, 0))
    for name in (ALPHA, auxc(b"urn:mpeg:hevc:2015:auxid:1")):
        opened = here(heif(plain, picture(mask, name, references=[(b"auxl", [1])])))
        share = np.asarray(mask)[..., None] / 255
        assert apart(opened, np.round(PIXELS * share + 255 * (1 - share))) <= 4


def test_ten_bits_and_grey_open():
    import pillow_heif

    wide = PIXELS.astype(np.uint16) * 257
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (W, H), wide.tobytes()).save(file, quality=-1, chroma=444)
    assert apart(here(heif(item_of(file.getvalue(), size=(W, H)), major=b"heix")), PIXELS) <= 3
    grey = colours().convert("L")
    assert apart(here(heif(picture(grey))), np.asarray(grey.convert("RGB"))) <= 2
    deep = np.asarray(grey).astype(np.uint16) * 257
    pillow_heif.from_bytes("I;16L", (W, H), deep.tobytes()).save(file := io.BytesIO(), quality=-1)
    assert apart(here(heif(item_of(file.getvalue(), size=(W, H)))), np.asarray(grey.convert("RGB"))) <= 2


@pytest.mark.parametrize(("primaries", "transfer"), [(12, 13), (9, 16), (9, 18), (1, 8), (2, 2), (1, 1)])
def test_colour_space_by_number_is_that_of_avif(plain, primaries, transfer):
    colour = nclx(primaries, transfer)
    opened = here(heif(Item(b"hvc1", plain.content, [*plain.properties, colour])))
    assert np.abs(opened - here(avif(colour))).mean() < 1.5
    assert (apart(opened, PIXELS) > 12) == (primaries > 2 or transfer == 8)


def test_icc_profile_is_applied_and_counts_more_than_numbers(plain):
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    assert wide  # a profile of another kind is passed over
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ")
    colour = [icc(swapped), nclx(9, 16)]
    opened = here(heif(Item(b"hvc1", plain.content, [*plain.properties, *colour])))
    assert apart(opened, PIXELS[..., ::-1]) <= 4
    for broken in (b"x" * 200, wide.tobytes()):
        assert apart(here(heif(Item(b"hvc1", plain.content, [*plain.properties, icc(broken)]))), PIXELS) <= 3


# Files that say what is not so


def test_size_in_the_video_is_that_of_the_encoder():
    for width, height in ((64, 64), (1024, 64), (64, 1984)):
        hvcc = picture(Image.new("RGB", (width, height))).properties[1][8:]
        sizes = list(filter(None, map(declared_size, heif_checks.configured_units(hvcc))))
        assert sizes == [(width, height)]


def test_video_larger_than_the_picture_is_refused():
    large = picture(Image.new("RGB", (256, 256)), size=(64, 64))
    with pytest.raises(ImageError, match="64 x 64 pixels, but 256 x 256 in its video"):
        decode("a file", heif(large), None)
    inside = picture(Image.new("RGB", (64, 64)))
    [unit] = [each for each in heif_checks.configured_units(large.properties[1][8:]) if declared_size(each)]
    inside.content = struct.pack(">I", len(unit)) + unit + inside.content
    with pytest.raises(ImageError, match="but 256 x 256 in its video"):
        decode("a file", heif(inside), None)


def test_sizes_over_the_limit_are_refused(plain):
    for item in (
        Item(b"hvc1", plain.content, [ispe(20_000, 20_000), plain.properties[1]]),
        grid(1, 1, (60_000, 60_000), [2]),
    ):
        with pytest.raises(ImageError, match=r"0000 x .0000 pixels; at most 100,000,000 are accepted"):
            decode("a file", heif(item, plain), None)


def test_pictures_made_of_themselves_or_of_too_many_are_refused(plain):
    same = Item(b"iden", b"", [ispe(W, H)], [(b"dimg", [1])])
    nested = [grid(1, 2, (W, H), [number + 1] * 2) for number in range(1, 40)]
    for items in ([same], [grid(1, 1, (W, H), [1])], [*nested, plain]):
        with pytest.raises(ImageError, match="made of too many others, or of itself"):
            decode("a file", heif(*items), None)
    assert apart(here(heif(Item(b"iden", b"", [ispe(W, H)], [(b"dimg", [2])]), plain)), PIXELS) <= 3


def test_many_tiles_of_one_picture_are_bounded():
    large = picture(Image.new("RGB", (256, 256)))
    many = grid(60, 60, (256, 256), [2] * 3600)
    with pytest.raises(ImageError, match=r"parts of .* pixels together"):
        decode("a file", heif(many, large), None)


@pytest.mark.parametrize("kind", [b"jpeg", b"unci", b"iovl", b"tmap", b"av01", b"mask"])
def test_other_kinds_of_pictures_are_refused_by_name(plain, kind):
    with pytest.raises(ImageError, match=rf"of a kind that is not read \({kind.decode()}\); save it as a JPEG or PNG"):
        decode("a file", heif(Item(kind, plain.content, plain.properties)), None)


def test_boxes_that_are_cut_or_overlap_are_refused(plain):
    data = heif(plain)
    for name in (b"ispe", b"hvcC", b"pitm", b"ipma", b"infe", b"iloc"):
        with pytest.raises(ImageError, match="HEI"):
            decode("a file", data.replace(name, b"none"), None)
    for end in (12, 40, 200, len(data) // 2, len(data) - 30):
        with pytest.raises(ImageError, match="HEI"):
            decode("a file", data[:end], None)


def test_mutations_are_refused_or_opened_and_nothing_else(plain):
    rng = np.random.default_rng(4)
    _, parts = tiles(2, 1)
    seeds = [heif(plain, exif(6)), heif(grid(1, 2, (120, 60), [2, 3], irot(1), clap(90, 50)), *parts)]
    for number in range(60):
        data = bytearray(seeds[number % 2])
        for place in rng.integers(0, 700 if number % 3 else len(data), 1 + number % 4):
            data[place] = rng.integers(256)
        try:
            open_image(bytes(data))
        except ImageError as error:
            assert str(error).isprintable() and "crash" not in str(error)


WITHOUT = """
import sys
import tarfile
import zipfile
sys.modules["pillow_heif"] = None  # the import fails, as where there is no wheel
from retrieval import open_source
from retrieval.errors import ImageError
from retrieval.images.door.decode import decode
try:
    decode("a.heic", open(sys.argv[1], "rb").read(), None)
except ImageError as error:
    print(error)
"""


def test_without_pillow_heif_the_refusal_says_how_to_get_a_jpeg(tmp_path, plain):
    (tmp_path / "a.heic").write_bytes(heif(plain))
    run = [sys.executable, "-c", WITHOUT, str(tmp_path / "a.heic")]
    said = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "found: HEIC" in said and "save it as a JPEG (an iPhone takes JPEGs with Settings > Camera" in said
    assert "BMP, TIFF and AVIF are accepted" in said


def test_pictures_of_phones_are_found_in_folders_archives_and_lists(tmp_path, plain):
    data = heif(plain)
    (tmp_path / "folder/cat").mkdir(parents=True)
    (tmp_path / "folder/cat/IMG_1.HEIC").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        packed.writestr("cat/IMG_1.hif", data)
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for name, content in (("1.heic", data), ("1.cls", b"cat")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    (tmp_path / "list.csv").write_text("path,label\nfolder/cat/IMG_1.HEIC,cat\n")
    for name in ("folder", "packed.zip", "shard.tar", "list.csv"):
        [row] = open_source(str(tmp_path / name)).rows()
        assert (row.label, row.read()) == ("cat", data), name
