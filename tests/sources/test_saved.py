"""Saved datasets and local data files: what is read, and our sentences for what cannot be."""

import json
import logging

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import png

from retrieval.build.build import build_artifact
from retrieval.errors import ImageError, SourceError
from retrieval.sources.datasets import source_error
from retrieval.sources.open import open_source, split_names

FEATURES = {
    "image": datasets.Image(),
    "label": datasets.ClassLabel(names=["cat", "dog", "none of these"]),
    "x": datasets.Value("float32"),
    "tags": datasets.List(datasets.Value("string")),
}
ROWS = {
    "image": [{"bytes": png(number), "path": f"{number}.png"} for number in range(4)],
    "label": [0, 1, -1, None],
    "x": [0.1, 2, None, 4],
    "tags": [["a"], [], ["b", "c"], None],
}
READ = [
    ("cat", {"x": 0.1, "tags": ["a"]}),
    ("dog", {"x": 2.0, "tags": []}),
    (None, {"x": None, "tags": ["b", "c"]}),
    (None, {"x": 4.0, "tags": None}),
]


def made(**changed):
    return datasets.Dataset.from_dict(ROWS, features=datasets.Features({**FEATURES, **changed}))


def read(path, **options):
    """[(label, attributes)] in order; checks the images, the number of rows, and every position to resume from."""
    source = open_source(str(path), **options)
    rows = list(source.rows())
    assert source.total in (len(rows), None)
    pa.Table.from_pylist([row.attributes for row in rows], schema=source.schema)
    for number, row in enumerate(rows):
        after = [(each.source, each.data) for each in source.rows(json.loads(json.dumps(row.position)))]
        assert after == [(each.source, each.data) for each in rows[number + 1 :]]
    return [(row.label, row.attributes) for row in rows]


# save_to_disk


@pytest.mark.parametrize("kind", ["images", "undecoded images", "structs", "two shards"])
def test_dataset_from_save_to_disk_is_read_cell_by_cell(tmp_path, kind):
    image = {"images": datasets.Image(), "undecoded images": datasets.Image(decode=False)}.get(kind)
    struct = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    made(image=image or struct).save_to_disk(tmp_path / "in", num_shards=2 if kind == "two shards" else 1)
    assert read(tmp_path / "in") == READ
    source = open_source(str(tmp_path / "in"))
    assert [row.read() for row in source.rows()] == [png(number) for number in range(4)]
    assert source.classes == ("cat", "dog", "none of these")
    assert source.about == {"name": "in"}


def test_splits_of_a_dataset_dict_are_read_together_or_alone(tmp_path):
    whole = made()
    parts = {"train": whole.select([0, 3]), "validation": whole.select([1]), "test": whole.select([])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path)
    assert split_names(str(tmp_path)) == ("train", "validation")
    assert read(tmp_path) == [READ[0], READ[3], READ[1]]
    assert read(tmp_path, split="validation") == [READ[1]]
    assert open_source(str(tmp_path)).fingerprint != open_source(str(tmp_path), split="train").fingerprint
    with pytest.raises(SourceError, match="has no split 'dev'; it has train, validation"):
        open_source(str(tmp_path), split="dev")


def test_splits_with_different_columns_are_joined(tmp_path):
    parts = {"train": made().select([0]), "test": made().select([1]).rename_column("x", "y")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path)
    assert read(tmp_path) == [
        ("cat", {"x": 0.1, "tags": ["a"], "y": None}),
        ("dog", {"x": None, "tags": [], "y": 2.0}),
    ]


def test_arrow_files_are_read_without_their_description(tmp_path):
    made().save_to_disk(tmp_path / "in")
    (file,) = (tmp_path / "in").glob("*.arrow")
    assert read(file) == READ
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / "in" / name).unlink()
    assert read(tmp_path / "in") == READ


def test_saved_dataset_that_is_not_whole_is_named(tmp_path):
    made().save_to_disk(tmp_path / "in")
    (file,) = (tmp_path / "in").glob("*.arrow")
    data = file.read_bytes()
    file.write_bytes(data[:50])
    with pytest.raises(SourceError, match=r"cannot be read as a dataset from save_to_disk: .*copy the whole folder"):
        open_source(str(tmp_path / "in"))
    file.unlink()
    with pytest.raises(SourceError, match=r"cannot be read as a dataset from save_to_disk: .*copy the whole folder"):
        open_source(str(tmp_path / "in"))
    made().select([]).save_to_disk(tmp_path / "empty")
    with pytest.raises(SourceError, match="has no rows: train was saved"):
        open_source(str(tmp_path / "empty"))
    with pytest.raises(SourceError, match="has no configurations"):
        open_source(str(tmp_path / "in"), config="a")


# Parquet files


def parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(next(iter(columns.values())))
    pq.write_table(pa.table({"image": [{"bytes": png(n), "path": None} for n in range(count)], **columns}), path)
    return path


JOINED = {
    "different columns": ({"x": [1]}, {"y": ["a"]}, [{"x": 1, "y": None}, {"x": None, "y": "a"}]),
    "whole numbers and fractions": ({"x": [1]}, {"x": [1.5]}, [{"x": 1.0}, {"x": 1.5}]),
    "narrow and wide numbers": ({"x": pa.array([1], pa.int8())}, {"x": [2**40]}, [{"x": 1}, {"x": 2**40}]),
    "only missing values": ({"x": pa.array([None])}, {"x": ["late"]}, [{"x": None}, {"x": "late"}]),
    "another order": ({"x": [1], "y": [2]}, {"y": [4], "x": [3]}, [{"x": 1, "y": 2}, {"x": 3, "y": 4}]),
    "a file without rows": ({"x": pa.array([], pa.int64())}, {"x": [3]}, [{"x": 3}]),
}


@pytest.mark.parametrize("names", [("a.parquet", "b.parquet"), ("train-0.parquet", "test-0.parquet")])
@pytest.mark.parametrize("written", JOINED)
def test_columns_of_several_files_are_joined(tmp_path, written, names):
    *files, expected = JOINED[written]
    for name, columns in zip(names, files, strict=True):
        parquet(tmp_path / name, **columns)
    assert [attributes for _, attributes in read(tmp_path)] == expected


def test_file_without_the_note_that_it_holds_images_is_joined(tmp_path):
    made().to_parquet(tmp_path / "a.parquet")
    plain = pq.read_table(tmp_path / "a.parquet").replace_schema_metadata(None)
    pq.write_table(plain, tmp_path / "b.parquet")
    assert [label for label, _ in read(tmp_path)] == [label for label, _ in READ] * 2


def test_row_group_without_rows_is_passed_over(tmp_path):
    rows = pa.table({"image": [{"bytes": png(1), "path": None}], "x": [7]})
    with pq.ParquetWriter(tmp_path / "x.parquet", rows.schema) as writer:
        writer.write_table(rows.slice(0, 0))
        writer.write_table(rows)
    assert read(tmp_path / "x.parquet") == [(None, {"x": 7})]


UNREADABLE = {
    "two types": ({"a": {"x": [1]}, "b": {"x": ["q"]}}, "column 'x' is int64 in a.parquet and string in b.parquet"),
    "no rows": (
        {"a": {"x": pa.array([], pa.int64())}},
        r"has no rows: it is a parquet file with .*\(image, x",
    ),
    "cut short": ({"a": {"x": [1]}, "b": b"PAR1"}, r"b\.parquet is no parquet file, or it is damaged or cut short"),
    "0 bytes": ({"a": b""}, r"a\.parquet is no parquet file, or it is damaged or cut short"),
    "Git LFS": (
        {"a": b"version https://git-lfs.github.com/spec/v1\n"},
        "pointer of Git LFS.*git lfs pull",
    ),
}


@pytest.mark.parametrize("written", UNREADABLE)
def test_parquet_files_that_cannot_be_read_are_named(tmp_path, written, capfd):
    files, message = UNREADABLE[written]
    for name, content in files.items():
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(content) if isinstance(content, bytes) else parquet(path, **content)
    with pytest.raises(SourceError, match=message) as raised:
        open_source(str(tmp_path))
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""


def test_failure_while_reading_is_one_line(tmp_path, caplog):
    parquet(tmp_path / "a.parquet", x=[2**60 + 1])
    parquet(tmp_path / "b.parquet", x=[1.5])
    logging.getLogger("datasets").addHandler(caplog.handler)
    with pytest.raises(SourceError, match="cannot be read: Integer value 1152921504606846977"):
        list(open_source(str(tmp_path)).rows())
    logging.getLogger("datasets").removeHandler(caplog.handler)
    assert not caplog.records


def test_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    parquet(tmp_path / "x.parquet", x=[1])
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "below")
    with pytest.raises(SourceError, match=r"file/below, cannot be written \(Not a directory\): set HF_HOME"):
        open_source(str(tmp_path / "x.parquet"))


def test_full_disk_is_named():
    with pytest.raises(OSError, match="No space left") as raised, open("/dev/full", "w") as file:  # noqa: PTH123
        file.write("x")
        file.flush()
    assert "the disk is full: free some space" in str(source_error("owner/name", raised.value))


def test_rows_that_lead_out_of_the_dataset_are_skipped_with_the_reason(tmp_path, encoder):
    (tmp_path / "out.png").write_bytes(png(1))
    table = pa.table({"image": [{"bytes": None, "path": "../out.png"}, {"bytes": png(2), "path": None}]})
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "x.parquet")
    report = build_artifact(open_source(str(tmp_path / "in")), tmp_path / "built", encoder)
    assert (report.found, report.indexed) == (2, 1)
    ((_, reason),) = report.skipped
    assert "points outside the data set" in reason
    with pytest.raises(ImageError, match="points outside the data set"):
        next(open_source(str(tmp_path / "in")).rows()).read()
