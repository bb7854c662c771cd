"""Artifacts from strangers: whatever is in a file, it is refused in one sentence before it costs memory."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import refused, reseal, sealed

from retrieval import Searcher, open_artifact
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.encoders.engines.choose import ENGINE
from retrieval.errors import ArtifactError, IntegrityError
from retrieval.images.gallery import read_tables, write_gallery
from retrieval.images.stored import files, opened
from retrieval.ui.reload import Reloader
from retrieval.ui.serving import Live

BOMB = 2 * 10**9


def edited(folder, name, change):
    """Change the JSON of a file, and forge the manifest to match."""
    held = json.loads((folder / name).read_text())
    change(held)
    (folder / name).write_text(json.dumps(held))
    reseal(folder)


def with_column(folder, name, values, **options):
    """Add a column to the gallery, or replace it."""
    table = pq.read_table(folder / LAYOUT.gallery)
    if name in table.column_names:
        table = table.set_column(table.column_names.index(name), name, values)
    else:
        table = table.append_column(name, values)
    pq.write_table(table, folder / LAYOUT.gallery, **{"row_group_size": 32, **options})
    reseal(folder)


# The encoder


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (["num_classes"], 99_999),
        (["num_classes"], BOMB),
        (["num_classes"], float("inf")),
        (["num_classes"], -1),
        (["num_classes"], "16"),
        (["model_args"], {"block_args": [["ir_r99999_k3_s1_e1_c16"]]}),
        (["model_args"], {"in_chans": BOMB}),
        (["model_args"], {"checkpoint_path": "/etc/passwd"}),
        (["model_args"], [1]),
        (["lookalike"], {"head": "99999-relu-99999-relu-16"}),
        (["lookalike"], {"head": "-".join(["9999"] * 50_000)}),
        (["lookalike"], 7),
        (["lookalike"], {"weights": 7}),
        (["lookalike"], {"weights": []}),
        (["lookalike"], {"weights": {"name": "mine"}, "head": 7}),
        (["lookalike"], {"weights": {"name": ["mine"], "license": "mit"}}),
        (["lookalike"], {"weights": {"name": "mine", "license": {"id": "mit"}}}),
        (["pretrained_cfg"], None),
        (["pretrained_cfg", "input_size"], [3, 30_000, 30_000]),
        (["pretrained_cfg", "input_size"], [BOMB, 1, 1]),
        (["pretrained_cfg", "input_size"], 96),
        (["pretrained_cfg", "crop_pct"], 0.0001),
        (["pretrained_cfg", "std"], [0, 0, 0]),
        (["pretrained_cfg", "std"], [1, 1, 1, 1]),
        (["pretrained_cfg", "mean"], [0.5]),
        (["pretrained_cfg", "interpolation"], "x" * 100),
        (["architecture"], ["resnet50"]),
        (["architecture"], "vit_giant_patch14_dinov2"),
        (["architecture"], "hf-hub:a/b"),
    ],
)
def test_config_of_a_network_that_is_not_stored_is_refused(copied_artifact, monkeypatch, where, value):
    def change(config):
        for step in where[:-1]:
            config = config[step]
        config[where[-1]] = value

    edited(copied_artifact, LAYOUT.config, change)
    monkeypatch.setenv(ENGINE, "torch")  # with the exported network, nothing is built from this file
    refused(copied_artifact)


@pytest.mark.parametrize("header", [BOMB, 2**63, 9 * 2**20, 0, 3])
def test_weights_with_a_header_of_another_length_are_refused(copied_artifact, header):
    path = copied_artifact / LAYOUT.weights
    path.write_bytes(header.to_bytes(8, "little") + path.read_bytes()[8:])
    reseal(copied_artifact)
    refused(copied_artifact, "model.safetensors")


# The gallery


def test_gallery_that_unpacks_to_much_more_is_refused(copied_artifact):
    long = pa.array(["x" * 3_000_000]).cast(pa.string())
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 60, pa.int32()), long)
    options = {"store_schema": False, "dictionary_pagesize_limit": 2**30, "compression": "ZSTD"}
    with_column(copied_artifact, "note", repeated, row_group_size=60, **options)
    refused(copied_artifact, "gallery.parquet has", "more memory")
    assert (copied_artifact / LAYOUT.gallery).stat().st_size < 1_000_000
    with_column(copied_artifact, "note", pa.array(["x" * 3_000_000] * 60), use_dictionary=False, **options)
    refused(copied_artifact, "gallery.parquet has", "more memory")


@pytest.mark.parametrize("name", ["a.b", "thumbnail.bytes", "x"])
@pytest.mark.parametrize("rows", [opened.LARGE, 1])
def test_column_is_checked_whatever_its_name(copied_artifact, monkeypatch, name, rows):
    """The name of a column can look like the path of a member; and the columns of a large gallery are checked alike."""
    monkeypatch.setattr(opened, "LARGE", rows)
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 60, pa.int32()), pa.array(["x" * 3_000_000]))
    options = {"store_schema": False, "dictionary_pagesize_limit": 2**30, "compression": "ZSTD"}
    with_column(copied_artifact, name, repeated, row_group_size=60, **options)
    refused(copied_artifact, "gallery.parquet has", "more memory")


def test_dates_with_and_without_a_time_zone_are_read(copied_artifact):
    for zone in (None, "UTC", "Europe/Berlin", "+02:00"):
        moments = pa.array([0] * 60, pa.int64()).cast(pa.timestamp("ms", tz=zone))
        with_column(copied_artifact, "when", moments)
        assert load_artifact(copied_artifact).gallery.take([0])[0].attributes["when"].year == 1970


def test_list_with_very_many_members_is_refused(copied_artifact):
    members = pa.array(np.zeros(20_000_000, np.int8))
    lists = pa.ListArray.from_arrays(pa.array([0] + [20_000_000] * 60, pa.int32()), members)
    with_column(copied_artifact, "tags", lists, compression="ZSTD")
    refused(copied_artifact, "gallery.parquet has", "more memory")


def test_thumbnails_that_unpack_to_much_more_are_refused(copied_artifact):
    first = load_artifact(copied_artifact).gallery.thumbnail(0)
    large = pa.array([first + bytes(4_000_000)] * 60, pa.binary())
    options = {"dictionary_pagesize_limit": 2**30, "compression": "ZSTD"}
    with_column(copied_artifact, "thumbnail", large, row_group_size=60, **options)
    refused(copied_artifact, "gallery.parquet has", "in the column 'thumbnail'")


def test_long_texts_that_fit_the_file_are_read(copied_artifact):
    """Texts that a dictionary repeats: the bound is not on what could be, but on what is."""
    texts = [str(row) * 40_000 for row in range(60)]
    with_column(copied_artifact, "text", pa.array(texts), row_group_size=60, dictionary_pagesize_limit=2**30)
    assert load_artifact(copied_artifact).gallery.table["text"].to_pylist() == texts


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("thumbnail", pa.array(["/etc/passwd"] * 60)),
        ("thumbnail", pa.array([1] * 60)),
        ("thumbnail", pa.array([None] * 60, pa.binary())),
        ("id", pa.array(range(60))),
        ("id", pa.array(["a"] * 60)),
        ("id", pa.array([None, *map(str, range(59))])),
        ("id", pa.array(["", *map(str, range(59))])),
        ("label", pa.array([1.5] * 60)),
        ("label", pa.array([["a"]] * 60)),
        ("source", pa.array([None] * 60, pa.string())),
        ("sha256", pa.array([b"a"] * 60)),
        ("x" * 5_000, pa.array([1] * 60)),
        ("nested", pa.array([{"a": {"b": 1}}] * 60)),
        ("nested", pa.array([[[1]]] * 60)),
        ("bytes", pa.array([b"a"] * 60)),
        ("when", pa.array([2**62] * 60, pa.int64()).cast(pa.timestamp("us"))),
        ("when", pa.array([1] * 60, pa.int64()).cast(pa.timestamp("us", tz="No/Where"))),
        ("days", pa.array([[None, 2**31 - 1]] * 60, pa.list_(pa.date32()))),
        ("lookalike:original", pa.array([1] * 60)),
    ],
)
def test_columns_and_values_of_another_type_are_refused(copied_artifact, column, values):
    with_column(copied_artifact, column, values)
    refused(copied_artifact, LAYOUT.gallery)


def test_repeated_name_and_missing_column_are_refused(copied_artifact):
    table = pq.read_table(copied_artifact / LAYOUT.gallery)
    pq.write_table(table.append_column("label", table["label"]), copied_artifact / LAYOUT.gallery)
    reseal(copied_artifact)
    refused(copied_artifact, "gallery.parquet has 2 columns named 'label'")
    pq.write_table(table.drop_columns(["sha256"]), copied_artifact / LAYOUT.gallery)
    reseal(copied_artifact)
    refused(copied_artifact, "gallery.parquet has no column 'sha256'")


def test_text_that_is_not_utf_8_is_refused(copied_artifact):
    values = pa.array([b"\xff\xfe"] * 60).view(pa.string())
    with_column(copied_artifact, "note", values)
    refused(copied_artifact, "gallery.parquet holds values that cannot be read")


def test_metadata_of_pandas_and_other_writers_has_no_effect(copied_artifact):
    path = copied_artifact / LAYOUT.gallery
    table = pq.read_table(path)
    before = load_artifact(copied_artifact).gallery
    hostile = {b"pandas": b'{"index_columns": ["id"], "columns": "x"}', b"huggingface": b"{" * 1_000}
    pq.write_table(table.replace_schema_metadata(hostile), path)
    reseal(copied_artifact)
    after = load_artifact(copied_artifact).gallery
    assert (after.ids, after.labels, after.attributes) == (before.ids, before.labels, before.attributes)
    assert after.table.schema.metadata is None


@pytest.mark.parametrize("left", [0, 1, 4_000])
def test_gallery_cut_short_while_it_is_open_is_an_error_and_not_the_end(copied_artifact, monkeypatch, left):
    gallery = load_artifact(copied_artifact).gallery
    monkeypatch.setattr(files, "_PAGE_BYTES", 1)  # else all thumbnails are in one page, which has been read
    write_gallery(gallery.files[0], list(read_tables(gallery.files, np.arange(60))), gallery.schema)
    reseal(copied_artifact)
    searcher = Searcher.open(copied_artifact)
    before = [hit.id for hit in searcher.search(id=searcher.gallery.ids[0], k=5)]
    with (copied_artifact / LAYOUT.gallery).open("r+b") as file:
        file.truncate(left)
    with pytest.raises(IntegrityError, match=r"gallery.parquet cannot be read .* open the artifact again") as raised:
        [searcher.gallery.thumbnail(row) for row in range(59, 0, -1)]
    assert "\n" not in str(raised.value)
    assert [hit.id for hit in searcher.search(id=searcher.gallery.ids[0], k=5)] == before


# Manifest, metrics, card


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a": ' * 5_000 + "1" + "}" * 5_000,
        "[" * 80 + "]" * 80,
        '{"rows": ' + "9" * 5_000 + "}",
        '{"rows": NaN}',
        '{"rows": 1e999}',
        '{"rows": 1, "rows": 2}',
        '"\\ud800"',
        "[" + "[]," * 1_100_000 + "[]]",
        " " * (33 * 2**20) + "{}",
        "\ufeff{}",
        "7",
        "[]",
        "",
    ],
    ids=lambda text: text.strip()[:12],
)
@pytest.mark.parametrize("name", [LAYOUT.manifest, LAYOUT.metrics])
def test_json_that_is_too_large_too_deep_or_ambiguous_is_refused(copied_artifact, name, text):
    if name == LAYOUT.metrics and ("NaN" in text or "999}" in text):
        pytest.skip("metrics.json of old versions holds NaN")
    (copied_artifact / name).write_text(text, encoding="utf-8")
    if name == LAYOUT.metrics:
        reseal(copied_artifact)
    refused(copied_artifact, name)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": True},
        {"rows": -1},
        {"rows": 10**300},
        {"dimension": 1.5},
        {"build": 7},
        {"build": {"source": [1]}},
        {"changes": {}},
        {"changes": [1]},
        {"changes": [{"add": {"source": 3}}]},
        {"repository": []},
        {"versions": "1"},
        {"map": "pca"},
        {"text": {"golden": {}}},
        {"golden": {"query_row": 0, "rows": [0] * 101, "scores": [1.0] * 101}},
        {"golden": {"query_row": True, "rows": [0], "scores": [1.0]}},
        {"golden": {"query_row": 0, "rows": [0], "scores": ["1"]}},
        {"golden": {"query_row": 0, "rows": [0], "scores": [1e300]}},
        {"index": {"factory": "HNSW32", "search": {"efSearch": BOMB}}},
        {"index": {"factory": "IVF9999999,Flat"}},
        {"encoder": {"architecture": 1, "fingerprint": 2}},
        {"files": []},
        {"files": {"../x": {"size": 1, "sha256": ""}}},
        {"files": {"x" * 10_000: 1}},
    ],
)
def test_manifest_of_another_shape_is_refused_also_where_only_the_gallery_is_read(copied_artifact, changes, here):
    reseal(copied_artifact, **changes)
    refused(copied_artifact)
    status, _, error = here("verify", copied_artifact)
    assert (status, error.count("\n")) == (1, 1)
    assert len(error) < 1_000
    status, _, error = here("info", copied_artifact)
    assert status == 0 or (error.startswith("error: ") and error.count("\n") == 1)


@pytest.mark.parametrize(
    "weights",
    [
        7,
        [],
        "mit",
        {"name": 7, "license": "mit"},
        {"name": ["a"] * 10_000, "license": "mit"},
        {"license": "mit"},
        {"name": "mine", "license": 7},
        {"name": "mine", "license": {"id": "mit"}},
    ],
    ids=lambda weights: repr(weights)[:40],
)
def test_weights_of_another_shape_are_refused_also_where_only_the_gallery_is_read(copied_artifact, weights, here):
    stated = json.loads((copied_artifact / LAYOUT.manifest).read_bytes())["encoder"]
    reseal(copied_artifact, encoder={**stated, "weights": weights})
    refused(copied_artifact, "encoder.weights")
    status, _, error = here("info", copied_artifact)
    assert (status, error.count("\n")) == (1, 1)
    assert len(error) < 1_000


def test_text_about_the_weights_is_cut_and_shown_on_one_line(copied_artifact, here):
    stated = json.loads((copied_artifact / LAYOUT.manifest).read_bytes())["encoder"]
    hostile = {"name": "a\nmap      \x1b[31m" + "b" * 10_000, "license": "mit\nindex    x" + "c" * 10_000}
    reseal(copied_artifact, encoder={**stated, "weights": hostile})
    status, printed, _ = here("info", copied_artifact)
    [line] = [line for line in printed.splitlines() if line.startswith("weights")]
    assert status == 0 and len(line) < 300
    assert "\x1b" not in line and "\\n" in line


def test_card_that_is_too_long_or_not_text_is_refused(copied_artifact):
    (copied_artifact / LAYOUT.card).write_text("a" * (2**19 + 1))
    reseal(copied_artifact)
    refused(copied_artifact, "README.md has 524,289 bytes, more than 524,288")
    (copied_artifact / LAYOUT.card).write_bytes(b"\xff\xfe")
    reseal(copied_artifact)
    refused(copied_artifact, "utf-8")


# Pins and running apps


def test_pinned_artifact_is_opened_only_with_its_own_hash(copied_artifact):
    stated = json.loads((copied_artifact / LAYOUT.manifest).read_bytes())["manifest_sha256"]
    for right in (stated, stated.upper(), f" {stated}\n"):
        assert len(open_artifact(copied_artifact, sha256=right).gallery) == 60
    assert len(Searcher.open(copied_artifact, sha256=stated).gallery) == 60
    (copied_artifact / LAYOUT.card).write_text("another card")
    reseal(copied_artifact)
    found = json.loads((copied_artifact / LAYOUT.manifest).read_bytes())["manifest_sha256"]
    for pinned in (open_artifact, Searcher.open):
        with pytest.raises(IntegrityError, match=rf"must be {stated}, found {found}"):
            pinned(copied_artifact, sha256=stated)
    for wrong in ("", "abc", stated[:-1], stated + "0", "é" * 64):
        with pytest.raises(ArtifactError, match=r"is not a SHA-256: give the 64 hexadecimal digits"):
            open_artifact(copied_artifact, sha256=wrong)


@pytest.mark.parametrize(
    "words",
    [
        ["search", "{it}", "{picture}"],
        ["verify", "{it}"],
        ["list", "{it}"],
        ["info", "{it}"],
        ["evaluate", "{it}"],
        ["duplicates", "{it}"],
        ["export", "{it}", "--npy", "{out}"],
        ["bench", "{it}", "--rows", "200"],
    ],
    ids=lambda words: words[0],
)
def test_command_that_opens_an_artifact_takes_a_pin(words, copied_artifact, pictures, here, tmp_path):
    stated = json.loads((copied_artifact / LAYOUT.manifest).read_bytes())["manifest_sha256"]
    names = {"it": copied_artifact, "picture": next(pictures.rglob("*.png")), "out": tmp_path / "out"}
    command = [word.format(**names) for word in words]
    status, printed, error = here(*command, "--sha256", "0" * 64)
    assert (status, printed) == (1, "")
    assert stated in error and "0" * 64 in error
    assert not (tmp_path / "out").exists()
    if words[0] != "bench":  # slow
        assert here(*command, "--sha256", stated)[0] == 0


def test_running_app_goes_on_with_the_version_before_a_hostile_or_unpinned_one(copied_artifact, capsys):
    searcher = Searcher.open(copied_artifact)
    live, revision = Live(searcher), searcher.artifact.manifest["manifest_sha256"]
    reloader = Reloader(live, copied_artifact, revision)
    whole = {name: (copied_artifact / name).read_bytes() for name in (LAYOUT.config, LAYOUT.index, LAYOUT.manifest)}

    def look():
        return [reloader.look_at_folder() for _ in range(3)]

    def widen(config):
        config["num_classes"] = BOMB

    edited(copied_artifact, LAYOUT.config, widen)
    assert not any(look())
    (copied_artifact / LAYOUT.manifest).write_text("[" * 100_000)
    assert not any(look())
    for name, content in whole.items():
        (copied_artifact / name).write_bytes(content)
    (copied_artifact / LAYOUT.card).write_text("another card")
    reseal(copied_artifact)
    assert not any(look())
    said = capsys.readouterr().err
    assert re.findall(r"the version before is served: (\S+)", said) == [
        "manifest.json:",
        "manifest.json",
        "manifest.json:",
    ]
    assert (live.now.revision, len(live.now.searcher.search(id=searcher.gallery.ids[0], k=3))) == (revision, 3)
    unpinned = Reloader(live, copied_artifact)
    assert any(unpinned.look_at_folder() for _ in range(3)), "and without a pin it is served"


def test_manifest_sealed_by_anybody_is_read_like_our_own(copied_artifact):
    """The forged manifests above fail for what is in them, not for how they were sealed."""
    manifest = json.loads((copied_artifact / LAYOUT.manifest).read_bytes())
    (copied_artifact / LAYOUT.manifest).write_bytes(sealed(manifest))
    assert len(load_artifact(copied_artifact).gallery) == 60
