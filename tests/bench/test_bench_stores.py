"""The benchmark of vector databases: real ones, which are left as they were."""

import json

import psycopg

from retrieval.__main__ import main
from retrieval.stores.servers.open import hidden

SETS = ["", " of 1% random", " of 1% in clumps", " of 1% of one label", " of 5% random"]


def test_databases_are_measured_beside_exact_search_and_leave_nothing(starter, postgres, tmp_path, capsys):
    uris = [postgres, f"qdrant:{tmp_path / 'q'}", f"milvus:{tmp_path / 'm.db'}"]
    stores = [word for uri in uris for word in ("--store", uri)]
    assert main(["bench", str(starter), "--rows", "1000", "--dim", "8", *stores, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["rows"], figures["dimension"]) == (1000, 8)
    for name in ("exact", "FAISS Flat", *map(hidden, uris)):
        assert [figures[f"{name}: recall@10{of}"] for of in SETS] == [1.0] * len(SETS)
        assert all(figures[f"{name}: {what} ms{of}"] >= 0 for what in ("p50", "CPU p50") for of in SETS)
    assert all(figures[f"{uri}: bytes a vector"] > 0 and figures[f"{uri}: filling s"] > 0 for uri in uris)
    with psycopg.connect(postgres) as connection:
        names = connection.execute("SELECT relname FROM pg_class WHERE relname LIKE 'bench_%'").fetchall()
    assert names == []


def test_file_that_holds_a_collection_is_not_filled(starter, tmp_path, capsys):
    uri = f"qdrant:{tmp_path / 'q'}"
    assert main(["index", str(starter), "--to", uri]) == 0
    assert main(["bench", str(starter), "--rows", "100", "--dim", "8", "--store", uri]) == 1
    assert "has a collection already: a benchmark needs a new file or folder" in capsys.readouterr().err
