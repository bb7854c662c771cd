"""Datasets on the Hub: streamed, by configuration and revision, with one commit for a whole build or training run."""

import json
import os
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import BACKBONE, noise, png, sha256, write_data_set
from hub_server import Fault

CARD = """---
license: cc-by-4.0
configs:
- config_name: small
  data_files: [{split: train, path: small/train.parquet}]
- config_name: big
  data_files: [{split: train, path: big/train.parquet}, {split: test, path: big/test.parquet}]
---
# Shoes
"""


@pytest.fixture(scope="module")
def hub(hub_process):
    return hub_process[0]


@pytest.fixture(scope="module")
def client(hub, hub_process):
    client = hub_process[1]
    client.forget()
    before = len(client.said)
    yield client
    assert not any(token in said for said in client.said[before:] for token in hub.tokens), "a token was printed"


@pytest.fixture(autouse=True)
def quiet(hub):
    hub.clear()
    hub.faults.clear()


def pictures(*seeds):
    """Rows of a dataset, alternating between two classes."""
    return [(png(seed), f"c{number % 2}") for number, seed in enumerate(seeds)]


def parquet(tmp_path, **splits):
    """{file name: content} of a dataset with these splits."""
    folder = write_data_set(tmp_path / "made" / str(len(list(tmp_path.glob("made/*")))), **splits)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def inside(folder, files):
    return {f"{folder}/{name}": data for name, data in files.items()}


def build(client, out, *arguments, token=None):
    tiny = ("--backbone", BACKBONE, "--no-pretrained")
    answer = client.run("build", *arguments, "--out", out, *tiny, token=token)
    assert answer.code == 0, answer.err
    return json.loads((out / "manifest.json").read_bytes())["build"]


def refused(client, out, *arguments, token=None):
    answer = client.run("build", *arguments, "--out", out, "--backbone", BACKBONE, "--no-pretrained", token=token)
    assert answer.code == 1
    (line,) = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert answer.err.endswith(f"{line}\n"), "an error is one line"
    assert not out.exists()
    return line.removeprefix("error: ")


def contents(out):
    return set(pq.read_table(out / "gallery.parquet", columns=["sha256"])["sha256"].to_pylist())


def hashes(rows):
    return {sha256(data) for data, _ in rows}


def files_read(hub):
    """Names of the parquet files from which bytes were requested."""
    paths = [request.path.split("?")[0] for request in hub.requests if request.method == "GET"]
    return {path.rpartition("/")[2] for path in paths if "/resolve/" in path and path.endswith(".parquet")}


@pytest.fixture(scope="module")
def shoes(hub, tmp_path_factory):
    """`me/shoes`, with two configurations and two commits that change the small one: the rows and the commits."""
    tmp_path = tmp_path_factory.mktemp("shoes")
    old, new = pictures(*range(6)), pictures(*range(10, 16))
    big = inside("big", parquet(tmp_path, train=pictures(20, 21), test=pictures(22)))
    small = [inside("small", parquet(tmp_path, train=rows)) for rows in (old, new)]
    commits = [hub.commit("dataset", "me/shoes", {"README.md": CARD.encode(), **big, **small[0]})]
    hub.tag("dataset", "me/shoes", "v1", commits[0])
    commits.append(hub.commit("dataset", "me/shoes", small[1]))
    return (old, new), commits


# What is requested, and what is recorded


@pytest.mark.parametrize(
    ("asked", "which"),
    [
        (["me/shoes", "--config", "small", "--revision", "v1"], 0),
        (["me/shoes@v1", "--config", "small"], 0),
        (["me/shoes", "--config", "small"], 1),
    ],
)
def test_build_records_configuration_and_revision(client, shoes, asked, which, tmp_path):
    rows, commits = shoes
    built = build(client, tmp_path / "it", *asked)
    about = {"name": "me/shoes", "config": "small", "revision": commits[which], "license": "cc-by-4.0"}
    assert built["source"] == about
    assert contents(tmp_path / "it") == hashes(rows[which])


def test_add_takes_a_configuration_and_a_revision(client, shoes, tmp_path):
    rows, commits = shoes
    build(client, tmp_path / "it", "me/shoes", "--config", "small")
    asked = ("me/shoes", "--config", "small", "--revision", commits[0][:7])
    assert client.run("add", tmp_path / "it", *asked).code == 0
    assert contents(tmp_path / "it") == hashes(rows[0]) | hashes(rows[1])


def test_data_set_without_a_card_is_read(client, hub, tmp_path):
    commit = hub.commit("dataset", "me/plain", parquet(tmp_path, train=pictures(1, 2), test=pictures(3)))
    built = build(client, tmp_path / "it", "me/plain", "--split", "test")
    assert built["source"] == {"name": "me/plain", "config": "default", "revision": commit}
    assert built["indexed"] == 1


def test_folder_of_images_on_the_hub_is_read(client, hub, tmp_path):
    rows = [(png(1), "cat"), (png(2), "dog")]
    files = {f"{label}/{number}.png": data for number, (data, label) in enumerate(rows)}
    commit = hub.commit("dataset", "me/animals", files)
    build(client, tmp_path / "it", "me/animals", "--originals")
    table = pq.read_table(tmp_path / "it" / "gallery.parquet")
    assert dict(zip(table["source"].to_pylist(), table["label"].to_pylist(), strict=True)) == {
        "cat/0.png": "cat",
        "dog/1.png": "dog",
    }
    address = f"{hub.url}/datasets/me/animals/resolve/{commit}"
    assert table["lookalike:original"].to_pylist() == [f"{address}/cat/0.png", f"{address}/dog/1.png"]
    assert contents(tmp_path / "it") == hashes(rows)
    hub.faults.append(Fault(r"GET .*/dog/1\.png", status=403))
    said = refused(client, tmp_path / "other", "me/animals")
    assert said.startswith("dog/1.png is forbidden for this login (403)"), "it is not the picture that is wrong"


def test_paths_in_a_hub_data_set_are_read_there_and_nowhere_else(client, hub, tmp_path):
    own, private = png(1), noise(tmp_path / "private.png", 2)
    rows = pa.table({"image_path": ["pictures/1.png", str(private), f"../{private.name}", private.as_uri()]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    files = {"data/train.parquet": (tmp_path / "rows.parquet").read_bytes(), "pictures/1.png": own}
    hub.commit("dataset", "me/paths", files)
    built = build(client, tmp_path / "it", "me/paths")
    assert pq.read_table(tmp_path / "it" / "gallery.parquet")["source"].to_pylist() == ["pictures/1.png"]
    assert [reason.partition(";")[0] for _, reason in built["skipped"]] == [
        f"row {number}: it points outside the data set" for number in (2, 3, 4)
    ]


def test_push_during_a_build_does_not_change_its_images(client, hub, tmp_path):
    rows, others = pictures(*range(6)), pictures(*range(10, 16))
    commit = hub.commit("dataset", "me/moving", parquet(tmp_path, train=rows[:3], test=rows[3:]))
    pushed = parquet(tmp_path, train=others[:3], test=others[3:])

    def push():
        hub.commit("dataset", "me/moving", pushed)

    hub.faults += [Fault("GET .*/tree/", before=push), Fault(r"GET .*test\.parquet", before=push)]
    built = build(client, tmp_path / "it", "me/moving")
    assert [fault.used for fault in hub.faults] == [1, 1]
    assert contents(tmp_path / "it") == hashes(rows)
    assert built["source"]["revision"] == commit != hub.head("dataset", "me/moving")


# What is not available


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["me/shoes"], "choose one with --config: small, big."),
        (["me/shoes", "--config", "huge"], "me/shoes has no configuration 'huge'; it has small, big."),
        (
            ["me/shoes@v9"],
            "me/shoes@v9 was not found: the repository has no such revision. Name a branch, a tag or a commit.",
        ),
        (
            ["me/shoes@v1", "--revision", "v2"],
            "me/shoes@v1 already names a revision, and 'v2' is given too: leave one of them out.",
        ),
        (["me/shoes@v1", "--config", "big", "--split", "dev"], "me/shoes@v1 has no split 'dev'; it has train, test."),
        (["me/boots"], "me/boots is not a folder or parquet file here, nor a dataset on the Hub that you can access:"),
        (["boots"], "no such file or folder: boots; a dataset on the Hub is named owner/name."),
    ],
)
def test_unknown_name_configuration_revision_or_split_is_an_error(client, shoes, asked, said, tmp_path):
    assert said in refused(client, tmp_path / "it", *asked)


def test_private_and_gated_data_sets_need_a_valid_token(client, hub, tmp_path):
    for name in ("private", "gated"):
        hub.commit("dataset", f"me/{name}", parquet(tmp_path, train=pictures(1)))
    hub.repo("dataset", "me/private").private = hub.repo("dataset", "me/gated").gated = True
    for token in (None, "hf_other"):
        for name in ("private", "gated"):
            said = refused(client, tmp_path / "it", f"me/{name}", token=token)
            assert f"is {name}" in said
            assert "log in with `hf auth login`, or set HF_TOKEN" in said
    assert "the token may be missing, mistyped or expired" in refused(
        client, tmp_path / "it", "me/private", token="hf_gone"
    )
    assert "hf_un" not in refused(client, tmp_path / "it", "me/private", token="hf_un\tsendable")
    assert build(client, tmp_path / "it", "me/private", token="hf_read")["indexed"] == 1


def test_server_error_of_the_hub_is_reported(client, hub, tmp_path):
    hub.commit("dataset", "me/troubled", parquet(tmp_path, train=pictures(1)))
    hub.faults.append(Fault("GET .*/tree/", status=501, times=None))
    assert refused(client, tmp_path / "it", "me/troubled") == (
        f"{hub.url} has a problem: it answered 501 for me/troubled. Try again later."
    )


def test_repository_without_data_is_an_error(client, hub, tmp_path):
    hub.commit("dataset", "me/empty", {"README.md": b"# Nothing\n"})
    said = refused(client, tmp_path / "it", "me/empty")
    assert said.startswith("me/empty cannot be read as a dataset: ")
    assert "doesn't contain any data files" in said


# Streaming


def test_limit_downloads_only_the_files_it_needs(client, hub, tmp_path):
    shards = [parquet(tmp_path, train=pictures(*range(6 * n, 6 * n + 6)))["train.parquet"] for n in range(3)]
    files = {f"data/train-0000{n}-of-00003.parquet": data for n, data in enumerate(shards)}
    hub.commit("dataset", "me/shards", {**files, "data/test-00000-of-00001.parquet": shards[0]})
    built = build(client, tmp_path / "it", "me/shards", "--limit", "4")
    assert built["indexed"] == 4
    assert files_read(hub) == {"train-00000-of-00003.parquet"}
    hub.clear()
    build(client, tmp_path / "all", "me/shards", "--split", "train")
    assert files_read(hub) == {name.removeprefix("data/") for name in files}


READ = """
import sys
import psutil
from retrieval.sources.open import open_source

memory, rows = psutil.Process().memory_info, open_source(sys.argv[1]).rows()
next(rows)
before, read, most = memory().rss, 0, 0
for row in rows:
    read, most = read + len(row.data), max(most, memory().rss - before)
print(read, most)
"""


def in_process(client, *arguments):
    done = client.python(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_streaming_holds_the_data_set_neither_on_disk_nor_in_memory(hub, client, tmp_path):
    size, files = 1 << 20, {}
    for number in range(8):
        column = pa.array([os.urandom(size) for _ in range(10)])
        pq.write_table(pa.table({"image": column}), tmp_path / "x.parquet", row_group_size=2)
        files[f"data/train-0000{number}-of-00008.parquet"] = (tmp_path / "x.parquet").read_bytes()
    hub.commit("dataset", "me/large", files)
    read, grown = map(int, in_process(client, "-c", READ, "me/large").split())
    assert read == 8 * 10 * size - size
    assert sum(path.lstat().st_size for path in client.home.rglob("*")) < read / 100
    assert grown < read / 2


# Failures during a download

BUILD = """
import sys, time
waits = []
time.sleep = waits.append  # record the waits of the libraries instead of waiting
from pathlib import Path
from retrieval import Encoder, LookalikeError, build_artifact, open_source
from retrieval.build import embed
embed.SHARD, embed._AHEAD = 8, 0  # a failure loses at most one shard and what was read ahead

def attempt():
    waits.clear()
    done = []
    try:
        made = Encoder.create(sys.argv[3], pretrained=False, seed=0)
        out = Path(sys.argv[2])
        build_artifact(open_source(sys.argv[1]), out, made, progress=lambda n, _: done.append(n))
        return f"built from {done[0]} to {done[-1]}"
    except LookalikeError as error:
        return f"{type(error).__name__} after {done[-1]}: {error}"

for _ in range(2):
    print(attempt(), sum(waits), sep="|")
"""


@pytest.mark.parametrize(
    ("fault", "what", "longest"),
    [
        (Fault(r"train-00002", status=503, times=6), "has a problem: it answered 503 for me/", 60),
        (Fault(r"GET /cdn.*train-00002", cut=100, times=6 * 5), "cannot be reached for me/", 300),
    ],
)
def test_lasting_download_failure_is_an_error_and_the_build_resumes(hub, client, tmp_path, fault, what, longest):
    name = f"me/failing-{fault.times}"
    shards = [parquet(tmp_path, train=pictures(*range(8 * n, 8 * n + 8)))["train.parquet"] for n in range(3)]
    hub.commit("dataset", name, {f"data/train-0000{n}-of-00003.parquet": data for n, data in enumerate(shards)})
    # First come failures that pass: they are retried without a message.
    passing = Fault("train-00001", status=503, times=2), Fault("GET /cdn.*train-00001", cut=100, times=2)
    hub.faults += [*passing, fault]
    first, second = in_process(client, "-c", BUILD, name, tmp_path / "it", BACKBONE).splitlines()
    assert [each.used for each in hub.faults] == [each.times for each in hub.faults]
    said, waited = first.rsplit("|", 1)
    assert said.startswith("SourceError after 16: ")
    assert what in said
    assert 0 < float(waited) < longest
    assert second.startswith("built from 17 to 24|")


STOP = """
import sys
from pathlib import Path
from retrieval import Encoder, build_artifact, open_source
from retrieval.build import embed
embed.SHARD, embed._AHEAD = 8, 0

done = []
def progress(number, _):
    done.append(number)
    if number == int(sys.argv[4]):
        raise KeyboardInterrupt

made = Encoder.create(sys.argv[3], pretrained=False, seed=0)
try:
    build_artifact(open_source(sys.argv[1]), Path(sys.argv[2]), made, progress=progress)
except KeyboardInterrupt:
    pass
print(done[0], done[-1])
"""


def test_resumed_build_does_not_download_finished_files_again(hub, client, tmp_path):
    """Files that were read are not requested again, except the first one, which has the schema."""
    rows = [pictures(*range(8 * n, 8 * n + 8)) for n in range(5)]
    files = {f"train-0000{n}-of-00005.parquet": parquet(tmp_path, train=rows[n])["train.parquet"] for n in range(4)}
    files["test-00000-of-00001.parquet"] = parquet(tmp_path, train=rows[4])["train.parquet"]
    hub.commit("dataset", "me/resumed", inside("data", files))

    def until(number):
        """The first and last image built, the number of requests for the first file, and the files requested."""
        hub.clear()
        said = in_process(client, "-c", STOP, "me/resumed", tmp_path / "it", BACKBONE, number)
        first = sum("train-00000" in request.path for request in hub.requests if request.method == "GET")
        return said.split(), first, files_read(hub)

    names = list(files)
    said, fresh, read = until(27)
    assert (said, read) == (["1", "27"], set(names[:4]))
    for number, stopped, files_wanted in ((36, ["25", "36"], names[1:]), (99, ["33", "40"], names[2:])):
        said, again, read = until(number)
        assert said == stopped
        assert again < fresh, "the first file has the schema, and that is all that is wanted of it"
        assert read <= {names[0], *files_wanted}, "the last file that was read, and where that begins: the one before"
    assert contents(tmp_path / "it") == {digest for part in rows for digest in hashes(part)}


# Training

PINS = """
import os, sys
from pathlib import Path
from training.data.dataset import open_data
from training.recipe import Recipe

work = Path(sys.argv[1])
few = {"classes_per_batch": 2, "images_per_class": 2}
recipe = Recipe().changed({"data": "me/pinned@main", "data_config": "small", **few})

def read(resumed=False):
    data = open_data(recipe, work, resumed=resumed)
    print(data.pinned, data.about["revision"], len(data.images), flush=True)
    input()

read()
os.environ["RANK"] = "1"
read()
del os.environ["RANK"]
read(resumed=True)
read()
"""


def test_training_run_keeps_the_commit_it_started_with(hub, client, tmp_path):
    def push(count):
        data = parquet(tmp_path, train=pictures(*range(count)))["train.parquet"]
        return hub.commit("dataset", "me/pinned", {"README.md": CARD.encode(), "small/train.parquet": data})

    commits, said = [push(60)], []
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with client.start("-c", PINS, tmp_path / "work", **pipes) as process:
        for _ in range(4):
            said.append(process.stdout.readline().split())
            commits.append(push(60 + len(commits)))
            process.stdin.write("\n")
            process.stdin.flush()
    began = [f"me/pinned@{commits[0]}", commits[0], "60"]
    assert said[:3] == [began] * 3, "the other processes of a run, and one that is resumed, read what the first did"
    assert said[3] == [f"me/pinned@{commits[3]}", commits[3], "63"], "a run that begins anew takes what there is now"


def test_training_records_the_commit(hub, client, tmp_path):
    rows = pictures(*range(60))
    commit = hub.commit(
        "dataset", "me/trained", {"README.md": CARD.encode(), **inside("small", parquet(tmp_path, train=rows))}
    )
    hub.tag("dataset", "me/trained", "v1", commit)
    pushed = inside("small", parquet(tmp_path, train=pictures(*range(100, 160))))

    def move():
        hub.tag("dataset", "me/trained", "v1", hub.commit("dataset", "me/trained", pushed))

    hub.faults.append(Fault(r"GET .*train\.parquet", before=move))
    run = ["-m", "training", "frozen", "--data", "me/trained", "--data-revision", "v1", "--data-config", "small"]
    tiny = ["--backbone", BACKBONE, "--set", "pretrained=false", "--set", "image_size=64", "--set", "test_size=64"]
    in_process(client, *run, *tiny, "--out", tmp_path / "it")
    about = {"name": "me/trained", "config": "small", "revision": commit, "license": "cc-by-4.0"}
    training = json.loads((tmp_path / "it" / "metrics.json").read_bytes())["training"]
    assert training["data"]["about"] == about
    assert (training["settings"]["data_config"], training["settings"]["data_revision"]) == ("small", "v1")
    assert json.loads((tmp_path / "it" / "manifest.json").read_bytes())["build"]["source"] == about
    assert contents(tmp_path / "it") == hashes(rows)
    assert hub.faults[0].used == 1


def test_part_of_a_dataset_reads_only_the_files_with_its_rows(hub, client, tmp_path):
    rows = [pictures(*range(first, first + 4)) for first in (30, 34, 38)]
    files = {f"{number}.parquet": parquet(tmp_path, train=own)["train.parquet"] for number, own in enumerate(rows)}
    hub.commit("dataset", "me/parts", files)
    parts = [tmp_path / f"part {index}" for index in range(3)]
    for index, part in enumerate(parts):
        hub.clear()
        tiny = ("--backbone", BACKBONE, "--no-pretrained")
        answer = client.run("build", "me/parts", "--out", part, "--shard", f"{index}/3", *tiny)
        assert answer.code == 0, answer.err
        paths = [request.path.rpartition("/")[2] for request in hub.requests if request.method == "GET"]
        for other in {1, 2} - {index}:  # the first one has the columns, too
            assert paths.count(f"{other}.parquet") == 1, "more than its footer is read"
    answer = client.run("merge", *parts, "--out", tmp_path / "merged")
    assert answer.code == 0, answer.err
    whole = build(client, tmp_path / "one", "me/parts")
    assert whole["indexed"] == 12
    for path in filter(Path.is_file, (tmp_path / "one").rglob("*")):
        assert path.read_bytes() == (tmp_path / "merged" / path.relative_to(tmp_path / "one")).read_bytes(), path
