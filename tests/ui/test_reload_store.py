"""The app with a vector database: the same answers over HTTP, and only pairings that fit."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import served
from conftest import noise
from gate import Gate
from gradio_client import Client

from retrieval import Searcher, add_images, open_artifact, open_source
from retrieval.artifact.pairing import fill
from retrieval.stores.servers import base
from retrieval.stores.servers.open import STORE
from retrieval.ui import reload
from retrieval.ui.reload import Reloader
from retrieval.ui.serving import Live


@pytest.fixture
def uri(postgres: str, monkeypatch: pytest.MonkeyPatch) -> str:
    address = f"{postgres}&collection=served"
    monkeypatch.setenv(STORE, address)
    return address


def test_app_answers_from_the_database_until_a_version_fits(
    copied_artifact: Path, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reload, "_STORE_AGAIN", 0.0)
    first = open_artifact(copied_artifact)
    fill(first, uri)
    live = Live(Searcher.of(first))
    own = Searcher(first.encoder, first.store, first.gallery)
    with served(live) as address:
        client = Client(address, verbose=False)
        assert client.predict(api_name="/info")["store"] == uri
        for where in (None, {"colour": "red"}, {"price": {"<": 30}}):
            name = first.gallery.ids[7]
            hits = client.predict(name, k=9, where=where, api_name="/search_by_id")["hits"]
            expected = own.search_by_id(name, 9, where=where)
            assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
            assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-5)

        noise(tmp_path / "more" / "novel" / "1.png", 1)
        add_images(copied_artifact, open_source(str(tmp_path / "more")))
        reloader = Reloader(live, copied_artifact)
        assert not any(reloader.look_at_folder() for _ in range(4)), "the database does not have it yet"
        assert capsys.readouterr().err.count("does not hold this version") == 1
        assert client.predict(api_name="/info")["images"] == 60
        assert len(client.predict(first.gallery.ids[0], k=100, api_name="/search_by_id")["hits"]) == 59
        fill(open_artifact(copied_artifact), uri)
        assert any(reloader.look_at_folder() for _ in range(4))
        assert client.predict(api_name="/info")["images"] == 61


def test_app_goes_on_when_its_database_hangs_and_answers_when_it_is_back(
    artifact: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "ANSWER", 1.0)
    folder = parse_qs(urlsplit(postgres).query)["host"][0]
    opened = open_artifact(artifact)
    with Gate(Path(folder) / ".s.PGSQL.5432") as gate:
        uri = f"postgresql://postgres@127.0.0.1:{gate.port}/postgres?collection=behind_a_gate"
        fill(opened, uri)
        with served(Live(Searcher.of(opened, uri))) as address:
            client = Client(address, verbose=False)

            def ask() -> list[str]:
                hits = client.predict(opened.gallery.ids[0], k=3, api_name="/search_by_id")["hits"]
                return [hit["id"] for hit in hits]

            before = ask()
            for end in (gate.silence, gate.close):
                end()
                with pytest.raises(Exception, match=r"the store postgresql://.* failed: [^\n]*\.") as failed:
                    ask()
                assert "Traceback" not in str(failed.value)
                assert client.predict(api_name="/info")["images"] == 60
                gate.open()
                for _ in range(20):
                    with suppress(Exception):
                        assert ask() == before
                        break
                    time.sleep(0.3)
                assert ask() == before


def test_database_that_is_gone_is_a_sentence_and_the_app_goes_on(
    artifact: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_artifact(artifact)
    fill(opened, uri)
    searcher = Searcher.of(opened)
    with served(Live(searcher)) as address:
        client = Client(address, verbose=False)
        collection = searcher.store.collection  # type: ignore[attr-defined]
        collection._pool.close()
        with pytest.raises(Exception, match=r"the store postgresql://.* failed: ") as failed:
            client.predict(opened.gallery.ids[0], api_name="/search_by_id")
        assert "Traceback" not in str(failed.value)
        assert client.predict(api_name="/info")["images"] == 60
        assert json.dumps(client.predict(api_name="/info"))
