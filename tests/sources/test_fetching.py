"""Addresses in lists, fetched from a real server on this machine that is slow, broken or rude."""

import gzip
import socket
import threading
import time
import tracemalloc
import zlib
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import BACKBONE, png

from retrieval.artifact.load import load_artifact
from retrieval.build import embed
from retrieval.build.build import build_artifact
from retrieval.build.change import add_images
from retrieval.build.sync import sync_artifact
from retrieval.errors import ImageError
from retrieval.images.door.files import MAX_BYTES
from retrieval.sources.lists import ahead, fetch, network
from retrieval.sources.lists.fetch import Fetcher
from retrieval.sources.open import open_source

BOMB = gzip.compress(bytes(100 * 2**20), 1)  # 100 MiB of zeros in 450 kB
PICTURES = {number: png(number) for number in range(40)}


class Handler(BaseHTTPRequestHandler):
    """Answers by path: `/3.png` with a picture, `/500-once/3.png` with an error first, and so on."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked, earlier = self.server.asked, self.server.asked[self.path]
        asked[self.path] += 1
        kind, _, name = self.path.lstrip("/").rpartition("/")
        if kind == "429" and not earlier:
            return self.send(429, b"", {"Retry-After": "0"})
        if kind == "429-date" and not earlier:
            return self.send(429, b"", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
        if kind == "429-long":
            return self.send(429, b"", {"Retry-After": "3600"})
        if kind == "500-once" and not earlier:
            return self.send(500, b"")
        if kind == "503" and not asked["up"]:
            return self.send(503, b"")
        if kind == "404" and not asked["up"]:
            return self.send(404, b"")
        if kind == "html":
            return self.send(200, b"<!doctype html><html>Please log in</html>")
        if kind == "to":
            return self.send(302, b"", {"Location": f"http://127.0.0.2:{self.server.server_port}/{name}"})
        if kind == "round":
            return self.send(302, b"", {"Location": self.path})
        if kind == "to-file":
            return self.send(302, b"", {"Location": "file:///etc/passwd"})
        if kind == "large":
            return self.send(200, b"", {"Content-Length": "1000000"})
        if kind in ("endless", "drip", "drip-header", "cut-once"):
            return getattr(self, kind.replace("-", "_"))(earlier)
        if kind in ("gzip", "deflate", "br", "gzip-twice", "gzip-cut"):
            packed = zlib.compress(PICTURES[1]) if kind == "deflate" else gzip.compress(PICTURES[1])
            return self.send(
                200,
                packed[: -20 if "cut" in kind else None],
                {"Content-Encoding": "gzip, gzip" if "twice" in kind else kind.partition("-")[0]},
            )
        if kind in ("bomb", "bomb-to"):
            moved = {"Location": f"/{name}"} if kind == "bomb-to" else {}
            return self.send(302 if moved else 200, BOMB, {"Content-Encoding": "gzip", **moved})
        if kind == "cookie":
            return self.send(200, self.headers.get("Cookie", "none").encode(), {"Set-Cookie": "who=ann; Path=/"})
        if kind == "user" and self.headers["Authorization"] != "Basic YW5uOnNlY3JldA==":
            return self.send(401, b"")
        return self.send(200, PICTURES[int(name.removesuffix(".png"))])

    def send(self, status, body, headers=()):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def endless(self, _):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.drop_out(f"{10_000:x}\r\n".encode() + bytes(10_000) + b"\r\n", 0)

    def drip(self, _):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        self.drop_out(b"x", 0.05)

    def drip_header(self, _):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        self.drop_out(b"x", 0.05)

    def cut_once(self, earlier):
        if earlier:
            self.send(200, PICTURES[1])
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        self.close_connection = True

    def drop_out(self, piece, pause):
        self.close_connection = True
        while not self.server.closing.wait(pause):
            try:
                self.wfile.write(piece)
                self.wfile.flush()
            except OSError:  # the other side has hung up
                return

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def running():
    with ThreadingHTTPServer(("", 0), Handler) as server:
        server.daemon_threads, server.closing = True, threading.Event()
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


@pytest.fixture
def site(running):
    """The server, with nothing asked yet; `asked` counts the requests for each path."""
    running.asked = Counter()
    return running


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(fetch, "BACKOFF", 0.01)


def at(site, path, host="127.0.0.1"):
    return f"http://{host}:{site.server_port}/{path}"


def listed(tmp_path, site, paths):
    """The path of a list of these paths on the server."""
    path = tmp_path / "list.csv"
    path.write_text("\n".join(["url,x", *(f"{at(site, each)},{number}" for number, each in enumerate(paths))]))
    return str(path)


# One address


@pytest.mark.parametrize(
    ("path", "requests"),
    [("1.png", 1), ("429/1.png", 2), ("429-date/1.png", 2), ("500-once/1.png", 2), ("cut-once/1.png", 2)],
)
def test_picture_is_fetched_in_spite_of_a_passing_failure(site, path, requests):
    assert Fetcher(True)(at(site, path)) == PICTURES[1]
    assert site.asked[f"/{path}"] == requests


@pytest.mark.parametrize(
    ("path", "words", "requests"),
    [
        ("404/1.png", "the server answers 404 Not Found", 1),
        ("503/1.png", "the server answers 503 Service Unavailable, 4 times", 4),
        ("429-long/1.png", "429 Too Many Requests; it asks to wait 3600 seconds", 1),
        ("round/1.png", "redirected more than 5 times", 6),
        ("to-file/1.png", "the address, or where it is redirected, is not valid: .*file://", 1),
        ("large/1.png", "the answer is too large; at most", 1),
        ("endless/1.png", "the answer is too large; at most", 1),
        ("drip/1.png", "the transfer took longer than 0.4 seconds", 1),
        ("drip-header/1.png", "the transfer took longer than 0.4 seconds", 1),
    ],
)
def test_failure_is_an_error_with_its_reason(site, monkeypatch, path, words, requests):
    monkeypatch.setattr(fetch, "MAX_BYTES", 100_000)
    monkeypatch.setattr(fetch, "LONGEST", 0.4)
    with pytest.raises(ImageError, match=words):
        Fetcher(True)(at(site, path))
    assert site.asked[f"/{path}"] == requests


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_packed_answer_is_unpacked(site, packing):
    assert Fetcher(True)(at(site, f"{packing}/1.png")) == PICTURES[1]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("br/1.png", "packed as 'br', which was not asked for"),
        ("gzip-twice/1.png", "packed as 'gzip, gzip'"),
        ("gzip-cut/1.png", "the answer is damaged: it is cut short"),
    ],
)
def test_answer_packed_in_another_way_is_refused(site, path, words):
    with pytest.raises(ImageError, match=words):
        Fetcher(True)(at(site, path))


def test_packed_answer_is_never_unpacked_beyond_the_limit(site, tmp_path):
    tracemalloc.start()
    with (tmp_path / "saved").open("wb") as file, pytest.raises(ImageError, match="the answer is too large"):
        Fetcher(True).save(at(site, "bomb/1.png"), file)
    with (tmp_path / "moved").open("wb") as file:
        Fetcher(True).save(at(site, "bomb-to/1.png"), file)  # nor is the body of a redirect
    assert tracemalloc.get_traced_memory()[1] < 5 * 2**20
    tracemalloc.stop()
    assert (tmp_path / "saved").stat().st_size <= MAX_BYTES
    assert (tmp_path / "moved").read_bytes() == PICTURES[1]


def test_cookies_are_not_kept_from_one_address_for_the_next(site):
    fetcher = Fetcher(True)
    assert [fetcher(at(site, "cookie/1.png")) for _ in range(2)] == [b"none", b"none"]


def test_only_https_is_fetched_where_that_is_asked_for(site):
    with pytest.raises(ImageError, match="only https:// addresses are fetched"):
        Fetcher(True, only_https=True)(at(site, "1.png"))
    assert not site.asked


def test_server_that_is_not_there_is_an_error_with_its_reason():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))  # nobody listens
        with pytest.raises(ImageError, match=r"the server cannot be reached: .*refused, 4 times"):
            Fetcher(True)(f"http://127.0.0.1:{listening.getsockname()[1]}/1.png")
    with pytest.raises(ImageError, match=r"the host no\.invalid is not known \([^()]*\)$"):
        Fetcher(True)("http://no.invalid/1.png")


def test_transfer_ends_when_it_is_stopped(site):
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(ImageError, match="does not answer in time"):
        Fetcher(True)(at(site, "drip/1.png"), stop)


# Networks


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"],
)
def test_address_on_this_machine_is_refused_unless_allowed(site, host):
    with pytest.raises(ImageError, match=r"is in a private or reserved network; .* add --allow-private"):
        Fetcher()(at(site, "1.png", host))
    assert not site.asked


@pytest.mark.parametrize(
    ("ip", "public"),
    {
        "93.184.216.34": True, "2606:2800:220:1::1": True, "::ffff:93.184.216.34": True, "64:ff9b::5db8:d822": True,
        "10.0.0.1": False, "172.16.0.1": False, "192.168.1.1": False, "169.254.169.254": False, "100.64.0.1": False,
        "224.0.0.1": False, "240.0.0.1": False, "255.255.255.255": False, "192.0.2.1": False, "198.18.0.1": False,
        "::": False, "fe80::1%eth0": False, "fc00::1": False, "fec0::1": False, "ff02::1": False,
        "64:ff9b::a00:1": False, "2002:7f00:1::": False, "2001:0:1::": False, "::ffff:10.0.0.1": False,
    }.items(),
)  # fmt: skip
def test_only_addresses_in_public_networks_are_public(ip, public):
    assert network.is_public(ip) is public


def test_redirect_into_a_private_network_is_refused(site, monkeypatch):
    monkeypatch.setattr(network, "is_public", lambda ip: ip == "127.0.0.1")  # so that 127.0.0.2 is private
    assert Fetcher()(at(site, "1.png")) == PICTURES[1]
    with pytest.raises(ImageError, match=r"127\.0\.0\.2 is in a private"):
        Fetcher()(at(site, "to/2.png"))
    assert "/2.png" not in site.asked


def test_name_that_changes_its_address_leads_to_the_one_that_was_checked(site, monkeypatch):
    monkeypatch.setattr(network, "is_public", lambda ip: ip == "127.0.0.1")
    answers = iter(["127.0.0.1", "127.0.0.2"])
    real = socket.getaddrinfo

    def changing(host, *arguments, **options):
        return real(next(answers) if host == "rebinds.test" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", changing)
    assert Fetcher()(at(site, "1.png", "rebinds.test")) == PICTURES[1]
    assert list(answers) == ["127.0.0.2"]


# Lists


def test_build_of_addresses_accounts_for_each_of_them(site, encoder, tmp_path):
    paths = ["1.png", "404/2.png", "html/3.png", "500-once/4.png", "1.png", "429/1.png"]
    source = open_source(listed(tmp_path, site, paths), allow_private=True)
    report = build_artifact(source, tmp_path / "artifact", encoder)
    assert report.skipped == [
        (at(site, "404/2.png"), "line 3: the server answers 404 Not Found"),
        (at(site, "html/3.png"), report.skipped[1][1]),
    ]
    assert "not a readable picture (found: HTML)" in report.skipped[1][1]
    assert report.left_out == [("list.csv, line 6", f"{at(site, '1.png')} is named in line 2 already", 1)]
    assert report.duplicates == [(at(site, "429/1.png"), at(site, "1.png"))]
    assert (report.found, report.indexed) == (6, 2)
    assert [row.attributes["x"] for row in load_artifact(tmp_path / "artifact").gallery.take([0, 1])] == [0, 3]
    assert not (tmp_path / ".artifact.building").exists()


def test_allow_private_is_an_option_of_build_add_and_sync(site, tmp_path, here):
    path, out, tiny = listed(tmp_path, site, ["1.png"]), tmp_path / "artifact", ("--backbone", BACKBONE)
    for refused in (True, False):
        allowed = () if refused else ("--allow-private",)
        status, printed, error = here("build", path, "--out", out, *tiny, "--no-pretrained", *allowed)
        assert ("127.0.0.1 is in a private or reserved network" in error, status) == (refused, int(refused)), error
    assert "indexed 1 + skipped 0" in printed
    listed(tmp_path, site, ["1.png", "2.png"])
    assert "new 1 + changed 0 + unchanged 1" in here("sync", out, path, "--allow-private")[1]
    assert "The first: http://127.0.0.1" in (error := here("sync", out, path)[2])
    assert "add --allow-private" in error
    (tmp_path / "3.png").write_bytes(PICTURES[3])
    with Path(path).open("a") as file:
        file.write(f"\n{tmp_path / '3.png'},2\n")
    printed = here("sync", out, path)[1]
    assert "new 1 + changed 0 + unchanged 0 + skipped 2 + duplicate 0 + left out 0; removed 0" in printed, "forgotten"
    assert "indexed 0 + skipped 2" in here("add", out, path)[1]


def test_user_name_and_password_are_used_but_not_shown(site, tmp_path):
    (tmp_path / "list.csv").write_text(f"url\nhttp://ann:secret@127.0.0.1:{site.server_port}/user/1.png\n")
    (row,) = ahead.ahead(open_source(str(tmp_path / "list.csv"), allow_private=True).rows())
    assert row.source == at(site, "user/1.png")
    assert row.read() == PICTURES[1]


def test_rows_keep_their_order_and_few_are_fetched_ahead(site, tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "_AHEAD", 5)
    paths = [f"500-once/{number}.png" if number % 3 == 0 else f"{number}.png" for number in range(30)]
    source = open_source(listed(tmp_path, site, paths), allow_private=True)
    rows = ahead.ahead(source.rows())
    first = list(islice(rows, 4))
    assert [row.read() for row in first] == [PICTURES[number] for number in range(4)]
    assert len(site.asked) <= 4 + 5 + 1
    assert [row.read() for row in rows] == [PICTURES[number] for number in range(4, 30)]


def stopped_after(source, count, work):
    """The source, broken off after so many rows, once all of them are fetched: each is in a shard or kept as a file."""

    def broken(*position):
        yield from islice(source.rows(*position), count)
        end = time.monotonic() + 20
        while time.monotonic() < end and len(list(work.glob("fetched/*[0-9a-f]"))) + embedded(work) < count:
            time.sleep(0.02)
        raise KeyboardInterrupt

    return replace(source, rows=broken)


def embedded(work):
    return sum(pq.read_metadata(path).num_rows for path in work.glob("*.parquet"))


def test_resumed_build_fetches_nothing_twice(site, encoder, tmp_path, monkeypatch):
    for module, name, value in ((embed, "SHARD", 8), (embed, "_AHEAD", 4), (ahead, "_AHEAD", 4)):
        monkeypatch.setattr(module, name, value)
    paths, work = [f"{number}.png" for number in range(40)], tmp_path / ".artifact.building"
    source = open_source(listed(tmp_path, site, paths), allow_private=True)
    with pytest.raises(KeyboardInterrupt):
        build_artifact(stopped_after(source, 37, work), tmp_path / "artifact", encoder)
    assert (embedded(work), len(site.asked)) == (24, 37)
    report = build_artifact(source, tmp_path / "artifact", encoder)
    assert report.indexed == 40
    assert site.asked == {f"/{path}": 1 for path in paths}


def test_sync_and_add_fetch_each_address_once(site, encoder, tmp_path):
    source = open_source(listed(tmp_path, site, ["0.png", "1.png"]), allow_private=True)
    build_artifact(source, tmp_path / "artifact", encoder)
    for change, paths in ((sync_artifact, ["1.png", "2.png", "3.png"]), (add_images, ["3.png", "4.png"])):
        site.asked.clear()
        change(tmp_path / "artifact", open_source(listed(tmp_path, site, paths), allow_private=True))
        assert site.asked == {f"/{path}": 1 for path in paths}
    gallery = load_artifact(tmp_path / "artifact").gallery
    assert [row.source.rpartition("/")[2] for row in gallery.take(range(4))] == ["1.png", "2.png", "3.png", "4.png"]


def test_sync_keeps_what_cannot_be_fetched_now_and_removes_what_is_gone(site, encoder, tmp_path):
    paths = ["1.png", "503/2.png", "404/3.png"]
    path = listed(tmp_path, site, paths)
    site.asked["up"] = 1
    build_artifact(open_source(path, allow_private=True), tmp_path / "artifact", encoder)
    site.asked["up"] = 0
    report = sync_artifact(tmp_path / "artifact", open_source(path, allow_private=True))
    assert report.removed == [at(site, "404/3.png")]
    assert [reason for _, reason in report.skipped] == [
        "line 3: the server answers 503 Service Unavailable, 4 times",
        "line 4: the server answers 404 Not Found",
    ]
    assert (report.found, report.unchanged) == (3, 1)
    gallery = load_artifact(tmp_path / "artifact").gallery
    assert [(row.source, row.attributes["x"]) for row in gallery.take([0, 1])] == [
        (at(site, "1.png"), 0),
        (at(site, "503/2.png"), 1),
    ]
