"""The parts of a source: together they are all of its rows, each once and in order, and each reads only its own."""

import shutil
import tarfile
import zipfile
from itertools import chain, islice

import datasets
import pytest
from conftest import noise, png, write_data_set

from retrieval.build.parts.split import share_of
from retrieval.errors import SourceError
from retrieval.sources.open import open_source
from retrieval.sources.originals import with_originals

ROWS = 11


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Kind -> name of a source with 11 images."""
    root = tmp_path_factory.mktemp("sources")
    files = [noise(root / "folder" / "ab"[number % 2] / f"{number}.png", number) for number in range(ROWS)]
    (root / "list.csv").write_text(
        "\n".join(["image,label", *(f"folder/ab/../{path.parent.name}/{path.name},x" for path in files)])
    )
    with zipfile.ZipFile(root / "it.zip", "w") as archive:
        for path in files:
            archive.write(path, path.relative_to(root / "folder"))
    for name, mode in (("it.tar", "w"), ("it.tar.gz", "w:gz")):
        with tarfile.open(root / name, mode) as archive:
            archive.add(root / "folder", ".")
    pictures = [(png(number), str(number)) for number in range(ROWS)]
    write_data_set(root / "set", train=pictures[:7], validation=pictures[7:])
    rows = datasets.load_dataset("parquet", data_dir=str(root / "set"), split="train", cache_dir=str(root / "cache"))
    for number in range(3):
        rows.shard(3, number, contiguous=True).to_parquet(root / "files" / f"train-{number}.parquet", batch_size=1)
    datasets.concatenate_datasets([rows, rows.select(range(4))]).save_to_disk(str(root / "saved"))
    shutil.copy(next((root / "saved").glob("*.arrow")), root / "it.arrow")
    return {path.name: str(path) for path in root.iterdir() if path.name != "cache"}


def told(rows):
    return [(raw.source, raw.label, raw.original, raw.read()) for raw in rows]


@pytest.mark.parametrize(
    "kind", ["folder", "list.csv", "it.zip", "it.tar", "it.tar.gz", "set", "files", "saved", "it.arrow"]
)
def test_parts_of_a_source_are_its_rows_and_resume_anywhere(kind, sources):
    whole = told(with_originals(open_source(sources[kind])).rows())
    assert len(whole) in (7, ROWS)
    for count in (1, 2, 3, len(whole), len(whole) + 2):
        shares = [share_of(with_originals(open_source(sources[kind])), index, count, None) for index in range(count)]
        parts = [told(islice(share.source.rows(), share.limit)) for share in shares]
        assert list(chain(*parts)) == whole
        sizes = {len(part) for part in parts}
        assert max(sizes) - min(sizes) <= 1
    share = share_of(open_source(sources[kind]), 1, 2, None)
    rows = list(share.source.rows())
    for number, raw in enumerate(rows):
        assert told(share.source.rows(raw.position))[:3] == told(rows[number + 1 :])[:3]


def test_parts_within_a_limit_are_the_first_rows(sources):
    whole = told(open_source(sources["folder"]).rows())
    shares = [share_of(open_source(sources["folder"]), index, 3, 7) for index in range(3)]
    assert list(chain(*(told(islice(share.source.rows(), share.limit)) for share in shares))) == whole[:7]
    assert [share.limit for share in shares] == [2, 2, 3]


def test_part_of_files_starts_at_the_file_of_its_first_row(sources):
    source = open_source(sources["files"])
    assert source.total == 7
    found = [source.seek(row) for row in range(7)]
    assert [(position["number"], between) for position, between in found] == [
        (-1, 0), (-1, 1), (-1, 2), (2, 0), (2, 1), (4, 0), (4, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("index", "count"), [(3, 3), (-1, 3), (0, 0)])
def test_part_that_is_not_there_is_refused(index, count, sources):
    with pytest.raises(SourceError, match=f"there is no part {index} of {count}"):
        share_of(open_source(sources["folder"]), index, count, None)


def test_listing_is_the_same_for_a_copy_elsewhere_and_another_for_other_files(sources, tmp_path):
    for kind in ("folder", "list.csv", "files"):
        assert open_source(sources[kind]).listing
    for place in ("one", "two"):
        for number in range(3):
            noise(tmp_path / place / "it" / f"{number}.png", number)
        (tmp_path / place / "it.csv").write_text("image\nit/0.png\nit/1.png")
        write_data_set(tmp_path / place / "set", train=[(png(number), "x") for number in range(4)])
    for name in ("it", "it.csv", "set"):
        one, two = (open_source(str(tmp_path / place / name)) for place in ("one", "two"))
        assert one.fingerprint != two.fingerprint
        assert one.listing == two.listing
    before = open_source(str(tmp_path / "one" / "it")).listing
    (tmp_path / "one" / "it" / "2.png").rename(tmp_path / "one" / "it" / "3.png")
    assert open_source(str(tmp_path / "one" / "it")).listing != before
    (tmp_path / "one" / "it.csv").write_text("image\nit/1.png\nit/0.png")
    listings = [open_source(str(tmp_path / place / "it.csv")).listing for place in ("one", "two")]
    assert listings[0] != listings[1]
