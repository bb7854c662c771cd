"""Processes that decode pictures: each is lost in every way there is, and the next picture opens all the same."""

import io
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, ROOT
from PIL import Image

from retrieval.encoders.base import Resize
from retrieval.errors import ImageError, LookalikeError
from retrieval.images.door.decode import decode
from retrieval.images.door.files import MAX_BYTES
from retrieval.images.door.views import View, within
from retrieval.images.door.workers.apart import AVAILABLE
from retrieval.images.door.workers.limits import Limits
from retrieval.images.open import open_image, open_views

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="workers need Linux")
if AVAILABLE:
    from retrieval.images.door.workers.lane import Lane
    from retrieval.images.door.workers.pool import WORKERS, Pool
    from retrieval.images.door.workers.worker import SETTINGS, Worker

HOSTILE = DATA / "hostile_images"
TOO_LONG, TOO_MUCH, CRASHED = "takes too long to decode", "needs too much memory to decode", "crashes the decoder"


def encode(image, kind="PNG", **options):
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


SMALL = encode(Image.new("RGB", (40, 30), (1, 2, 3)))
LARGE = encode(Image.radial_gradient("L").resize((3000, 3000)).convert("RGB"), "JPEG", progressive=True)


@contextmanager
def a_pool(size=1, program=None, **limits):
    given = {"program": program} if program else {}
    with closing(Pool(size, lambda: Worker(Limits(**limits), **given), patience=60)) as pool:
        yield pool


@contextmanager
def a_worker_within_a_picture(**limits):
    """A pool whose only worker is stopped while it has a picture, and the outcome that this picture will have."""
    with a_pool() as pool, ThreadPoolExecutor(1) as thread:
        pool.decode(SMALL, None)
        (worker,) = pool._workers
        worker._limits = Limits(**limits)
        os.kill(worker.pid, signal.SIGSTOP)
        outcome = thread.submit(pool.decode, SMALL, None)
        wait_until(lambda: len(files_in_memory()) == 2)  # the picture, and where its pixels go
        time.sleep(0.1)
        yield pool, worker, outcome


def files_in_memory():
    return [link for link in open_files() if link.startswith("/memfd:picture")]


def open_files(process="self"):
    links = []
    for each in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):
            links.append(str(each.readlink()))
    return links


def wait_until(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(pid):
    """Whether a process has ended, or only waits for its status to be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


# What comes back


@pytest.mark.parametrize("side", [30, 400])  # copied, mapped
def test_picture_is_the_one_decoded_here(side):
    noise = np.random.default_rng(0).integers(0, 256, (side, side + 7, 3), dtype=np.uint8)
    for kind in ("PNG", "AVIF", "JPEG"):
        data = encode(Image.fromarray(noise), kind)
        there, here = open_image(data), decode("", data, None)
        assert (there.mode, there.size, there.info) == ("RGB", (side + 7, side), {})
        assert there.tobytes() == here.tobytes()
    assert open_image(data, at_least=8).tobytes() == decode("", data, 8).tobytes()


def test_picture_can_be_changed_and_outlives_its_worker():
    with a_pool() as pool:
        first, second = (pool.decode(LARGE, None)[0] for _ in range(2))
    before = first.tobytes()
    second.paste((9, 8, 7), (0, 0, 3000, 3000))
    assert (first.tobytes() == before) and second.getpixel((2999, 2999)) == (9, 8, 7)
    assert np.asarray(first.transpose(Image.Transpose.ROTATE_90)).shape == (3000, 3000, 3)


@pytest.mark.parametrize("side", [60, 500])  # copied, mapped
def test_views_are_those_of_the_whole_picture(side):
    data = encode(Image.fromarray(np.random.default_rng(1).integers(0, 256, (600, 900, 3), dtype=np.uint8)), "PNG")
    squash = Resize("squash", side, side + 3, int(Image.Resampling.BICUBIC))
    wanted = [View(), View((0.1, 0.25, 0.5, 1)), View(resize=within(side)), View((0, 0, 1, 0.9), squash)]
    whole = decode("", data, None)
    part = whole.crop((0, 0, 900, 540)).resize((side, side + 3), Image.Resampling.BICUBIC)
    shrunk = whole.resize((side, side * 2 // 3), Image.Resampling.LANCZOS, reducing_gap=3.0)
    expected = [whole, whole.crop((90, 150, 450, 600)), shrunk, part]
    for order in ([0, 1, 2, 3], [1, 3, 0, 2], [2, 3], [2]):
        found = open_views(data, [wanted[number] for number in order])
        for image, number in zip(found, order, strict=True):
            assert (image.mode, image.size) == ("RGB", expected[number].size)
            assert image.tobytes() == expected[number].tobytes()
    assert open_views(whole, wanted)[3].tobytes() == part.tobytes()


def test_jpeg_much_larger_than_all_views_is_decoded_at_a_fraction_of_its_size():
    soft = Image.effect_noise((64, 48), 90).resize((1600, 1200), Image.Resampling.BICUBIC).convert("RGB")
    data, squash = encode(soft, "JPEG"), View(resize=Resize("squash", 90, 90, int(Image.Resampling.BICUBIC)))
    views = [View(resize=within(100)), squash]
    whole, quarter = decode("", data, None), decode("", data, 300)
    assert quarter.size == (400, 300)
    for found, view in zip(open_views(data, views), views, strict=True):
        assert found.tobytes() == view.of(quarter).tobytes()
        assert np.allclose(np.asarray(found, float), np.asarray(view.of(whole), float), atol=8)
    for exact in (View(), View((0, 0, 0.5, 0.5), squash.resize)):  # a part of the picture needs its own pixels
        assert open_views(data, [squash, exact])[0].tobytes() == squash.of(whole).tobytes()


@pytest.mark.skipif(not HOSTILE.is_dir(), reason=f"no folder of hostile images at {HOSTILE}")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hostile_pictures_have_the_same_outcome_as_here():
    def outcome(way, *arguments):
        try:
            opened = way(*arguments)
        except ImageError as error:
            return str(error)
        return opened.size, opened.tobytes()

    for path in sorted(path for path in HOSTILE.iterdir() if path.is_file())[::5]:
        assert outcome(open_image, path) == outcome(decode, path.name, path.read_bytes(), None), path


def test_file_that_grows_beyond_the_limit_is_refused_early():
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size=-1):
            self.given += size
            return bytes(size)

    source = Endless()
    with pytest.raises(ImageError, match="too large; at most 64 MiB"):
        open_image(source)
    assert source.given == MAX_BYTES + 1


# Workers that are lost


def test_idle_worker_that_died_is_replaced_unnoticed():
    with a_pool() as pool:
        for number in (signal.SIGKILL, signal.SIGSEGV):
            pool.decode(SMALL, None)
            (worker,) = pool._workers
            os.kill(worker.pid, number)
            wait_until(lambda pid=worker.pid: ended(pid))
            assert pool.decode(SMALL, None)[0].size == (40, 30)
            assert worker not in pool._workers


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGKILL, TOO_MUCH), (signal.SIGSEGV, CRASHED), (signal.SIGSTOP, TOO_LONG)]
)
def test_worker_lost_within_a_picture_is_a_sentence(number, words):
    short = number == signal.SIGSTOP
    with a_worker_within_a_picture(processor=0.2 if short else 20, stretch=3) as (pool, worker, outcome):
        for each in (number, *[signal.SIGCONT] * (not short)):
            os.kill(worker.pid, each)
        with pytest.raises(ImageError, match=f"^the image .*{words}"):
            outcome.result()
        assert ended(worker.pid)
        assert pool.decode(SMALL, None)[0].getpixel((0, 0)) == (1, 2, 3)


def test_picture_over_its_processor_time_is_refused_and_the_next_one_opens():
    with a_pool(processor=0.04, processor_more=0, stretch=1000) as pool:
        with pytest.raises(ImageError, match=f"^large.jpg {TOO_LONG}"):
            pool.decode(named("large.jpg", LARGE), None)
        assert pool.decode(SMALL, None)[0].size == (40, 30)


def test_large_file_of_many_pixels_may_take_more_processor_time():
    slow = LARGE + bytes(2**20)  # what follows the end of a JPEG is not looked at
    with a_pool(processor=0.02, processor_more=100, stretch=1000) as pool:
        assert pool.decode(slow, None)[0].size == (3000, 3000)
    program = START.replace("import os", "import os, struct") + (
        "f = socket.recv_fds(s, 9, 2)[1]; os.pwrite(f[0], struct.pack('<Q', 2**63), os.fstat(f[0]).st_size)\n"
        "while True: pass"
    )
    with a_pool(program=program, processor=0.1, stretch=1000) as pool, pytest.raises(ImageError, match=TOO_LONG):
        pool.decode(SMALL, None)  # a small file gets no more, whatever is said of it


def test_picture_over_the_memory_limit_is_refused_and_the_next_one_opens():
    with a_pool(memory=40 * 2**20) as pool:
        for _ in range(2):
            with pytest.raises(ImageError, match=f"^large.jpg {TOO_MUCH}"):
                pool.decode(named("large.jpg", encode(Image.new("RGB", (3000, 3000)))), None)
            assert pool.decode(SMALL, None)[0].size == (40, 30)
    with a_pool(file=1_000_000) as pool:
        with pytest.raises(ImageError, match=TOO_MUCH):
            pool.decode(encode(Image.new("RGB", (600, 600))), None)
        assert pool.decode(SMALL, None)[0].size == (40, 30)


def named(name, data):
    file = io.BytesIO(data)
    file.name = f"/somewhere/{name}"
    return file


def test_others_go_on_while_one_is_lost():
    with a_worker_within_a_picture(processor=20) as (pool, worker, outcome):
        pool._size = 2
        assert pool.decode(SMALL, None)[0].size == (40, 30)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(ImageError):
            outcome.result()


def test_picture_that_waits_too_long_for_its_turn_is_told_so():
    with a_worker_within_a_picture(processor=20) as (pool, worker, outcome):
        pool._patience = 0.1
        with pytest.raises(ImageError, match="too many other pictures are waiting; try again later"):
            pool.decode(SMALL, None)
        os.kill(worker.pid, signal.SIGCONT)
        assert outcome.result()[0].size == pool.decode(SMALL, None)[0].size


def test_large_picture_is_refused_while_others_wait_and_ordinary_ones_go_on():
    large = encode(Image.new("1", (5001, 5000)), "PNG")
    with a_pool(1) as pool, ThreadPoolExecutor(1) as threads:
        pool.lane = Lane(at_once=1, waiting=1)
        pool.decode(SMALL, None)
        assert pool.decode(large, None)[0].size == (2501, 2500)
        with pool.lane.turn("another"):
            first = threads.submit(pool.decode, large, None)
            wait_until(lambda: pool.lane._places._value == 0)
            with pytest.raises(ImageError, match=r"^large\.png was not decoded: too many other large pictures"):
                pool.decode(named("large.png", large), None)
            assert pool.decode(SMALL, None)[0].size == (40, 30) and not first.done()
        assert first.result()[0].size == pool.decode(large, None)[0].size == (2501, 2500)


def test_large_picture_whose_turn_does_not_come_is_refused():
    with a_pool() as pool:
        pool.lane = Lane(at_once=1, waiting=1, patience=0.05)
        with pool.lane.turn("another"), pytest.raises(ImageError, match="try again in a few seconds"):
            pool.decode(encode(Image.new("1", (5001, 5000)), "PNG"), None)
        assert pool.decode(encode(Image.new("1", (5001, 5000)), "PNG"), None)


def test_interrupted_picture_takes_its_worker_along():
    with a_pool() as pool:
        pool.decode(SMALL, None)
        (worker,) = pool._workers

        def interrupt(*_):
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                pool.decode(SMALL, None)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert ended(worker.pid) and pool.decode(SMALL, None)[0].size == (40, 30)


def test_worker_killed_while_it_starts_is_replaced():
    started = []

    def killed_at_first():
        worker = Worker()
        started.append(worker.pid)
        if len(started) < 3:
            os.kill(worker.pid, signal.SIGKILL)
        return worker

    with closing(Pool(1, killed_at_first)) as pool:
        assert pool.decode(SMALL, None)[0].size == (40, 30)
        assert len(started) == 3 and all(map(ended, started[:2]))


def test_picture_without_a_descriptor_left_is_a_sentence():
    with a_pool() as pool:
        pool.decode(SMALL, None)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        for more in (0, 1):  # none for the picture, none for its pixels
            os.close(free := os.dup(0))  # the lowest that is free
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, before[1]))
            try:
                with pytest.raises(LookalikeError, match="the image cannot be decoded: Too many open files"):
                    pool.decode(SMALL, None)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            assert pool.decode(SMALL, None)[0].size == (40, 30)


# A worker is not trusted

START = "import os, socket, sys, mmap, time; s = socket.socket(fileno=int(sys.argv[1])); s.send(b'R')\n"
NONSENSE = {
    "nothing": "s.recv(9)",
    "too much": "s.recv(9); s.send(b'E' * 5000)",
    "fewer pictures than wanted": "s.recv(9); s.send(b'P')",
    "more pictures than wanted": "f = socket.recv_fds(s, 9, 2)[1]; os.write(f[1], bytes(8))\n"
    "s.send(b'P' + b'\\1\\0\\0\\0' * 4)",
    "that it is large": "s.recv(9); s.send(b'L')",
    "another letter": "s.recv(9); s.send(b'?')",
    "empty": "s.recv(9); s.send(b''); time.sleep(100)",
    "no size": "s.recv(9); s.send(b'P')",
    "no pixels": "s.recv(9); s.send(b'P' + bytes(8))",
    "no file": "s.recv(9); s.send(b'P' + b'\\1\\0\\0\\0' * 2)",
    "a size that overflows": "s.recv(9); s.send(b'P' + b'\\xff' * 8)",
    "more pixels than it says": "f = socket.recv_fds(s, 9, 2)[1]; os.write(f[1], bytes(64))\n"
    "s.send(b'P' + b'\\1\\0\\0\\0' * 2)",
    "a hole": "f = socket.recv_fds(s, 9, 2)[1]; os.ftruncate(f[1], 2**20 * 4); s.send(b'P' + b'\\0\\4\\0\\0' * 2)",
    "a file that it can change": "f = socket.recv_fds(s, 9, 2)[1]; os.ftruncate(f[1], 4); m = mmap.mmap(f[1], 4)\n"
    "m[:] = bytes(4); s.send(b'P' + b'\\1\\0\\0\\0' * 2); time.sleep(100)",
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_from_a_worker_is_a_sentence(name):
    with a_pool(program=START + NONSENSE[name]) as pool, pytest.raises(ImageError, match=CRASHED):
        pool.decode(SMALL, None)


def test_message_of_a_worker_is_one_short_line():
    program = START + "s.recv(9); s.send('E\\x1b[31m\\0a\\nb\\u202e'.encode() + b'\\xff' + b'c' * 4000)"
    with a_pool(program=program) as pool, pytest.raises(ImageError) as caught:
        pool.decode(SMALL, None)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 600


def test_descriptors_that_a_worker_sends_are_not_taken():
    program = START + "s.recv(9); socket.send_fds(s, [b'Eno'], [0] * 50); time.sleep(100)"
    before = len(open_files())
    with a_pool(program=program) as pool:
        with pytest.raises(ImageError, match=r"^no$"):
            pool.decode(SMALL, None)
        assert len(open_files()) <= before + 1  # its socket


def test_worker_that_does_not_start_is_an_error_of_its_own():
    with a_pool(program="raise SystemExit(3)") as pool:
        for _ in range(2):
            with pytest.raises(LookalikeError, match="ended with status 3") as caught:
                pool.decode(SMALL, None)
            assert not isinstance(caught.value, ImageError)  # a build must not pass over the picture


def test_what_a_worker_that_does_not_start_says_is_passed_on(caplog):
    missing = pytest.raises(LookalikeError, match=r"ModuleNotFoundError: No module named 'nothing_of_this_name'$")
    with a_pool(program="import sys\nsys.path[:] = []\nimport nothing_of_this_name") as pool, missing:
        pool.decode(SMALL, None)
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (
            "ImportError: /opt/site packages/a/libheif.so.1: wrong ELF class",
            "ImportError: libheif.so.1: wrong",
        ),
        ("OSError: '/srv/ann/x.so' is missing", "OSError: 'x.so' is missing"),
        ("MemoryError", "MemoryError"),
        ("", "is memory short?"),
    ],
)
def test_visitors_are_told_no_path_of_a_worker_that_does_not_start(caplog, last, told):
    program = f"import sys; sys.stderr.write('first /a/b\\n' + {last!r}); raise SystemExit(3)"
    with a_pool(program=program if last else "raise SystemExit(3)") as pool, pytest.raises(LookalikeError) as caught:
        pool.decode(SMALL, None)
    assert "ended with status 3" in str(caught.value) and told in str(caught.value)
    assert "/opt" not in str(caught.value) and "/srv" not in str(caught.value) and "first" not in str(caught.value)
    assert last in caplog.text


# Processes


def test_worker_outlives_the_thread_that_needed_it_first():
    with a_pool() as pool:
        thread = threading.Thread(target=pool.decode, args=(SMALL, None))
        thread.start()
        thread.join()
        (worker,) = pool._workers
        pool.decode(SMALL, None)
        assert pool._workers == {worker} and worker.alive


def test_pictures_at_the_same_time_start_no_more_workers_than_allowed():
    with a_pool(2) as pool, ThreadPoolExecutor(8) as threads:
        assert {each[0].size for each in threads.map(lambda _: pool.decode(SMALL, None), range(50))} == {(40, 30)}
        assert 1 <= len(pool._workers) <= 2
        pids = [worker.pid for worker in pool._workers]
    assert all(map(ended, pids))


def test_forked_child_starts_its_own_worker():
    open_image(SMALL)
    ours = {worker.pid for worker in WORKERS._workers}
    child = os.fork()
    if not child:
        status = 1
        with suppress(BaseException):
            good = open_image(SMALL).size == (40, 30)
            status = 0 if good and not ours & {worker.pid for worker in WORKERS._workers} else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert open_image(SMALL).size == (40, 30) and {worker.pid for worker in WORKERS._workers} == ours


def test_workers_end_with_a_server_that_is_killed():
    code = (
        "import sys; from retrieval.images.open import open_image; open_image(sys.argv[1]);"
        "from retrieval.images.door.workers.pool import WORKERS;"
        "print(*[w.pid for w in WORKERS._workers], flush=True); input()"
    )
    picture = ROOT / "docs" / "page.png"
    program = [sys.executable, "-c", code, str(picture)]
    with subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        pid = int(server.stdout.readline())
        os.kill(pid, signal.SIGSTOP)  # one that does not look whether there still is a server
        server.kill()
    wait_until(lambda: ended(pid))


def test_large_pictures_keep_no_descriptor_open():
    before = len(open_files())
    data = encode(Image.new("RGB", (400, 400)))
    kept = [open_image(data) for _ in range(50)]
    assert len(open_files()) <= before + 1 and len(kept) == 50


# What lay in memory


DAMAGED = f"""
import ctypes, io, random, sys
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
from PIL import Image
from retrieval.images.door.decode import decode
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def leave_behind(value):
    sizes = 700, 800, 804, 808, 816, 900, 1000, 1024, 1032, 600, 500, 400, 300, 200, 100
    places = [libc.malloc(size) for size in sizes for _ in range(20)]
    for place in places:
        ctypes.memset(place, value, libc.malloc_usable_size(ctypes.c_void_p(place)))
    for place in places:
        libc.free(place)

noise = Image.fromarray((np.random.default_rng(0).random((600, 800)) > 0.5).astype(np.uint8) * 255).convert("1")
unclear = 0
for size in (1020, 900):
    noise.save(file := io.BytesIO(), "TIFF", compression="group4", strip_size=size)
    for seed in (21, 37):
        chance, data = random.Random(seed), bytearray(file.getvalue())
        for _ in range(20):
            data[chance.randrange(8, len(data) - 1500)] = chance.randrange(256)
        shown = set()
        for value in (0x11, 0x55, 0xEE):
            leave_behind(value)
            shown.add(decode("", bytes(data), None).tobytes())
        unclear += len(shown) > 1
print(unclear)
"""


@pytest.mark.skipif("glibc" not in platform.libc_ver()[0], reason="memory is overwritten by glibc")
def test_damaged_fax_in_small_strips_shows_nothing_of_earlier_pictures():
    run = subprocess.run([sys.executable, "-c", DAMAGED], env=SETTINGS, capture_output=True, text=True, check=True)
    assert run.stdout == "0\n"


# Rights


LOCKED = f"""
import os, socket, sys, resource, signal, threading
sys.path.insert(0, {str(ROOT)!r})
from retrieval.images.door.workers.sandbox import landlock, lock_in
server, udp = int(sys.argv[1]), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
file = os.memfd_create("x")
lock_in(2**30, 2**20)
def attempt(name, work):
    try:
        work()
    except (OSError, MemoryError, ValueError) as error:
        print(name)
attempt("open", lambda: open("/etc/passwd"))
attempt("list", lambda: os.listdir("/"))
attempt("write", lambda: open("/tmp/lookalike-was-here", "w"))
attempt("connect", lambda: socket.create_connection(("127.0.0.1", server), 5))
attempt("signal", lambda: os.kill(os.getppid(), 0))
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("memory", lambda: bytearray(2**30))
attempt("file", lambda: os.ftruncate(file, 2**21))
attempt("descriptors", lambda: [os.dup(0) for _ in range(9)])
attempt("memory files", lambda: os.memfd_create("x"))
attempt("udp", lambda: udp.connect(("127.0.0.1", 9)))
attempt("socket", lambda: socket.socket(socket.AF_UNIX))
attempt("fork", os.fork)
attempt("thread", lambda: threading.Thread(target=int).start())
attempt("limits", lambda: resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40)))
"""


def test_worker_can_neither_open_nor_connect_nor_grow():
    if not landlock_version():
        pytest.skip("this kernel has no Landlock")
    with socket.create_server(("127.0.0.1", 0)) as server:
        run = subprocess.run(
            [sys.executable, "-I", "-c", LOCKED, str(server.getsockname()[1])],
            capture_output=True,
            text=True,
            check=True,
        )
    refused = run.stdout.split()
    assert {"open", "list", "write", "exec", "memory", "file", "descriptors", "limits"} <= set(refused)
    assert platform.machine() not in ("x86_64", "aarch64") or {"udp", "socket", "fork"} <= set(refused)
    assert platform.machine() not in ("x86_64", "aarch64") or "thread" not in refused  # HEIC needs one
    assert landlock_version() < 4 or "connect" in refused
    assert landlock_version() < 6 or "signal" in refused


def landlock_version():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from retrieval.images.door.workers.sandbox import landlock; "
    )
    return int(subprocess.check_output([sys.executable, "-I", "-c", f"{code} print(landlock())"]))


def test_worker_is_started_without_tokens_and_with_its_own_descriptors(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with a_pool() as pool, Path(os.devnull).open() as other:
        os.set_inheritable(other.fileno(), True)
        pool.decode(SMALL, None)
        (worker,) = pool._workers
        assert b"hf_secret" not in Path(f"/proc/{worker.pid}/environ").read_bytes()
        held = sorted(open_files(worker.pid))
        assert held[:3] == ["/dev/null"] * 3 and len(held) == 4 and held[3].startswith("socket:")
        space = Path(f"/proc/{worker.pid}/limits").read_text().split("Max address space")[1].split()[:2]
        assert space[0] == space[1] and 2**30 + 2**25 < int(space[0]) < 2**31  # more than the worker has at its start
        assert len(list(Path(f"/proc/{worker.pid}/task").iterdir())) == 1  # a second one would be outside of Landlock
