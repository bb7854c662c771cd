"""Databases that die, hang, refuse or hold something else: one sentence each, without secrets, and they recover."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_hex
from threading import Barrier, Thread
from urllib.parse import parse_qs, urlsplit

import numpy as np
import psycopg
import pytest
from conftest import free_port
from gate import Gate
from pymilvus import MilvusClient
from qdrant_client import QdrantClient, models

from retrieval.errors import StoreError
from retrieval.stores.servers import base, lease
from retrieval.stores.servers.base import State
from retrieval.stores.servers.lease import leased
from retrieval.stores.servers.open import open_collection

SECRET = "pa55-of-nobody"
DIM = 8
VECTORS = np.random.default_rng(0).standard_normal((50, DIM)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
KEYS = np.arange(1, 51)
TAGS = [np.array([1 + key % 2]) for key in KEYS]
STATE = State("0123abc", DIM, {"new": 50})
SENTENCE = r"^the store \S+ failed: [^\n<>]+[^\n.]\.$"


@pytest.fixture(autouse=True)
def secrets(monkeypatch, caplog, capfd):
    """Each test runs with passwords in the environment, which must not be in what is printed or logged."""
    for name, value in (("PGPASSWORD", SECRET), ("QDRANT_API_KEY", SECRET), ("MILVUS_TOKEN", f"me:{SECRET}")):
        monkeypatch.setenv(name, value)
    caplog.set_level(logging.DEBUG)
    yield
    out, err = capfd.readouterr()
    assert SECRET not in caplog.text + out + err


@contextmanager
def refused(pattern=SENTENCE):
    """What is done here fails with a sentence, without a secret in it or in its causes, which are logged."""
    with pytest.raises(StoreError, match=pattern) as failed:
        yield
    assert SECRET not in "".join(traceback.format_exception(failed.value))


def socket_of(postgres):
    return Path(parse_qs(urlsplit(postgres).query)["host"][0]) / ".s.PGSQL.5432"


@pytest.fixture(scope="module")
def milvus_server(tmp_path_factory):
    """The port of a real server of Milvus Lite."""
    pytest.importorskip("milvus_lite")
    port, folder = free_port(), tmp_path_factory.mktemp("lite")
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", folder, "--host", "127.0.0.1"]
    with subprocess.Popen([*command, "--port", str(port)], stdout=-3, stderr=-3) as server:
        for _ in range(600):
            with suppress(StoreError):
                open_collection(f"milvus+http://127.0.0.1:{port}/it").close()
                break
            time.sleep(0.1)
        yield port
        server.terminate()


@pytest.fixture(params=["postgresql", "milvus"])
def behind(request):
    """A gate in front of a real server, and the URI of a new collection behind it."""
    name = f"it_{token_hex(4)}"
    if request.param == "postgresql":
        target = socket_of(request.getfixturevalue("postgres"))
    else:
        target = ("127.0.0.1", request.getfixturevalue("milvus_server"))
    with Gate(target) as gate:
        addresses = {
            "postgresql": f"postgresql://postgres@127.0.0.1:{gate.port}/postgres?collection={name}",
            "milvus": f"milvus+http://127.0.0.1:{gate.port}/{name}",
        }
        yield gate, addresses[request.param]


@pytest.fixture
def filled(behind):
    gate, uri = behind
    with closing(open_collection(uri)) as collection:
        collection.create(STATE)
        collection.upsert(KEYS, VECTORS, TAGS)
        collection.finish()
        yield gate, collection


def found(collection):
    return collection.search(VECTORS[:1], 1)[0][0, 0]


def test_database_that_hangs_is_a_sentence_in_time_and_is_searched_again_later(filled, monkeypatch):
    gate, collection = filled
    monkeypatch.setattr(base, "ANSWER", 1.0)
    assert found(collection) == 1
    gate.silence()
    for ask in (found, lambda it: it.vectors(KEYS)):
        with refused():
            ask(collection)
    gate.open()
    wait_for(collection)


def test_database_that_dies_in_mid_search_is_a_sentence_and_is_searched_again_when_it_is_back(filled, monkeypatch):
    gate, collection = filled
    assert found(collection) == 1
    monkeypatch.setattr(base, "ANSWER", 2.0)
    gate.silence()
    before = gate.passed
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(found, collection)
        while gate.passed == before:
            time.sleep(0.01)
        gate.close()
        with refused():
            answer.result()
    with refused():
        found(collection)
    gate.open()
    wait_for(collection)


def wait_for(collection):
    """Searches work again, without a new client."""
    for _ in range(30):
        with suppress(StoreError):
            assert found(collection) == 1
            return
        time.sleep(0.2)
    assert found(collection) == 1


# One at a time


def test_collection_is_filled_by_one_process_at_a_time(behind, monkeypatch):
    monkeypatch.setattr(lease, "RENEWED", 0.1)
    _, uri = behind
    with closing(open_collection(uri)) as one, closing(open_collection(uri)) as other:
        with one.alone() as check:
            check()
            with refused("is being filled by another `index`: wait"), other.alone():
                pass
        with other.alone() as check:
            check()


def test_mark_of_a_process_that_was_killed_is_taken_over_and_that_of_a_slow_one_is_not(monkeypatch):
    for name in ("RENEWED", "SETTLED"):
        monkeypatch.setattr(lease, name, 0.05)
    monkeypatch.setattr(lease, "ABANDONED", 0.3)
    marks = ["killed 7"]
    with leased("it", lambda: marks[-1], marks.append) as check:
        check()
        with refused("is being filled"), leased("it", lambda: marks[-1], marks.append):
            pass
        marks.append("another")
        with refused("is being filled"):
            check()
    assert marks[-1] == "another"


def test_of_two_that_begin_at_once_one_goes_on(monkeypatch):
    monkeypatch.setattr(lease, "SETTLED", 0.1)
    marks = [lease.FREE]
    begun = Barrier(2)

    def read():
        found = marks[-1]
        if found == lease.FREE:
            begun.wait(5)
        return found

    def hold():
        try:
            with leased("it", read, marks.append):
                time.sleep(0.5)
                return True
        except StoreError:
            return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(lambda _: hold(), range(2))) == [False, True]


# Refusals


def test_wrong_password_is_a_sentence_without_it(postgres, monkeypatch):
    with psycopg.connect(postgres, autocommit=True) as connection:
        [rules] = connection.execute("SHOW hba_file").fetchone()
        before = Path(rules).read_text(encoding="utf-8")
        connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'another'")
        Path(rules).write_text(f"local all guarded scram-sha-256\n{before}", encoding="utf-8")
        connection.execute("SELECT pg_reload_conf()")
    try:
        with Gate(socket_of(postgres)) as gate:
            uri = f"postgresql://guarded@127.0.0.1:{gate.port}/postgres"
            with refused(r'failed: .*password authentication failed for user "guarded"\.$'):
                open_collection(uri)
            monkeypatch.setenv("PGPASSWORD", "another")
            with closing(open_collection(uri)) as right:
                assert right.state() is None
    finally:
        Path(rules).write_text(before, encoding="utf-8")


class Answers(BaseHTTPRequestHandler):
    """Answers as a server of Qdrant does that has another key, or that is not well, and repeats what it was given."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status = {"refusing": 401, "ill": 503}.get(self.path.split("/")[2].split("_")[0], 500)
        body = f"Must provide an API key or an Authorization bearer token, not {self.headers['api-key']}".encode()
        self.send_response(status, f"not {self.headers['api-key']}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def answering():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("name", "said"), [("refusing", "401"), ("ill", "503")])
def test_key_that_a_server_refuses_is_not_repeated(answering, name, said):
    with closing(open_collection(f"qdrant+http://127.0.0.1:{answering}/{name}")) as collection, refused(f": .*{said}"):
        collection.state()


@pytest.mark.parametrize("kind", ["postgresql", "qdrant+http", "milvus+http"])
def test_server_that_accepts_and_says_nothing_is_a_sentence_in_time(monkeypatch, kind):
    monkeypatch.setattr(base, "ANSWER", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent, refused():
        open_collection(f"{kind}://127.0.0.1:{silent.getsockname()[1]}/it").state()


ADDRESSES = [
    "postgresql://me:{}@host/pictures",
    "postgresql://me:a/{}@host/pictures",
    "postgresql://me:a@{}@host/pictures",
    "postgresql://me@host/pictures?password={}",
    "postgresql://me@host/pictures?PASSWORD={}",
    "milvus+https://host/it?token={}",
    "qdrant+https://host/it?api-key={}",
    "qdrant+https://host/it#api_key={}",
    "postgres://me:{}@host/pictures",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_password_in_an_address_is_refused_and_not_shown(address):
    with refused("must not hold a password|there is no store"):
        open_collection(address.format(SECRET))


# Something else of that name


@pytest.mark.parametrize("kind", ["milvus", "qdrant"])
def test_collection_that_is_not_of_lookalike_is_left_alone(tmp_path, kind):
    if kind == "milvus":
        uri = f"milvus:{tmp_path / 'it.db'}"
        with closing(MilvusClient(str(tmp_path / "it.db"))) as client:
            client.create_collection("lookalike", dimension=4)
    else:
        uri = f"qdrant:{tmp_path / 'it'}"
        with closing(QdrantClient(path=str(tmp_path / "it"))) as client:
            client.create_collection("lookalike", models.VectorParams(size=4, distance=models.Distance.DOT))
    with closing(open_collection(uri)) as collection:
        assert collection.state() is None
        with refused("lookalike is something else, not a collection of Lookalike"):
            collection.create(STATE)


def test_table_that_is_not_of_lookalike_is_left_alone(postgres):
    name = f"it_{token_hex(4)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {name} (key bigint, told text)")
        connection.execute(f"INSERT INTO {name} VALUES (1, 'mine')")
        with closing(open_collection(f"{postgres}&collection={name}")) as collection:
            with refused("is something else, not a collection of Lookalike: give the address another collection"):
                collection.create(STATE)
            assert collection.state() is None
        assert connection.execute(f"SELECT * FROM {name}").fetchall() == [(1, "mine")]
