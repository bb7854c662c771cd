"""Watching a source: small steps, no half-copied files, and an artifact that never becomes empty."""

import os
import shutil
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from threading import Event, Thread

import pytest
from conftest import WARM, contents, noise

from retrieval import SourceError, build_artifact, open_source
from retrieval.artifact.load import read_gallery
from retrieval.build.watch import Follower, watch


@pytest.fixture
def folder(tmp_path):
    """Six images in two class folders, written long ago."""
    root = tmp_path / "pictures"
    for number in range(6):
        noise(root / f"c{number % 2}" / f"{number}.png", number)
        os.utime(root / f"c{number % 2}" / f"{number}.png", (1e9, 1e9))
    return root


@pytest.fixture
def out(folder, encoder, tmp_path):
    build_artifact(open_source(str(folder)), tmp_path / "it", encoder)
    return tmp_path / "it"


@pytest.fixture
def follower(folder, out):
    made = Follower(out, folder, lambda: open_source(str(folder)), lambda: nullcontext(lambda *_: None))
    assert made.look(NOW) is None
    assert not made.pending
    return made


NOW = 2e9  # no file of a test is changed after this


def sources(out):
    return sorted(read_gallery(out)[1].table["source"].to_pylist())


def test_each_change_is_one_step(follower, folder, out):
    before = contents(out)
    noise(folder / "c2" / "new.png", 50)
    (folder / "c0" / "0.png").rename(folder / "c0" / "renamed.png")
    assert follower.look(NOW + 1).changed == ["c0/renamed.png"], "a renamed file is not new, so it need not wait"
    report = follower.look(NOW + 4)
    assert (report.new, report.changed, report.removed) == (["c2/new.png"], [], [])
    (folder / "c1" / "1.png").unlink()
    assert follower.look(NOW + 5).removed == ["c1/1.png"]
    assert sources(out) == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    after = contents(out)
    assert after != before
    assert follower.look(NOW + 6) is None
    assert contents(out) == after


def test_a_file_waits_while_it_is_written(follower, folder, out, tmp_path):
    """A writer that pauses in the middle of two files: one is new, the other replaces an image of the artifact."""
    whole = {name: noise(tmp_path / name, seed).read_bytes() for name, seed in (("a.png", 60), ("b.png", 61))}
    places = {"a.png": folder / "c0" / "a.png", "b.png": folder / "c1" / "1.png"}
    kept = sources(out)
    for part in (1, 2, 3):
        for name, place in places.items():
            place.write_bytes(whole[name][: len(whole[name]) * part // 4])
            os.utime(place, (1e9 + part, 1e9 + part))  # what a copy that keeps times looks like
        assert follower.look(NOW + part) is None
        assert follower.look(NOW + part + 0.9) is None
        assert follower.pending
        assert sources(out) == kept, "the old image stays until the new one is there"
        noise(folder / "c0" / f"other{part}.png", 70 + part)
    for name, place in places.items():
        place.write_bytes(whole[name])
    found = follower.look(NOW + 5)
    assert found.new == ["c0/other1.png", "c0/other2.png"], "another file does not wait for them"
    assert ("c0/a.png", "still being written", 1) in found.left_out
    report = follower.look(NOW + 8)
    assert sorted(report.new) == ["c0/a.png", "c0/other3.png", "c1/1.png"]
    assert report.removed == ["c1/1.png"], "the old content of that file"
    assert not follower.pending


def test_metadata_that_is_being_written_stops_everything_until_it_is_whole(follower, folder, out):
    noise(folder / "c0" / "new.png", 80)
    table = folder / "metadata.csv"
    table.write_text("file_name,colo")
    assert follower.look(NOW + 1) is None
    table.write_text("file_name,colour\nc0/new.png,red\n")
    assert follower.look(NOW + 3.5) is None
    assert follower.look(NOW + 6).new == ["c0/new.png"]
    gallery = read_gallery(out)[1]
    assert [row.attributes for row in gallery.take([len(gallery) - 1])] == [{"colour": "red"}]


def empty(folder):
    for path in list(folder.iterdir()):
        shutil.rmtree(path)


def only_strangers(folder):
    empty(folder)
    noise(folder / "stray.png", 90)
    os.utime(folder / "stray.png", (1e9, 1e9))


def unreadable(folder):
    for path in folder.rglob("*.png"):
        target = path.read_bytes()
        path.unlink()
        path.mkdir() if not target else path.symlink_to("/dev/null")


@pytest.mark.parametrize("vanish", [empty, shutil.rmtree, only_strangers, unreadable])
def test_a_source_that_vanishes_never_empties_the_artifact(follower, folder, out, vanish):
    before, copy = contents(out), Path(shutil.copytree(folder, folder.with_name("copy")))
    vanish(folder)
    for moment in (3, 6, 20):
        try:
            assert follower.look(NOW + moment) is None
        except SourceError as error:
            assert str(folder) in str(error) or "nothing" in str(error) or "source" in str(error)
        assert contents(out) == before
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(copy, folder)
    for moment in (40, 43, 60):
        follower.look(NOW + moment)
    assert contents(out) == before, "it is back as it was"


def test_an_image_that_cannot_be_read_now_stays_in_the_artifact(follower, folder, out):
    (folder / "c0" / "0.png").unlink()
    (folder / "c0" / "0.png").symlink_to("/dev/null")
    noise(folder / "c0" / "new.png", 95)
    follower.look(NOW + 1)
    follower.look(NOW + 4)
    assert "c0/new.png" in sources(out)


def test_watching_ignores_the_artifact_inside_the_source(folder, encoder):
    out = folder / "it"
    build_artifact(open_source(str(folder)), out, encoder)
    follower = Follower(out, folder, lambda: open_source(str(folder)), lambda: nullcontext(lambda *_: None))
    assert follower.look(NOW) is None
    noise(folder / "c0" / "new.png", 96)
    follower.look(NOW + 1)
    assert follower.look(NOW + 4).new == ["c0/new.png"]
    for moment in range(5, 15):
        assert follower.look(NOW + moment) is None
        assert not follower.pending


def test_a_file_as_source_is_watched_too(tmp_path, drawings, encoder):
    table = Path(shutil.copy(drawings / "test.parquet", tmp_path / "a.parquet"))
    os.utime(table, (1e9, 1e9))
    build_artifact(open_source(str(table)), tmp_path / "it", encoder)
    opened = lambda: open_source(str(table))  # noqa: E731
    follower = Follower(tmp_path / "it", table, opened, lambda: nullcontext(lambda *_: None))
    assert follower.look(NOW) is None
    shutil.copy(drawings / "train.parquet", table)
    assert follower.look(NOW + 1) is None
    size = len(read_gallery(tmp_path / "it")[1])
    with pytest.raises(SourceError, match="none of the images"):
        follower.look(NOW + 4)
    assert len(read_gallery(tmp_path / "it")[1]) == size


def test_watch_syncs_by_itself_and_survives_errors(follower, folder, out, capsys):
    stopped, told = Event(), []
    thread = Thread(target=watch, args=(follower, folder, told.append, stopped))
    thread.start()
    try:
        hidden = folder.rename(folder.with_name("hidden"))
        until(lambda: "is not there at the moment.\nstill watching" in capsys.readouterr().err)
        hidden.rename(folder)
        noise(folder / "c0" / "new.png", 97)
        until(lambda: told)
    finally:
        stopped.set()
        thread.join(30)
    assert told[0].new == ["c0/new.png"]
    assert "c0/new.png" in sources(out)
    assert not thread.is_alive()


def until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never happens")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_watching_ends_cleanly(number, status, folder, out):
    os.utime(noise(folder / "c0" / "new.png", 98), (1, 1))  # old enough to be taken at once
    command = ["-m", "retrieval", "sync", out, folder, "--watch"]
    with WARM.start(*command, stderr=-1, stdout=-1) as process:
        assert "watching" in process.stderr.readline()
        while "found" not in process.stdout.readline():
            pass
        time.sleep(0.2)  # until it waits for changes
        process.send_signal(number)
        assert process.wait() == status
        assert "Traceback" not in process.stderr.read()


def test_watch_needs_a_local_source_and_no_dry_run(here, out, folder):
    status, _, said = here("sync", out, "me/pictures", "--watch")
    assert (status, "is on the Hub" in said) == (1, True)
    status, _, said = here("sync", out, f"{folder}/*.zip", "--watch")
    assert (status, "is a pattern: name its folder" in said) == (1, True)
    with pytest.raises(SystemExit):
        here("sync", out, folder, "--watch", "--dry-run")
