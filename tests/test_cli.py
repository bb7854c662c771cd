"""The command line: each command as a person types it, what it prints, and that every error is one line."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import BACKBONE, ROOT, noise

import lookalike
import training.__main__
from retrieval.__main__ import main
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.artifact.metrics import name_of
from retrieval.commands.search import lines_of
from retrieval.console import command, run_command
from retrieval.evaluation.confidence import percent
from retrieval.evaluation.metrics import leave_one_out
from retrieval.installed import VERSION
from retrieval.search import Hit, Part, Searcher

COMMANDS = [
    *(
        "build",
        "add",
        "remove",
        "search",
        "duplicates",
        "list",
        "info",
        "evaluate",
        "verify",
        "export",
        "bench",
        "serve",
    ),
    *("push", "pull", "deploy", "train", "compare", "recipes", "bench-training"),
]
FIGURES = ["hit@1", "hit@5", "hit@10", "P@1", "P@5", "P@10", "mAP", "MAP@R", "R-precision"]


def run(*arguments):
    """Run `python -m retrieval ...` in its own process."""
    program = [sys.executable, "-m", "retrieval", *map(str, arguments)]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=300)


# build, in its own process


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The result of `build` on a folder with a duplicate, a broken image and a text file."""
    root = tmp_path_factory.mktemp("built")
    for seed in range(6):
        noise(root / "photos" / f"c{seed % 2}" / f"{seed}.png", seed)
    shutil.copy(root / "photos" / "c0" / "0.png", root / "photos" / "c1" / "again.png")
    (root / "photos" / "broken.png").write_bytes((root / "photos" / "c0" / "0.png").read_bytes()[:200])
    (root / "photos" / "notes.txt").write_text("no picture, but words")
    return root, run("build", root / "photos", "--out", root / "it", "--backbone", BACKBONE, "--no-pretrained")


def test_build_reports_indexed_skipped_and_duplicate_files(built):
    root, done = built
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "found 9 = indexed 6 + skipped 1 + duplicate 1 + left out 1" in lines
    out = root / "it"
    assert f"{out} is ready; serve it: {command(f'serve --artifact {out}')}" in lines
    assert any(line.startswith("skipped broken.png: the image is damaged") for line in lines)
    assert "left out notes.txt: no pictures, but notes beside them" in lines
    assert "duplicate c1/again.png: the same content as c0/0.png" in lines
    assert "Traceback" not in done.stderr
    artifact = load_artifact(root / "it")
    assert artifact.gallery.labels == ["c0"] * 3 + ["c1"] * 3
    assert artifact.encoder.name == BACKBONE
    assert {path.name for path in root.iterdir()} - {".it.lock"} == {"photos", "it"}


def test_build_applies_its_options(built, tmp_path, here):
    root, _ = built
    for number, options in enumerate(
        [
            ["--weights", root / "it" / LAYOUT.weights],
            ["--no-pretrained", "--crop-mode", "center", "--index", "HNSW8,Flat", "--limit", "4", "--license", "mit"],
        ]
    ):
        out = tmp_path / f"{number}"
        status, printed, error = here("build", root / "photos", "--out", out, "--backbone", BACKBONE, *options)
        assert status == 0, error
        assert f"{out} is ready" in printed
    whole, other = load_artifact(tmp_path / "0"), load_artifact(tmp_path / "1")
    assert whole.encoder.fingerprint == load_artifact(root / "it").encoder.fingerprint
    assert len(whole.gallery) == 6
    assert other.encoder.data_config["crop_mode"] == "center"
    assert other.manifest["index"]["factory"] == "HNSW8,Flat"
    assert other.manifest["build"]["found"] == 5  # four images, and notes.txt, which is left out
    assert other.manifest["build"]["source"] == {"name": "photos", "license": "mit"}
    assert "\nlicense: mit\n" in (tmp_path / "1" / LAYOUT.card).read_text(encoding="utf-8")


def test_build_reads_the_chosen_columns_and_split_of_parquet_files(built, tmp_path, here):
    import datasets

    root, _ = built
    paths = [root / "photos" / "c0" / f"{number}.png" for number in (0, 2, 4)]
    columns = {"photo": [path.read_bytes() for path in paths], "kind": ["a", "b", "a"], "label": ["x", "y", "z"]}
    for split in ("train", "test"):
        (tmp_path / "set").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "set" / f"{split}.parquet")
    options = ["--backbone", BACKBONE, "--no-pretrained", "--image-column", "photo", "--label-column", "kind"]
    status, printed, error = here("build", tmp_path / "set", "--out", tmp_path / "it", "--split", "test", *options)
    assert status == 0, error
    assert "found 3 = indexed 3 + skipped 0 + duplicate 0" in printed
    assert load_artifact(tmp_path / "it").gallery.labels == ["a", "b", "a"]


# search


def test_search_prints_one_line_per_hit(artifact, pictures, here):
    query = pictures / pq.read_table(artifact / LAYOUT.gallery)["source"][7].as_py()
    status, printed, _ = here("search", artifact, query)
    lines = printed.splitlines()
    assert status == 0
    assert len(lines) == 5
    score, chance, image_id, label, source = lines[0].split()
    assert float(score) == pytest.approx(1, abs=1e-4)
    assert chance == f"{percent(Searcher.open(artifact).search(query, 1)[0].chance)}%"
    assert (image_id, label) == (load_artifact(artifact).gallery.ids[7], query.parent.name)
    assert source == f"{query.parent.name}/{query.name}"


def test_search_says_when_there_is_no_confident_match(here, starter, tmp_path):
    noise(tmp_path / "noise.png", 1, side=224)
    status, printed, error = here("search", starter, tmp_path / "noise.png")
    assert status == 0
    assert len(printed.splitlines()) == 5
    assert "no confident match" in error


def test_search_prints_json(artifact, pictures, here):
    query = sorted(pictures.rglob("*.png"))[0]
    status, printed, _ = here("search", artifact, query, "-k", 12, "--min-score", "0", "--json")
    hits = json.loads(printed)
    assert status == 0
    more = {"chance", "confident", "alike"}
    assert set(hits[0]) == {"row", "id", "score", "label", "source", "attributes", *more}
    assert set(hits[0]["attributes"]) == {"colour", "pattern", "price"}
    assert hits[0]["source"] == str(query.relative_to(pictures))
    index, gallery = faiss.read_index(str(artifact / LAYOUT.index)), load_artifact(artifact).gallery
    scores, rows = index.search(index.reconstruct(hits[0]["row"])[None], 12)
    expected = rows[0][scores[0] >= 0].tolist()
    assert [hit["row"] for hit in hits] == expected
    assert [hit["id"] for hit in hits] == [gallery.ids[row] for row in expected]
    np.testing.assert_allclose([hit["score"] for hit in hits], scores[0][: len(hits)], atol=1e-5)


def test_search_combines_region_like_unlike_and_fold(twins, shirt, here):
    """A region of an image, likes, unlikes and folded near-duplicates give the same hits as the `Searcher`."""
    searcher = Searcher.open(twins)
    ids = searcher.gallery.ids
    options = ["--region", "0.25,0,0.75,0.5", "--like", ids[3], "--like", ids[8], "--unlike", ids[5], "--fold"]
    status, printed, error = here("search", twins, shirt, "-k", 7, *options, "--json")
    assert status == 0, error
    parts = [Part(shirt, region=(0.25, 0, 0.75, 0.5)), Part(row=3), Part(row=8), Part(row=5, weight=-1.0)]
    expected = searcher.find(searcher.query(parts), 7, fold=True)
    found = json.loads(printed)
    assert [hit["id"] for hit in found] == [hit.id for hit in expected]
    assert [hit["alike"] for hit in found] == [[ids[row] for row in hit.alike] for hit in expected]
    assert any(hit["alike"] for hit in found)
    assert {(hit["chance"], hit["confident"]) for hit in found} == {(None, None)}
    status, printed, _ = here("search", twins, "-k", 7, *options, shirt)  # IMAGE may come after the options
    assert status == 0
    for line, hit in zip(printed.splitlines(), expected, strict=True):
        alike = [f"+{len(hit.alike)}", "alike"] if hit.alike else []
        assert line.split() == [f"{hit.score:.4f}", hit.id, "-", hit.source, *alike]


def test_search_works_without_a_query_image(twins, here):
    searcher = Searcher.open(twins)
    one, other = searcher.gallery.ids[:2]
    status, printed, _ = here("search", twins, "--like", one, "--json")
    assert status == 0
    assert [hit["id"] for hit in json.loads(printed)] == [hit.id for hit in searcher.search_by_id(one, 5)]
    status, printed, _ = here("search", twins, "--text", "a red shirt", "--unlike", other, "--json")
    query = searcher.query([Part(words="a red shirt"), Part(row=1, weight=-1.0)])
    assert status == 0
    assert [hit["id"] for hit in json.loads(printed)] == [hit.id for hit in searcher.find(query, 5)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the query is empty: give a picture, an image of the gallery, or words"),
        (["--text", "a red shirt"], "no text model: build it with --text-model"),
        (["--region", "0,0,1,1"], "--region selects a part of IMAGE, but no IMAGE was given"),
        (["x.png", "--region", "0,0,1"], "a region must be [left, top, right, bottom]"),
        (["x.png", "--region", "0,0,1,2"], "a region must be [left, top, right, bottom]"),
        (["x.png", "--region", "all"], "a region is LEFT,TOP,RIGHT,BOTTOM, each from 0 to 1, not 'all'"),
        (["--like", "nothing"], "no image with the id 'nothing'"),
        (["--unlike", "nothing"], "no image with the id 'nothing'"),
    ],
)
def test_invalid_query_is_a_one_line_error(artifact, here, arguments, words):
    status, printed, error = here("search", artifact, *arguments)
    assert (status, printed) == (1, "")
    assert words in error
    assert len(error.splitlines()) == 1


def test_hit_without_a_match_probability_is_aligned_with_the_others():
    hits = [Hit(0, "a", 0.9, "mug", "a.png", chance=1.0), Hit(1, "b", 0.5, None, "b.png")]
    assert [line[:16] for line in lines_of(hits)] == ["0.9000  99%  a  ", "0.5000    -  b  "]
    assert [line[:11] for line in lines_of(hits[1:])] == ["0.5000  b  "]


def test_where_filters_combine_within_and_across_columns(artifact, pictures, here):
    """Values of the same column are alternatives; conditions on different columns must all hold."""
    query = sorted(pictures.rglob("*.png"))[0]
    where = ["--where", "colour=red", "--where", "colour=teal", "--where", "pattern=plain"]
    status, printed, _ = here("search", artifact, query, "-k", 60, "--json", *where)
    table = pq.read_table(artifact / LAYOUT.gallery)
    wanted = {
        row
        for row, (colour, pattern) in enumerate(
            zip(*table.select(["colour", "pattern"]).to_pydict().values(), strict=True)
        )
        if colour in ("red", "teal") and pattern == "plain"
    }
    assert status == 0
    assert {hit["row"] for hit in json.loads(printed)} == wanted
    assert len(wanted) == 10
    status, printed, _ = here("search", artifact, query, "-k", 60, "--json", "--where", "price=12")
    assert [hit["attributes"]["price"] for hit in json.loads(printed)] == [12]
    typed = ["--where", "price<=40", "--where", "price>12", "--where", "colour!=red", "--where", "pattern!="]
    status, printed, _ = here("search", artifact, query, "-k", 60, "--json", *typed)
    columns = table.select(["price", "colour", "pattern"]).to_pylist()
    wanted = {
        row
        for row, of in enumerate(columns)
        if 12 < of["price"] <= 40 and of["colour"] != "red" and of["pattern"] is not None
    }
    assert {hit["row"] for hit in json.loads(printed)} == wanted
    assert len(wanted) > 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--where", "colour"], "a filter must have the form COLUMN=VALUE, not 'colour'"),
        (["--where", "color=red"], "no column 'color'; did you mean 'colour'"),
        (["--where", "colour=rde"], "no image has colour=rde; did you mean 'red'"),
        (["--where", "price<cheap"], "price holds numbers, so price<cheap cannot be compared"),
        (["--group-by", "color"], "no column 'color'; did you mean 'colour'"),
        (["--where", "price<"], "price< must be followed by one value"),
        (["-k", "0"], "k, the number of hits, must be from 1 to 1000, not 0"),
        (["-k", "1001"], "not 1001"),
    ],
)
def test_invalid_search_option_is_a_one_line_error(artifact, pictures, here, options, words):
    status, printed, error = here("search", artifact, sorted(pictures.rglob("*.png"))[0], *options)
    assert (status, printed) == (1, "")
    assert words in error
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1


# evaluate, add, remove, verify, export


def test_evaluate_prints_the_leave_one_out_figures(artifact, here):
    status, printed, _ = here("evaluate", artifact, "--json")
    figures = json.loads(printed)
    opened = load_artifact(artifact)
    assert status == 0
    assert list(figures)[: len(FIGURES)] == FIGURES
    assert figures == leave_one_out(opened.store.vectors(np.arange(60)), opened.gallery.labels)
    stated = json.loads((artifact / LAYOUT.metrics).read_text())["leave_one_out"]
    assert figures == {name_of(key): value for key, value in stated.items()}
    status, printed, _ = here("evaluate", artifact)
    assert status == 0
    shown = dict(line.split() for line in printed.splitlines())
    assert list(shown) == list(figures)
    assert float(shown["P@5"]) == pytest.approx(figures["P@5"], abs=1e-3)


def test_add_and_remove_change_the_artifact_and_print_counts(copied_artifact, pictures, tmp_path, here):
    shutil.copy(sorted(pictures.rglob("*.png"))[0], noise(tmp_path / "more" / "hat" / "1.png", 1).parent / "known.png")
    before = load_artifact(copied_artifact).gallery.ids
    status, printed, error = here("add", copied_artifact, tmp_path / "more")
    assert status == 0, error
    assert "found 2 = indexed 1 + skipped 0 + duplicate 1" in printed
    assert "duplicate hat/known.png: the same content as " in printed
    after = load_artifact(copied_artifact).gallery
    assert after.ids[:-1] == before
    assert after.labels[-1] == "hat"
    status, printed, _ = here("remove", copied_artifact, before[3], after.ids[-1], before[3])
    assert (status, printed.splitlines()[-1]) == (0, "2 removed, 59 left")
    assert load_artifact(copied_artifact).gallery.ids == [*before[:3], *before[4:]]
    status, _, error = here("remove", copied_artifact, before[0], "nothing")
    assert status == 1
    assert "no image with the id 'nothing'" in error
    assert len(load_artifact(copied_artifact).gallery) == 59


def test_verify_detects_a_flipped_bit(copied_artifact, here):
    status, printed, _ = here("verify", copied_artifact)
    assert status == 0
    assert printed.startswith(f"{copied_artifact} is intact: 60 images, ")
    pinned = json.loads((copied_artifact / LAYOUT.manifest).read_bytes())["manifest_sha256"]
    assert printed.splitlines()[0].endswith("; every byte was read")
    assert printed.splitlines()[1:] == [f"manifest_sha256 {pinned}"]
    path = copied_artifact / LAYOUT.index
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    status, printed, error = here("verify", copied_artifact)
    assert (status, printed) == (1, "")
    assert error.startswith("error: index.faiss: SHA-256: the manifest says ")


def test_export_writes_embeddings_paths_and_labels(artifact, tmp_path, here):
    status, printed, _ = here("export", artifact, "--npy", tmp_path / "a" / "b")
    assert (status, printed) == (0, f"60 rows written to {tmp_path / 'a' / 'b'}\n")
    arrays = {path.stem: np.load(path, allow_pickle=False) for path in (tmp_path / "a" / "b").iterdir()}
    assert set(arrays) == {"embeddings", "image_paths", "labels"}
    index, table = faiss.read_index(str(artifact / LAYOUT.index)), pq.read_table(artifact / LAYOUT.gallery)
    assert arrays["embeddings"].dtype == np.float32
    np.testing.assert_array_equal(arrays["embeddings"], index.reconstruct_n(0, 60))
    assert arrays["image_paths"].tolist() == table["source"].to_pylist()
    assert arrays["labels"].tolist() == table["label"].to_pylist()


def test_export_writes_an_empty_label_for_unlabelled_rows(tmp_path, here):
    noise(tmp_path / "photos" / "1.png", 1)
    noise(tmp_path / "photos" / "cat" / "2.png", 2)
    options = ["--backbone", BACKBONE, "--no-pretrained"]
    assert here("build", tmp_path / "photos", "--out", tmp_path / "it", *options)[0] == 0
    assert here("export", tmp_path / "it", "--npy", tmp_path / "npy")[0] == 0
    assert np.load(tmp_path / "npy" / "labels.npy", allow_pickle=False).tolist() == ["", "cat"]
    status, _, error = here("evaluate", tmp_path / "it")
    assert status == 1
    assert "nothing to evaluate" in error


# Errors


def test_error_is_one_line_without_a_traceback(tmp_path):
    done = run("verify", tmp_path / "nothing")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"error: {tmp_path / 'nothing'} is not an artifact: no such folder. "
        f"`{command('build SOURCE --out DIR')}` makes one.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "{tmp}/gone", "--out", "{tmp}/it"], "no such file or folder: "),
        (["build", "{tmp}/empty", "--out", "{tmp}/it"], "is empty"),
        (
            ["build", "{tmp}/words", "--out", "{tmp}/it"],
            "none of the 1 files found could be indexed. The first one: a.txt",
        ),
        (["build", "nobody/nothing", "--out", "{tmp}/it"], "nobody/nothing is not a folder or parquet file here"),
        (["build", "{tmp}/words", "--out", "{tmp}/words"], "contains files that do not belong to an artifact"),
        (["build", "{tmp}/words", "--out", "{tmp}/it", "--backbone", "resnet5"], "did you mean"),
        (["build", "{tmp}/words", "--out", "{tmp}/it", "--index", "Round"], "index 'Round' is not supported"),
        (
            ["build", "{tmp}/words", "--out", "{tmp}/it", "--weights", "{tmp}/words/a.txt"],
            "not a readable safetensors file",
        ),
        (["build", "{tmp}/words", "--out", "{tmp}/words/a.txt/it"], ""),
        (["search", "{tmp}/words", "x.png"], "is not an artifact"),
        (["search", "{artifact}", "{tmp}/gone.png"], "gone.png: no such file"),
        (["search", "{artifact}", "{tmp}/words/a.txt"], "a.txt is not a readable picture"),
        (["add", "{tmp}/empty", "{tmp}/words"], "is not an artifact"),
        (["export", "{artifact}", "--npy", "{tmp}/words/a.txt"], "a.txt"),
    ],
)
def test_failed_command_prints_one_line_and_leaves_nothing_behind(arguments, words, artifact, tmp_path, here):
    (tmp_path / "empty").mkdir()
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").write_text("words, and no picture at all")
    if arguments[0] == "build" and "--backbone" not in arguments:
        arguments = [*arguments, "--backbone", BACKBONE, *([] if "--weights" in arguments else ["--no-pretrained"])]
    status, printed, error = here(*(each.format(tmp=tmp_path, artifact=artifact) for each in arguments))
    assert (status, printed) == (1, "")
    assert error.startswith("error: ")
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "it").exists()
    assert not (tmp_path / ".it.building").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["build", "photos", "--out", "it", "--crop-mode", "round"],
        ["search", "it", "a.png", "-k", "five"],
        ["build", "photos"],
        ["search"],
        ["search", "it", "a.png", "b.png"],
        ["build", "photos", "--out", "it", "--limit", "0"],
        ["remove", "it"],
    ],
)
def test_wrong_usage_exits_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "Usage: python -m retrieval" in capsys.readouterr().err


def usage(arguments, capsys, door=lookalike.main):
    """The exit status, output and errors of a command line that ends before it runs a command."""
    with pytest.raises(SystemExit) as raised:
        door(arguments)
    return raised.value.code, *capsys.readouterr()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_own_help(name, capsys):
    listed = usage(["--help"], capsys)[1]
    status, printed, error = usage([name, "--help"], capsys)
    assert (status, error) == (0, "")
    assert printed.startswith(f"Usage: lookalike {name} ")
    what = printed.splitlines()[2].strip()
    assert re.search(rf"^  {name} +{re.escape(what)}$", listed, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_mistyped_option_shows_the_usage_of_its_command(name, capsys):
    status, printed, error = usage([name, "--hlep"], capsys)
    assert (status, printed) == (2, "")
    assert error.startswith(f"Usage: lookalike {name} ")
    assert "No such option: --hlep" in error
    assert "--help" in error.splitlines()[-1]


def test_value_that_an_option_does_not_take_is_answered_with_those_it_takes(capsys):
    status, _, error = usage(["build", "photos", "--out", "it", "--engine", "onxx"], capsys)
    assert status == 2
    assert error.endswith("'LOOKALIKE_ENGINE'): 'onxx' is not one of 'onnx', 'openvino', 'torch'.\n")


def test_mistyped_command_suggests_the_nearest_name(capsys):
    status, _, error = usage(["serach", "it"], capsys)
    assert status == 2
    assert "Did you mean 'search'" in error


@pytest.mark.parametrize("asked", ["phots", "nowhere/photos"])
def test_mistyped_folder_suggests_the_nearest_name(asked, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    assert lookalike.main(["build", str(tmp_path / asked), "--out", str(tmp_path / "it")]) == 1
    hint = "did you mean 'photos'?" if asked == "phots" else "a dataset on the Hub is named owner/name."
    assert capsys.readouterr().err == f"error: no such file or folder: {tmp_path / asked}; {hint}\n"


def test_every_entry_point_prints_the_same_version(capsys):
    doors = (lookalike.main, main, training.__main__.main)
    assert {usage(["--version"], capsys, door) for door in doors} == {(0, f"lookalike {VERSION}\n", "")}


def test_every_entry_point_lists_the_same_recipes(capsys):
    lists = []
    for door, words in ((lookalike.main, ["recipes"]), (lookalike.main, ["train"]), (training.__main__.main, [])):
        assert door(words) == 0
        lists.append(capsys.readouterr().out)
    assert "caltech101" in lists[0]
    assert len(set(lists)) == 1


def test_port_in_use_is_a_one_line_error(starter, here):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        status, printed, error = here("serve", "--artifact", starter, "--port", port)
    assert (status, printed) == (1, "")
    said = re.fullmatch(
        rf"error: port {port} is in use, (\d+) is free: choose another --port, "
        r"or omit it to use the first free one from 7860\.\n",
        error,
    )
    assert said and int(said[1]) > port
    status, printed, error = here("serve", "--artifact", starter, "--host", "192.0.2.1", "--port", port)
    assert (status, printed) == (1, "")
    assert error.startswith(f"error: cannot listen on 192.0.2.1, port {port}: ")
    assert len(error.splitlines()) == 1


# Lazy imports


HEAVY = {"torch", "numpy", "faiss", "datasets", "PIL", "pyarrow", "timm", "gradio", "huggingface_hub", "rich"}
AT_ONCE = [  # the arguments, and the exit status
    (["--help"], 0),
    (["--version"], 0),
    *[([name, "--help"], 0) for name in COMMANDS],
    (["biuld"], 2),
    *[([name, "--nothing"], 2) for name in COMMANDS],
    (["build", "nowhere", "--out", "x"], 1),
    (["build", "./photos/nowhere", "--out", "x"], 1),
    (["train", "caltech101", "--data", "nowhere", "--out", "x"], 1),
    (["train", "caltech", "--out", "x"], 1),
    *[([name, "nowhere"], 1) for name in ("verify", "evaluate", "bench", "duplicates", "list", "info", "compare")],
    (["search", "nowhere", "photo.jpg"], 1),
    (["add", "nowhere", "photos"], 1),
    (["add", "retrieval/starter", "nowhere"], 1),
    (["remove", "nowhere", "id"], 1),
    (["export", "nowhere", "--npy", "x"], 1),
    (["push", "nowhere", "me/it"], 1),
    (["serve", "--artifact", "nowhere"], 1),
]


def test_help_and_typos_load_no_heavy_packages():
    script = f"""
import contextlib, json, sys, lookalike
said = []
for words in {[words for words, _ in AT_ONCE]}:
    with contextlib.redirect_stdout(sys.stderr):
        try:
            status = lookalike.main(words)
        except SystemExit as ended:
            status = ended.code
    said.append([words, status, sorted({HEAVY} & set(sys.modules))])
print(json.dumps(said))"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[words, status, []] for words, status in AT_ONCE]
    assert "Traceback" not in done.stderr


def test_missing_query_image_is_reported_before_torch_is_loaded(starter):
    script = f"""
import sys, lookalike
print(lookalike.main(["search", {str(starter)!r}, "nowhere.jpg"]), "torch" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1 False\n", "error: nowhere.jpg: no such file\n")


def test_build_accepts_file_names_that_are_not_utf_8(tmp_path, here):
    """File names in another encoding than UTF-8, as old archives have them, do not stop a build."""
    noise(tmp_path / "photos" / "1.png", 1)
    noise(tmp_path / "photos" / "2.png", 2).rename(tmp_path / "photos" / os.fsdecode(b"caf\xe9.png"))
    options = ["--backbone", BACKBONE, "--no-pretrained"]
    status, printed, error = here("build", tmp_path / "photos", "--out", tmp_path / "it", *options)
    assert status == 0, error
    assert "found 2 = indexed 2 + skipped 0 + duplicate 0" in printed
    sources = load_artifact(tmp_path / "it").gallery.table["source"].to_pylist()
    assert sorted(sources) == ["1.png", "caf\N{REPLACEMENT CHARACTER}.png"]


def test_ctrl_c_counts_as_interrupted_even_if_closing_fails(capsys):
    """After an interrupt Python closes open files, which can fail in turn; the exit status must stay 130."""

    def interrupted_while_closing():
        try:
            raise KeyboardInterrupt
        finally:
            os.close(-1)

    def closing():
        os.close(-1)

    assert run_command(interrupted_while_closing, "it goes on") == 130
    assert capsys.readouterr().err == "interrupted; it goes on\n"
    assert run_command(closing, "it goes on") == 1
    assert "error: [Errno 9] Bad file descriptor" in capsys.readouterr().err
