"""Folders are replaced as a whole, whenever the process that builds, adds or removes is killed."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import WARM, contents, noise, reseal
from runs import build_run

from retrieval.artifact.atomic import recover, replacing, writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact, read_metrics
from retrieval.build.build import build_artifact
from retrieval.build.change import add_images, remove_images
from retrieval.build.sync import sync_artifact
from retrieval.errors import ArtifactError
from retrieval.sources.open import open_source

# A process that has everything imported and forks a child for each job, so that each job starts at once.
FORKING = """
import ctypes, gc, json, os, shutil, signal, subprocess, sys, time, traceback, types
from pathlib import Path

import faiss, torch

torch.set_num_threads(1)  # the parent's threads do not exist in a forked child
faiss.omp_set_num_threads(1)

from retrieval.images.door.workers import apart

apart.AVAILABLE = False  # as on macOS: each child would start processes that decode, which change no file

from retrieval.artifact.load import load_artifact
from retrieval.artifact.layout import LAYOUT
from retrieval.build.build import build_artifact
from retrieval.build.change import add_images, remove_images, update_metrics
from retrieval.build.sync import sync_artifact
from retrieval.encoders.image import Encoder
from retrieval.sources.open import open_source
from retrieval.artifact.atomic import replacing, writing


def build(out, source, encoder):
    build_artifact(open_source(source), Path(out), Encoder.load(Path(encoder)))


def add(out, source):
    add_images(Path(out), open_source(source))


def sync(out, source):
    sync_artifact(Path(out), open_source(source))


def remove(out, ids):
    remove_images(Path(out), ids)


def update(out, changes):
    update_metrics(Path(out), changes)


def alternate(out, folders, reads):
    for number, folder in enumerate(folders):
        with writing(Path(out), LAYOUT.own()), replacing(Path(out), LAYOUT.own()) as fresh:
            shutil.copytree(folder, fresh, dirs_exist_ok=True)
        if number % 3 == 0:
            wait_for_reads(Path(reads), 2)  # the second read started after the replacement


# A load takes longer than a replacement: without this wait, every load would be overtaken by the next replacement.
def wait_for_reads(reads, more):
    wanted = reads.stat().st_size + more
    for _ in range(60_000):
        if reads.stat().st_size >= wanted:
            return
        time.sleep(0.001)
    raise TimeoutError("nobody reads")


# Without os.devnull, which the thread that starts other processes opens at any moment.
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "shutil.rmtree", "ctypes.dlopen"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def before_each_change(act):
    count, acting = 0, False

    def hook(event, arguments):
        nonlocal count, acting
        writes = event == "open" and (arguments[2] or 0) & WRITES and arguments[0] != os.devnull
        if not acting and (event in CHANGES or writes):
            count, acting = count + 1, True
            act(count)
            acting = False

    sys.addaudithook(hook)


def die_at(number):
    before_each_change(lambda count: os.kill(os.getpid(), signal.SIGKILL) if count == number else None)


# What a kill would leave in `folder` at each moment. Locks are not copied: a kill frees them, too.
def keep(folder, kept):
    before_each_change(lambda count: subprocess.run(["cp", "-a", folder, f"{kept}/{count:03}"], check=True))


def run(kind, arguments, die=None, kept=None, two_renames=False):
    if two_renames:  # simulates a system that cannot exchange two folders in one call
        ctypes.CDLL = lambda *_, **__: types.SimpleNamespace()
    if die:
        die_at(die)
    if kept:
        keep(Path(arguments["out"]).parent, kept)
    jobs = {"build": build, "add": add, "sync": sync, "remove": remove, "update": update, "alternate": alternate}
    jobs[kind](**arguments)


print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if job.pop("unforked"):  # what is loaded here for the first time, no child has to load again
        run(**job)
        gc.freeze()
        print("0", flush=True)
        continue
    child = os.fork()
    if not child:
        try:
            run(**job)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Workers:
    """Runs jobs one after the other, each in its own process."""

    def __init__(self):
        self.process = WARM.start("-c", FORKING, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == "ready\n"

    def start(self, kind, *, die=None, kept=None, two_renames=False, unforked=False, **arguments):
        """Start a job; returns the id of its process."""
        options = {"die": die, "kept": kept, "two_renames": two_renames, "unforked": unforked}
        self.process.stdin.write(json.dumps({"kind": kind, "arguments": arguments, **options}) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def warm_up(self, kind, **arguments):
        """Run a job in the process that is forked, so that its children have loaded all that the job needs."""
        assert self.start(kind, unforked=True, **arguments) == 0

    def end(self):
        """Wait for the job that was started; returns its exit status (0, 1, or minus the signal)."""
        return int(self.process.stdout.readline())

    def run(self, *arguments, **options):
        self.start(*arguments, **options)
        return self.end()


@pytest.fixture(scope="module")
def workers(scene, tmp_path_factory):
    base, _, _, arguments = scene
    workers, out = Workers(), tmp_path_factory.mktemp("warm") / "artifact"
    shutil.copytree(base, out)
    for kind in ("build", "add"):
        workers.warm_up(kind, out=str(out), **arguments[kind])
    yield workers
    workers.process.stdin.close()
    workers.process.wait()


@pytest.fixture(scope="module")
def scene(encoder, tmp_path_factory):
    """An artifact of 12 images, its ids, and for each operation the ids that it leaves and its arguments."""
    root = tmp_path_factory.mktemp("scene")
    for seed in range(12):
        noise(root / "one" / f"c{seed % 3}" / f"{seed}.png", seed)
    for seed in range(8, 20):
        noise(root / "two" / f"d{seed % 3}" / f"{seed}.png", seed)
    (root / "encoder").mkdir()
    encoder.save(root / "encoder")
    one, two = (open_source(str(root / name)) for name in ("one", "two"))
    build_artifact(one, root / "old", encoder)
    (root / "old" / "notes.txt").write_text("mine")  # a user's own file
    old = load_artifact(root / "old").gallery.ids
    new = {"remove": old[5:]}
    build_artifact(two, root / "new", encoder)
    new["build"] = load_artifact(root / "new").gallery.ids
    shutil.copytree(root / "old", root / "sum")
    add_images(root / "sum", two)
    new["add"] = load_artifact(root / "sum").gallery.ids
    shutil.copytree(root / "old", root / "synced")
    sync_artifact(root / "synced", two)
    new["sync"] = load_artifact(root / "synced").gallery.ids
    assert {kind: len(ids) for kind, ids in new.items()} == {"build": 12, "add": 20, "remove": 7, "sync": 12}
    assert new["sync"] != new["build"], "known rows come first"
    arguments = {
        "build": {"source": str(root / "two"), "encoder": str(root / "encoder")},
        "add": {"source": str(root / "two")},
        "sync": {"source": str(root / "two")},
        "remove": {"ids": old[:5]},
    }
    return root / "old", old, new, arguments


def rest(folder):
    """Names of the files and folders beside an artifact, except its lock."""
    return {path.name for path in folder.parent.iterdir()} - {folder.name, f".{folder.name}.lock"}


def clean_up(out):
    """Do what every change begins with: clean up what a killed one has left."""
    with writing(out, LAYOUT.own()):
        pass


def is_tried(number, left, seen):
    """Whether to run a complete change after this kill: for each new kind of leftovers, and after some other kills."""
    tried = number % 16 == 1 or left not in seen
    seen.append(left)
    return tried


class Reader:
    """Loads artifacts, each state once: most kills change only what no reader looks at."""

    def __init__(self):
        self._loaded = {}

    def ids(self, out):
        # Where the artifact itself is missing, a reader restores it from what is beside it.
        read = contents(out if (out / LAYOUT.manifest).is_file() else out.parent)
        state = frozenset(read.items()), frozenset(rest(out))
        if state not in self._loaded:
            self._loaded[state] = load_artifact(out).gallery.ids
        return self._loaded[state]


def fresh_copy(folder, tmp_path):
    shutil.rmtree(tmp_path / "at", ignore_errors=True)
    (tmp_path / "at").mkdir()
    return Path(shutil.copytree(folder, tmp_path / "at" / "artifact"))


def moments(workers, base, tmp_path, kind, **arguments):
    """What a kill leaves of the artifact before each change of the file system, in order; at last, the whole change.

    The change runs once, and all is copied before each of its steps; some true kills leave the same files.
    """
    (tmp_path / "kept").mkdir()
    out = fresh_copy(base, tmp_path)
    assert workers.run(kind, out=str(out), kept=str(tmp_path / "kept"), **arguments) == 0
    kept = [*sorted((tmp_path / "kept").iterdir()), Path(shutil.move(tmp_path / "at", tmp_path / "whole"))]
    assert len(kept) > 10
    for number in range(1, len(kept), 16):
        out = fresh_copy(base, tmp_path)
        assert workers.run(kind, out=str(out), die=number, **arguments) == -signal.SIGKILL
        assert contents(out.parent).keys() == contents(kept[number - 1]).keys()
    return [folder / "artifact" for folder in kept]


@pytest.mark.parametrize(
    ("kind", "two_renames"),
    [("build", False), ("add", False), ("sync", False), ("remove", False), ("remove", True)],
    ids=["build", "add", "sync", "remove", "remove by two renames"],
)
def test_kill_at_any_file_change_leaves_the_old_or_the_new_artifact(kind, two_renames, workers, scene, tmp_path):
    """The process is killed before its first change of a file, then before its second, ... until it finishes."""
    base, old, new, arguments = scene
    outcomes, seen, reader = [], [], Reader()
    *killed, whole = moments(workers, base, tmp_path, kind, two_renames=two_renames, **arguments[kind])
    for number, out in enumerate(killed):
        ids = reader.ids(out)
        assert ids in (old, new[kind])
        outcomes.append(ids == new[kind])
        # The next writer cleans up after the killed one and loses no file that belongs to the user.
        if not is_tried(number, (rest(out), ids == old), seen):
            clean_up(out)
            assert reader.ids(out) == ids
            assert (out / "notes.txt").read_text() == "mine"
            assert rest(out) <= {".artifact.building"}, "which another build goes on with"
            continue
        if kind != "remove" or ids == old:
            assert workers.run(kind, out=str(out), two_renames=two_renames, **arguments[kind]) == 0
        else:
            assert workers.run("remove", out=str(out), ids=[new[kind][0]], two_renames=two_renames) == 0
            ids = new[kind][1:]
        assert load_artifact(out).gallery.ids == (ids if kind == "remove" and ids != old else new[kind])
        assert (out / "notes.txt").read_text() == "mine"
        assert rest(out) == set()
    assert load_artifact(whole).gallery.ids == new[kind]
    assert outcomes == sorted(outcomes)  # the old artifact up to some change, the new one from then on
    assert outcomes[0] is False


@pytest.mark.parametrize("two_renames", [False, True], ids=["one exchange", "two renames"])
def test_kill_during_update_metrics_leaves_the_old_or_the_new_metrics(
    two_renames, workers, pictures, encoder, tmp_path
):
    def evaluate(draft):
        noise(draft.folder / "plots" / "one.png", 1)
        return {"note": "old"}

    base = tmp_path / "run"
    build_run(open_source(str(pictures)), base, encoder, evaluate, limit=8)
    (base / "notes.txt").write_text("mine")
    outcomes, seen, reader = [], [], Reader()
    changed = moments(workers, base, tmp_path, "update", two_renames=two_renames, changes={"note": "new"})
    for number, out in enumerate(changed):
        outcomes.append(read_metrics(out).sections()["note"])
        assert len(reader.ids(out)) == 8
        if is_tried(number, (rest(out), outcomes[-1]), seen):
            assert workers.run("update", out=str(out), changes={"note": "newer"}, two_renames=two_renames) == 0
            assert read_metrics(out).sections()["note"] == "newer"
        else:
            clean_up(out)
            assert read_metrics(out).sections()["note"] == outcomes[-1]
        assert len(reader.ids(out)) == 8
        assert LAYOUT.plots_in(out) == ["plots/one.png"]
        assert (out / "notes.txt").read_text() == "mine"
        assert rest(out) == set()
    assert outcomes == sorted(outcomes, reverse=True)  # the old artifact up to some change, the new one from then on
    assert set(outcomes) == {"old", "new"}


def test_reader_never_sees_a_half_replaced_artifact(workers, scene, tmp_path):
    """An artifact is loaded over and over while it is replaced 60 times, each time by a different one."""
    base, old, new, _ = scene
    out = fresh_copy(base, tmp_path)
    folders = []
    for number in range(60):
        folders.append(str(tmp_path / f"{number}"))
        shutil.copytree(base if number % 2 else base.parent / "new", folders[-1])
        (tmp_path / f"{number}" / LAYOUT.card).write_text(f"card {number}")
        reseal(tmp_path / f"{number}")
    reads = tmp_path / "reads"
    reads.touch()
    child = workers.start("alternate", out=str(out), folders=folders, reads=str(reads))
    seen = []
    while Path(f"/proc/{child}/exe").exists():
        seen.append(load_artifact(out).gallery.ids)
        with reads.open("ab") as file:  # append: a rewritten file would be shorter for a moment
            file.write(b".")
    assert workers.end() == 0
    assert all(ids in (old, new["build"]) for ids in seen)
    assert old in seen
    assert new["build"] in seen


# `writing`, `replacing` and `recover`


OWN = ["own"]


def fill(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def held(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_new_folder_replaces_the_old_one_and_keeps_foreign_files(tmp_path):
    folder = fill(tmp_path / "x", own="old", gone="old", notes="mine")
    with writing(folder, ["own", "gone"]), replacing(folder, ["own", "gone"]) as fresh:
        assert held(fresh) == {}
        fill(fresh, own="new")
        assert held(folder) == {"own": "old", "gone": "old", "notes": "mine"}
    assert held(folder) == {"own": "new", "notes": "mine"}
    assert rest(folder) == set()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_error_while_writing_keeps_the_old_folder(tmp_path, error):
    folder = fill(tmp_path / "x", own="old", notes="mine")
    with pytest.raises(error), writing(folder, OWN), replacing(folder, OWN) as fresh:
        fill(fresh, own="new")
        raise error
    assert held(folder) == {"own": "old", "notes": "mine"}
    assert rest(folder) == set()
    with writing(folder, OWN):  # the lock was released
        pass


def test_error_while_writing_leaves_no_new_folder(tmp_path):
    with pytest.raises(ValueError), writing(tmp_path / "x", OWN), replacing(tmp_path / "x", OWN) as fresh:
        fill(fresh, own="new")
        raise ValueError
    assert not (tmp_path / "x").exists()
    assert rest(tmp_path / "x") == set()


@pytest.mark.parametrize("left_over", [".x.new", ".x.old"])
def test_leftovers_of_a_killed_process_are_removed_but_notes_kept(tmp_path, left_over):
    folder = fill(tmp_path / "x", own="old")
    fill(tmp_path / left_over, own="older", notes="mine")
    with writing(folder, OWN), replacing(folder, OWN) as fresh:
        fill(fresh, own="new")
    assert held(folder) == {"own": "new", "notes": "mine"}
    assert rest(folder) == set()


def test_reader_restores_the_old_folder_after_a_kill_between_renames(tmp_path):
    fill(tmp_path / ".x.old", own="old")
    fill(tmp_path / ".x.new", own="new")
    recover(tmp_path / "x")
    assert held(tmp_path / "x") == {"own": "old"}
    recover(tmp_path / "x")
    assert held(tmp_path / "x") == {"own": "old"}
    recover(tmp_path / "nothing")
    assert rest(tmp_path / "x") == {".x.new"}


def test_symlinked_folder_stays_a_symlink(tmp_path):
    real = fill(tmp_path / "real", own="old", notes="mine")
    (tmp_path / "x").symlink_to(real)
    with writing(tmp_path / "x", OWN), replacing(tmp_path / "x", OWN) as fresh:
        fill(fresh, own="new")
    assert (tmp_path / "x").is_symlink()
    assert held(real) == {"own": "new", "notes": "mine"}
    assert rest(real) == {"x"}


def test_current_working_directory_can_be_replaced(tmp_path, monkeypatch):
    folder = fill(tmp_path / "x")
    monkeypatch.chdir(folder)
    with writing(Path(), OWN), replacing(Path(), OWN) as fresh:
        fill(fresh, own="new")
    assert held(folder) == {"own": "new"}
    assert rest(folder) == set()


# Other writers

HOLD = """
import sys
from pathlib import Path
from retrieval.artifact.atomic import writing
with writing(Path(sys.argv[1]), []):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(copied_artifact):
    """Another process that holds the write lock of the copied artifact."""
    process = WARM.start("-c", HOLD, copied_artifact, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_second_writer_is_refused(writer, copied_artifact, pictures, encoder):
    before = contents(copied_artifact)
    artifact = load_artifact(copied_artifact)  # reading needs no lock
    source = open_source(str(pictures))
    with pytest.raises(ArtifactError, match=r"another process is writing .*copied; wait until it has finished"):
        build_artifact(source, copied_artifact, encoder)
    with pytest.raises(ArtifactError, match="another process is writing"):
        add_images(artifact.folder, source)
    with pytest.raises(ArtifactError, match="another process is writing"):
        remove_images(artifact.folder, artifact.gallery.ids[:1])
    assert contents(copied_artifact) == before
    assert set(before) == {*LAYOUT.names(), LAYOUT.exported, *LAYOUT.plots_in(copied_artifact)}


def test_killed_writer_releases_its_lock(writer, copied_artifact):
    writer.kill()
    writer.wait()
    assert len(remove_images(copied_artifact, load_artifact(copied_artifact).gallery.ids[:1]).gallery) == 59


def test_reader_does_not_interfere_with_a_running_replacement(writer, copied_artifact):
    """While a writer is between its two renames, a reader leaves the second rename to it."""
    copied_artifact.rename(copied_artifact.parent / ".copied.old")
    with pytest.raises(ArtifactError, match="another process is writing"):
        load_artifact(copied_artifact)
    assert not copied_artifact.exists()
    writer.kill()
    writer.wait()
    assert len(load_artifact(copied_artifact).gallery) == 60
