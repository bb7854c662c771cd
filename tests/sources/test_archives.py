"""Archives as people have them: each test packs one, and compares what was read with it, cell by cell."""

import io
import json
import re
import tarfile
import zipfile

import pyarrow as pa
import pytest
from conftest import png

from retrieval.build.build import build_artifact
from retrieval.commands.paths import check_source
from retrieval.errors import ImageError, SourceError
from retrieval.images.door.files import MAX_BYTES
from retrieval.images.open import open_image
from retrieval.sources.open import open_source, pinned, split_names

MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


def data_of(content):
    """A number is a picture, different for each number; text is UTF-8; other values are JSON."""
    if isinstance(content, int):
        return png(content)
    content = content if isinstance(content, str | bytes) else json.dumps(content)
    return content.encode() if isinstance(content, str) else content


def tar(path, files):
    """Write {name: content} as a tar file, compressed as its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = next(suffix for suffix in reversed(MODES) if path.name.endswith(suffix))
    with tarfile.open(path, MODES[suffix]) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data := data_of(content))
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path, files):
    """Write {name: content} as a zip file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, data_of(content))
    return path


def pack(path, files):
    return (zipped if path.suffix == ".zip" else tar)(path, files)


def read(path, **options):
    """{source: (label, attributes)}; checks the schema, the number of rows, and every position to resume from."""
    source = open_source(str(path), **options)
    rows = list(source.rows())
    assert source.total == len(rows)
    assert len({row.source for row in rows}) == len(rows)
    pa.Table.from_pylist([row.attributes for row in rows], schema=source.schema)  # fails if a value has another type
    for number, row in enumerate(rows):
        after = [(each.source, each.read()) for each in source.rows(json.loads(json.dumps(row.position)))]
        assert after == [(each.source, each.read()) for each in rows[number + 1 :]]
    if path.is_file() and "split" not in options:
        check_accounts(path, source, rows)
    return {row.source: (row.label, row.attributes) for row in rows}


def check_accounts(path, source, rows):
    """Check that each visible file of an archive is a row, left out, or describes a row."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    else:
        with tarfile.open(path) as archive:
            names = [member.name for member in archive if not member.isdir()]
    seen = [name.replace("\\", "/").split("/") for name in names]
    seen = [parts for parts in seen if not any(re.match(r"\.[^.]|__MACOSX$", part) for part in parts)]
    last = [parts[-1] for parts in seen if not parts[-1].startswith("metadata.")]
    describing = sum(name.endswith((".cls", ".txt", ".json")) for name in last)
    without_file = len(rows) - len({row.source for row in rows if row.problem is None and (row.path or row.data)})
    others = [left for left in source.left_out if not re.search(r", (line|row) \d+$", left.name)]
    described = len(last) - (len(rows) - without_file) - sum(left.count for left in others)
    assert 0 <= described <= describing


def pictures(path):
    return {row.source: row.read() for row in open_source(str(path)).rows()}


def left_out(path):
    return {left.name: (left.reason, left.count) for left in open_source(str(path)).left_out}


# WebDataset: what is packed, and what is read. Each value is a label and attributes.

SHARDS = {
    "numbers as labels": (
        {"0.jpg": 0, "0.cls": "7", "1.jpg": 1, "1.cls": "10\n"},
        {"0.jpg": ("7", {}), "1.jpg": ("10", {})},
    ),
    "words as labels": ({"0.cls": "cat", "0.jpg": 0}, {"0.jpg": ("cat", {})}),
    "captions": (
        {"0.jpg": 0, "0.txt": " a red bag\n", "1.jpg": 1, "1.txt": "007"},
        {"0.jpg": (None, {"caption": "a red bag"}), "1.jpg": (None, {"caption": "007"})},
    ),
    "a caption that is not UTF-8": ({"0.jpg": 0, "0.txt": b"gro\xdf"}, {"0.jpg": (None, {"caption": "groß"})}),
    "fields of JSON": (
        {"0.jpg": 0, "0.json": {"label": 3, "price": 1.5, "sku": "007", "tags": ["a"], "id": 9}},
        {"0.jpg": ("3", {"price": 1.5, "sku": "007", "tags": ["a"], "id_": 9})},
    ),
    "types over the whole column": (
        {"0.jpg": 0, "0.json": {"x": 1}, "1.jpg": 1, "1.json": {"x": "late"}, "2.jpg": 2, "2.json": {"y": True}},
        {
            "0.jpg": (None, {"x": "1", "y": None}),
            "1.jpg": (None, {"x": "late", "y": None}),
            "2.jpg": (None, {"x": None, "y": True}),
        },
    ),
    "an image without description": (
        {"0.jpg": 0, "0.cls": "3", "1.jpg": 1},
        {"0.jpg": ("3", {}), "1.jpg": (None, {})},
    ),
    "label and caption twice": (
        {"0.jpg": 0, "0.cls": "cat", "0.txt": "a cat", "0.json": {"label": 3, "caption": "a cat"}},
        {"0.jpg": ("cat", {"caption": "a cat", "label_json": 3})},
    ),
    "JSON that is a list": ({"0.jpg": 0, "0.json": ["a", "b"]}, {"0.jpg": (None, {"json": ["a", "b"]})}),
    "several images of a key": (
        {"0.left.jpg": 0, "0.right.jpg": 1, "0.cls": "5", "0.txt": "both", "0.right.txt": "right"},
        {"0.left.jpg": ("5", {"caption": "both"}), "0.right.jpg": ("5", {"caption": "right"})},
    ),
    "keys in folders": (
        {"cat/0.jpg": 0, "cat/0.txt": "x", "dog/0.jpg": 1, "dog/0.txt": "y"},
        {"cat/0.jpg": ("cat", {"caption": "x"}), "dog/0.jpg": ("dog", {"caption": "y"})},
    ),
    "folders": (
        {"train/cat/1.jpg": 0, "train/dog/1.jpg": 1},
        {"train/cat/1.jpg": ("cat", {}), "train/dog/1.jpg": ("dog", {})},
    ),
    "metadata": (
        {"0.jpg": 0, "metadata.csv": "file_name,x\n0.jpg,07\n1.jpg,8\n", "1.jpg": 1, "1.txt": "not read"},
        {"0.jpg": (None, {"x": "07"}), "1.jpg": (None, {"x": "8"})},
    ),
    "names with a dot in front": (
        {"./cat/0.jpg": 0, "./._0.jpg": "Mac", "__MACOSX/0.jpg": "Mac"},
        {"cat/0.jpg": ("cat", {})},
    ),
    "the folder of the archive": (
        {"pack/0.jpg": 0, "pack/1.jpg": 1},
        {"pack/0.jpg": (None, {}), "pack/1.jpg": (None, {})},
    ),
    "no extension": ({"cat/0": 0, "cat/1": 1}, {"cat/0": ("cat", {}), "cat/1": ("cat", {})}),
}


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
@pytest.mark.parametrize("written", SHARDS)
def test_tar_file_is_read_as_it_was_packed(tmp_path, written, suffix):
    files, expected = SHARDS[written]
    path = tar(tmp_path / f"pack{suffix}", files)
    assert read(path) == expected
    assert pictures(path) == {name: data_of(files.get(name, files.get(f"./{name}"))) for name in expected}


@pytest.mark.parametrize("suffix", MODES)
def test_tar_file_is_read_however_it_is_compressed(tmp_path, suffix):
    files = {f"{number}.jpg": number for number in range(5)}
    assert pictures(tar(tmp_path / f"x{suffix}", files)) == {name: png(number) for name, number in files.items()}


def test_other_files_of_a_tar_file_are_one_line(tmp_path):
    files = {f"{n}{suffix}": b"x" * 40 for n in range(3) for suffix in (".npy", ".mp3")}
    path = tar(tmp_path / "x.tar", {**files, "0.jpg": 0, "alone.txt": "no picture of this key"})
    assert set(read(path)) == {"0.jpg"}
    assert {name: count for name, (_, count) in left_out(path).items()} == {
        "6 files (3 .mp3, 3 .npy)": 6,
        "alone.txt": 1,
    }


def test_sidecar_that_is_not_json_or_too_large_is_left_out(tmp_path):
    path = tar(tmp_path / "x.tar", {"0.jpg": 0, "0.json": "{", "1.jpg": 1, "1.txt": "x" * (2**20 + 1)})
    assert read(path) == {"0.jpg": (None, {}), "1.jpg": (None, {})}
    assert "not JSON" in left_out(path)["0.json"][0]
    assert "at most 1 MiB" in left_out(path)["1.txt"][0]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_folder_of_archives_is_read_as_if_unpacked(tmp_path, suffix):
    kind = "zip" if suffix == ".zip" else "tar"
    for number in range(2):
        pack(tmp_path / f"shard-{number}{suffix}", {"cat/0.jpg": number, "dog/1.jpg": 5 + number})
    assert read(tmp_path) == {
        f"{kind}://{name}::shard-{number}{suffix}": (name[:3], {})
        for number in range(2)
        for name in ("cat/0.jpg", "dog/1.jpg")
    }


def test_pattern_names_several_archives(tmp_path):
    for number in range(3):
        tar(tmp_path / f"s-{number:02}.tar", {"0.jpg": number, "0.cls": str(number)})
    for pattern, numbers in {
        "s-{00..01}.tar": [0, 1],
        "s-{02,00}.tar": [0, 2],
        "s-*.tar": [0, 1, 2],
        "s-0[12].*": [1, 2],
    }.items():
        found = read(tmp_path / pattern)
        assert found == {f"tar://0.jpg::s-{number:02}.tar": (str(number), {}) for number in numbers}
    check_source(str(tmp_path / "s-*.tar"))
    assert pinned(str(tmp_path / "s-*.tar")) == str(tmp_path / "s-*.tar")
    with pytest.raises(SourceError, match=r"names 5 files; of these, 2 cannot be found, the first: s-03\.tar"):
        open_source(str(tmp_path / "s-{00..04}.tar"))
    with pytest.raises(SourceError, match="matches none of the 3 files"):
        open_source(str(tmp_path / "t-*.tar"))


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_numbers_become_names_where_a_list_has_them(tmp_path, place):
    files = {"0.jpg": 0, "0.cls": "1", "1.jpg": 1, "1.cls": "0", "2.jpg": 2}
    listed = {"classes.txt": "cat\nbig dog\n"}
    tar(tmp_path / "0.tar", files | (listed if place == "inside" else {}))
    if place == "beside":
        (tmp_path / "classnames.txt").write_text(listed["classes.txt"])
    for source in (tmp_path, tmp_path / "0.tar"):
        assert [label for label, _ in read(source).values()] == ["big dog", "cat", None]
        assert not left_out(source)
    tar(tmp_path / "1.tar", {"3.jpg": 3, "3.cls": "2"})
    assert [label for label, _ in read(tmp_path / "?.tar").values()] == ["1", "0", "2", None], "two names are too few"


def test_folder_of_img2dataset_is_read_from_its_tar_files(tmp_path):
    fields = {"key": "0000", "caption": "a bag", "sha256": "ab", "width": 32, "exif": "{}"}
    tar(tmp_path / "00000.tar", {"0000.jpg": 0, "0000.txt": "a bag", "0000.json": fields})
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    (tmp_path / "00000_stats.json").write_text("{}")
    columns = {"key": "0000", "caption": "a bag", "sha256_": "ab", "width": 32, "exif": "{}"}
    assert read(tmp_path) == {"tar://0000.jpg::00000.tar": (None, columns)}
    assert {name: count for name, (_, count) in left_out(tmp_path).items()} == {
        "1 file (.parquet)": 1,
        "00000_stats.json": 1,
    }


# Zip files

ZIPS = {
    "class folders": ({"cat/0.jpg": 0, "dog/1.png": 1}, {}, {"cat/0.jpg": ("cat", {}), "dog/1.png": ("dog", {})}),
    "metadata inside": (
        {"0.jpg": 0, "sub/1.jpg": 1, "metadata.csv": "file_name,x\n0.jpg,7\nsub/1.jpg,8\n"},
        {},
        {"0.jpg": (None, {"x": 7}), "sub/1.jpg": ("sub", {"x": 8})},
    ),
    "metadata beside": (
        {"0.jpg": 0, "sub/1.jpg": 1},
        {"metadata.jsonl": '{"file_name": "sub/1.jpg", "label": "b"}'},
        {"0.jpg": (None, {}), "sub/1.jpg": ("b", {})},
    ),
    "metadata inside and beside": (
        {"0.jpg": 0, "metadata.csv": "file_name,x\n0.jpg,inside\n"},
        {"metadata.csv": "file_name,x\n0.jpg,beside\n"},
        {"0.jpg": (None, {"x": "inside"})},
    ),
    "metadata of something else beside": (
        {"0.jpg": 0},
        {"metadata.csv": "file_name,x\nother.jpg,beside\n"},
        {"0.jpg": (None, {})},
    ),
    "metadata in the folder of the archive": (
        {"pack/0.jpg": 0, "pack/metadata.tsv": "file_name\tx\n0.jpg\tred\n", "__MACOSX/pack/._0.jpg": "Mac"},
        {},
        {"pack/0.jpg": (None, {"x": "red"})},
    ),
    "notes are not captions": ({"0.jpg": 0, "0.txt": "0 0.5 0.5 1 1"}, {}, {"0.jpg": (None, {})}),
    "Unicode": (
        {"Café/1.jpg": 0, "Cafe\u0301/2.jpg": 1},
        {},
        {"Café/1.jpg": ("Café", {}), "Cafe\u0301/2.jpg": ("Café", {})},
    ),
    "backslashes": ({"cat\\0.jpg": 0}, {}, {"cat/0.jpg": ("cat", {})}),
}


@pytest.mark.parametrize("written", ZIPS)
def test_zip_file_is_read_as_it_was_packed(tmp_path, written):
    files, beside, expected = ZIPS[written]
    path = zipped(tmp_path / "pack.zip", files)
    for name, text in beside.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert read(path) == expected
    assert not left_out(path) or "0.txt" in files
    assert all(open_image(data).size == (32, 32) for data in pictures(path).values())


def renamed(path, old, new):
    """Replace a name of the same length in a zip file, without saying that it is UTF-8."""
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


@pytest.mark.parametrize(
    ("raw", "name"),
    [("Caf\u00e9".encode("cp437") + b"_", "Café_"), ("Caf\u00e9".encode(), "Café")],
    ids=["CP437", "UTF-8 of a Mac, not marked"],
)
def test_names_in_a_zip_file_that_are_not_marked_as_utf8(tmp_path, raw, name):
    path = renamed(zipped(tmp_path / "x.zip", {"xxxxx/0.jpg": 0}), b"xxxxx", raw)
    assert read(path) == {f"{name}/0.jpg": (name, {})}


def test_metadata_inside_a_zip_file_of_a_folder_is_read(tmp_path):
    zipped(tmp_path / "sub" / "z.zip", {"0.jpg": 0, "metadata.csv": "file_name,x\n0.jpg,7\n"})
    (tmp_path / "sub" / "metadata.csv").write_text("file_name,x\n0.jpg,8\n")
    assert read(tmp_path) == {"zip://0.jpg::sub/z.zip": ("sub", {"x": 7})}
    assert "is named in sub/z.zip/metadata.csv, line 2 already" in left_out(tmp_path)["sub/metadata.csv, line 2"][0]


# Hostile and damaged archives


def hostile(path):
    with tarfile.open(path, "w") as archive:
        for name in ("/etc/evil.jpg", "../evil.jpg", "a/../../evil.jpg", "cat/fine.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(png(1))
            archive.addfile(info, io.BytesIO(png(1)))
        for name, kind in {
            "link.jpg": tarfile.SYMTYPE,
            "hard.jpg": tarfile.LNKTYPE,
            "null.jpg": tarfile.CHRTYPE,
        }.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return path


def test_hostile_members_are_left_out_and_nothing_is_written(tmp_path):
    path = hostile(tmp_path / "x.tar")
    before = sorted(tmp_path.parent.iterdir())
    assert set(read(path)) == {"cat/fine.jpg"}
    reasons = {name: reason for name, (reason, _) in left_out(path).items()}
    assert reasons == {
        "etc/evil.jpg": "its path leads out of the archive",
        "../evil.jpg": "its path leads out of the archive",
        "a/../../evil.jpg": "its path leads out of the archive",
        "link.jpg": "a link: links in an archive are not followed",
        "hard.jpg": "a link: links in an archive are not followed",
        "null.jpg": "neither a file nor a folder",
    }
    assert sorted(tmp_path.parent.iterdir()) == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_nested_archives_and_repeated_names_are_left_out(tmp_path, suffix):
    inner = tar(tmp_path / "inner.tar", {"0.jpg": 5}).read_bytes()
    path = pack(tmp_path / f"x{suffix}", {"0.jpg": 0, "more.tar": inner, "more.zip": b"PK"})
    with tarfile.open(path, "a") if suffix == ".tar" else zipfile.ZipFile(path, "a") as archive:
        if suffix == ".tar":
            info = tarfile.TarInfo("0.jpg")
            info.size = len(png(9))
            archive.addfile(info, io.BytesIO(png(9)))
        else:
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("0.jpg", png(9))
    assert pictures(path) == {"0.jpg": png(9)}
    assert set(left_out(path)) == {"0.jpg", "more.tar", "more.zip"}


def test_encrypted_files_are_left_out_with_the_reason(tmp_path):
    path = zipped(tmp_path / "x.zip", {"0.jpg": 0, "1.jpg": 1})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1  # the flag of the first file
    path.write_bytes(data)
    assert set(pictures(path)) == {"1.jpg"}
    assert "encrypted" in left_out(path)["0.jpg"][0]


def test_many_files_left_out_for_one_reason_are_one_line(tmp_path):
    path = tar(tmp_path / "x.tar", {"0.jpg": 0, **{f"../{number}.jpg": number for number in range(20)}})
    assert left_out(path) == {"20 files": ("its path leads out of the archive", 20)}


def test_tar_file_is_recognised_by_its_content(tmp_path):
    tar(tmp_path / "x.tgz", {"0.jpg": 0}).rename(tmp_path / "a.tar")
    tar(tmp_path / "x.tar", {"0.jpg": 1}).rename(tmp_path / "b.tar.gz")
    assert list(pictures(tmp_path).values()) == [png(1), png(0)], "compressed ones last"


def test_file_that_inflates_to_more_than_it_may_is_refused(tmp_path):
    path = zipped(tmp_path / "x.zip", {"0.jpg": bytes(MAX_BYTES + 1), "1.jpg": bytes(3 * 2**20)})
    data = path.read_bytes()
    small = (3 * 2**20).to_bytes(4, "little")
    path.write_bytes(data.replace(small, (100).to_bytes(4, "little")))  # claims 100 bytes
    large, liar = open_source(str(path)).rows()
    with pytest.raises(ImageError, match="too large"):
        large.read()
    with pytest.raises(ImageError, match="cannot be read: Bad CRC-32"):
        liar.read()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
@pytest.mark.parametrize("share", [0, 0.4, 0.8])
def test_archive_that_is_cut_short_is_named(tmp_path, suffix, share):
    path = pack(tmp_path / f"x{suffix}", {f"{number}.jpg": number for number in range(9)})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share) // 512 * 512 + 100])
    for source in (path, tmp_path):
        with pytest.raises(
            SourceError, match=rf"cannot be read: x{suffix} is (no|not a) (tar|zip) file.*copy it"
        ) as raised:
            open_source(str(source))
        assert "\n" not in str(raised.value)


def test_tar_file_that_ends_between_two_files_is_noted(tmp_path):
    path = tar(tmp_path / "x.tar", {"0.jpg": 0, "1.jpg": 1})
    with tarfile.open(path) as archive:
        end = archive.getmembers()[1].offset
    whole = path.read_bytes()
    path.write_bytes(whole[:end])
    assert any("may have been cut short" in note for note in open_source(str(path)).notes)
    path.write_bytes(whole + whole)
    assert any("were two files joined" in note for note in open_source(str(path)).notes)


def test_damage_in_the_middle_of_a_tar_file_does_not_hide_the_rest(tmp_path):
    path = tar(tmp_path / "x.tar", {"0.jpg": 0, "1.jpg": 1, "2.jpg": 2})
    data = bytearray(path.read_bytes())
    data[data.index(b"1.jpg")] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match="damaged or cut short after 1 file"):
        open_source(str(path))


def test_header_of_any_length_is_not_held_in_memory(tmp_path):
    info = tarfile.TarInfo("0.jpg")
    info.pax_headers = {"comment": "x" * 2**21}
    with tarfile.open(tmp_path / "x.tgz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    with pytest.raises(SourceError, match="a header is too long"):
        open_source(str(tmp_path / "x.tgz"))


def test_archives_that_hold_no_picture_or_cannot_be_read_say_so(tmp_path):
    with pytest.raises(SourceError, match="is empty: it contains no file that could be an image"):
        open_source(str(tar(tmp_path / "none.tar", {})))
    (tmp_path / "x.rar").write_bytes(b"Rar!")
    with pytest.raises(SourceError, match="unpack it, and name the folder"):
        open_source(str(tmp_path / "x.rar"))
    with pytest.raises(SourceError, match="has no configurations"):
        open_source(str(tmp_path / "none.tar"), config="a")


# Splits


@pytest.mark.parametrize("layout", ["names", "folders", "one zip", "one tar", "below one folder"])
def test_splits_of_archives(tmp_path, layout):
    if layout == "names":
        for name, number in {"cc-train-000.tar": 0, "cc-train-001.tar": 1, "cc-val-000.tgz": 2}.items():
            tar(tmp_path / name, {f"cat/{number}.jpg": number})
        path = tmp_path
    elif layout == "folders":
        for name, number in {"train/0.tar": 0, "train/1.tar": 1, "val/0.zip": 2}.items():
            pack(tmp_path / name, {f"cat/{number}.jpg": number})
        path = tmp_path
    else:
        above = "data/" if layout == "below one folder" else ""
        files = {f"{above}{part}/cat/{n}.jpg": n for n, part in enumerate(["train", "train", "val"])}
        path = pack(tmp_path / ("x.tar" if layout == "one tar" else "x.zip"), files)
    assert split_names(str(path)) == ("train", "validation")
    for split, numbers in {"train": [0, 1], "validation": [2]}.items():
        rows = list(open_source(str(path), split=split).rows())
        assert [row.read() for row in rows] == [png(number) for number in numbers]
        assert {row.label for row in rows} == {"cat"}


def test_splits_of_a_compressed_tar_file_come_in_the_order_asked_for(tmp_path):
    files = {f"{part}/{number}.jpg": number for number, part in enumerate(["val", "train", "val", "train"])}
    path = tar(tmp_path / "x.tgz", files)
    rows = {split: [row.source for row in open_source(str(path), split=split).rows()] for split in SPLITS}
    assert rows == SPLITS
    assert len(read(path, split="train+validation")) == 4


SPLITS = {
    "train+validation": ["train/1.jpg", "train/3.jpg", "val/0.jpg", "val/2.jpg"],
    "validation+train": ["val/0.jpg", "val/2.jpg", "train/1.jpg", "train/3.jpg"],
}


# Accounting, and resuming


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_every_member_is_accounted_for(tmp_path, encoder, suffix):
    files = {"0.jpg": 0, "0.cls": "a", "1.jpg": 0, "1.cls": "b", "2.jpg": b"x" * 50, "2.npy": b"x" * 50, "/3.jpg": 3}
    path = tar(tmp_path / "in" / f"x{suffix}", files)
    report = build_artifact(open_source(str(path)), tmp_path / "out", encoder)
    assert (report.indexed, [name for name, _ in report.skipped], report.duplicates) == (
        1,
        ["2.jpg"],
        [("1.jpg", "0.jpg")],
    )
    assert {name: count for name, _, count in report.left_out} == {"2.npy": 1, "3.jpg": 1}
    assert report.found == 1 + 1 + 1 + 2
