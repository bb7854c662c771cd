"""Dockerfile and compose.yaml: what they do is done here without Docker, and the proxy's part by a real Caddy."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
import yaml
from conftest import ROOT, STARTER, free_port, serving
from dockerfile import command, copy_into, environment, health_check, instructions, is_sent, value
from gradio_client import Client, handle_file
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_install import PROJECT
from without_torch import needed

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
STORED = yaml.safe_load((ROOT / "compose.postgresql.yaml").read_text(encoding="utf-8"))
APPS = [service for name, service in COMPOSE["services"].items() if name != "proxy"]
PROGRAM = ROOT / "tests" / "support" / "without_torch.py"
PAGE = {"Accept": "text/html"}


def waited_for(question, seconds=60):
    """What the question answers, as soon as that is true."""
    for _ in range(seconds * 10):
        if answer := question():
            return answer
        time.sleep(0.1)
    raise TimeoutError(question)


def is_ready(address):
    with suppress(httpx.TransportError):
        return httpx.get(f"{address}/ready").is_success
    return False


# The image


def test_image_gets_what_serving_needs_with_hashes_and_nothing_else():
    script = ROOT / ".ci" / "light_lock.py"
    lines = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    entries = re.findall(r"^(\S+==.+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lines, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^\S+==", lines, re.MULTILINE))
    here = [one for one, _ in entries if (found := Requirement(one).marker) is None or found.evaluate()]
    brought = {canonicalize_name(each.name) for each in needed(map(Requirement, PROJECT["dependencies"]))}
    assert {canonicalize_name(Requirement(one).name) for one in here} == brought
    steps = " ".join(said for name, said in instructions() if name == "RUN")
    assert "light_lock.py > light.txt" in steps
    assert "--require-hashes -r light.txt" in steps


def test_image_runs_as_a_user_who_is_not_root():
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", value("USER"))


def test_builder_gets_only_what_the_image_needs():
    copied = [word for name, said in instructions() if name == "COPY" and "--from" not in said for word in said.split()]
    assert all(is_sent(name) for name in copied if (ROOT / name).is_file())
    assert is_sent("retrieval/search.py")
    for name in (".git/config", ".env", "tests/conftest.py", "my_artifact/index.faiss", "retrieval/__pycache__/a.pyc"):
        assert not is_sent(name)


def test_steps_of_the_image_serve_and_end_in_order_and_write_to_their_volumes_only(tmp_path, shirt):
    copy_into(tmp_path / "app")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "app").rglob("*")}
    said = environment()
    for name, text in said.items():  # the two folders that the image can write to
        for place in ("tmp", "cache"):
            if text == f"/{place}" or text.startswith(f"/{place}/"):
                said[name] = str(tmp_path / text.removeprefix("/"))
                (tmp_path / place).mkdir(exist_ok=True)
    said |= {"PATH": os.environ["PATH"], "TMPDIR": said["HOME"], "GRADIO_SERVER_PORT": str(free_port())}
    said["PYTHONDONTWRITEBYTECODE"] = "1"  # the image has compiled the code, and it belongs to root
    entry = command()
    assert entry[:2] == ["python", "-m"]
    with subprocess.Popen(
        [sys.executable, PROGRAM, *entry[2:]], cwd=tmp_path / "app", env=said, stdout=-3, stderr=subprocess.PIPE
    ) as app:
        try:
            check = [sys.executable, *health_check()[1:]]
            asked = {"env": said, "stderr": subprocess.DEVNULL, "check": False}
            assert subprocess.run(check, **asked).returncode == 1  # nobody listens yet
            address = f"http://127.0.0.1:{said['GRADIO_SERVER_PORT']}"
            waited_for(lambda: is_ready(address) or app.poll() is not None)
            assert app.poll() is None, app.stderr.read().decode()
            assert subprocess.run(check, **asked).returncode == 0
            client = Client(address, verbose=False)
            assert client.predict(handle_file(shirt), k=1, api_name="/search")["hits"][0]["label"] == "shirt"
        finally:
            app.send_signal(signal.SIGTERM)
            complaints = app.communicate(timeout=60)[1].decode()
    assert app.returncode == 0, complaints
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "app").rglob("*")} == before
    assert not [path for path in (tmp_path / "cache").rglob("*") if "Microsoft" in path.parts]  # no telemetry


# Several behind a proxy


def test_only_the_proxy_can_be_reached_and_replicas_may_do_nothing_but_serve():
    assert [name for name, service in COMPOSE["services"].items() if "ports" in service] == ["proxy"]
    assert len(APPS) == 2
    for app in APPS:
        assert (app["read_only"], app["cap_drop"], app["pull_policy"]) == (True, ["ALL"], "build")
        assert app["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
        secrets = {name for name, given in app["environment"].items() if given is None}
        assert secrets == {"LOOKALIKE_ALLOWED_HOST", "LOOKALIKE_AUTH", "HF_TOKEN"}
        assert "--uploads" in app["command"]
    subnet = COMPOSE["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    assert {app["environment"]["LOOKALIKE_TRUSTED_PROXY"] for app in APPS} == {subnet}


def caddyfile(replicas, port, own):
    """The proxy's configuration for replicas on this machine, with the values that it has by default."""
    text = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", COMPOSE["configs"]["caddyfile"]["content"])
    names = [f"{name}:7860" for name in COMPOSE["services"] if name != "proxy"]
    for old, new in [*zip(names, replicas, strict=True), ("http://:80 ", f"http://127.0.0.1:{port} "), (":2020", own)]:
        assert old in text
        text = text.replace(old, new)
    return text


@contextmanager
def proxy(program, tmp_path, replicas):
    """Caddy in front of replicas, `host:port`; yields its address."""
    port, own = free_port(), free_port()
    (tmp_path / "Caddyfile").write_text(caddyfile(replicas, port, f":{own}"), encoding="utf-8")
    caddy = [program, "run", "--config", tmp_path / "Caddyfile", "--adapter", "caddyfile"]
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    with (tmp_path / "log").open("w") as log, subprocess.Popen(caddy, stderr=log, cwd=tmp_path, env=home) as running:

        def up():
            assert running.poll() is None, (tmp_path / "log").read_text()
            return is_ready(f"http://127.0.0.1:{own}")

        try:
            yield waited_for(up) and f"http://127.0.0.1:{port}"
        finally:
            running.kill()  # it would wait for open streams


def requests_of(replica, route):
    """How many requests to a route a replica has answered."""
    text = httpx.get(f"{replica}/metrics").text
    return sum(
        float(n) for n in re.findall(rf'^lookalike_requests_total{{.*route="{re.escape(route)}".*}} (\S+)', text, re.M)
    )


@pytest.fixture
def program():
    """Caddy."""
    if not (found := shutil.which("caddy")):
        pytest.skip("no Caddy here (apt-get install -y caddy)")
    return found


@pytest.fixture
def replicas(program):
    """Two servers: their addresses, and what ends each."""
    with ExitStack() as stack:
        found = {}
        for _ in range(2):
            one = stack.enter_context(ExitStack())
            found[one.enter_context(serving())[0]] = one.close
        yield found


@pytest.fixture
def behind(program, tmp_path, replicas):
    """The address of the proxy in front of them."""
    with proxy(program, tmp_path, [address.removeprefix("http://") for address in replicas]) as address:
        waited_for(lambda: is_ready(address))
        yield address


def test_visitors_and_programs_stay_at_one_replica_and_move_on_when_it_ends(replicas, behind, shirt):
    def counts(route):
        return [requests_of(replica, route) for replica in replicas]

    def search():
        client = Client(behind, verbose=False)
        return client.predict(handle_file(shirt), k=1, api_name="/search")["hits"][0]["label"]

    with ExitStack() as stack:
        pages = [stack.enter_context(httpx.Client(base_url=behind, timeout=30)) for _ in range(20)]
        asked = set()
        for page in pages:
            before = counts("/health")
            for path, headers in [("/", PAGE), *[("/health", {})] * 3]:
                page.get(path, headers=headers).raise_for_status()
            asked.add(tuple(now - past for now, past in zip(counts("/health"), before, strict=True)))
        assert asked == {(3, 0), (0, 3)}

        assert [search() for _ in range(2)] == ["shirt"] * 2
        uploads = counts("/gradio_api/upload")
        assert sorted(uploads) == [0, 2]

        with httpx.stream("GET", f"{behind}/gradio_api/heartbeat/abcdefghijk") as stream:
            assert next(stream.iter_bytes()).startswith(b"data: ALIVE")  # though the stream goes on

        list(replicas.values())[uploads.index(2)]()
        assert search() == "shirt"
        assert {page.get("/health").status_code for page in pages} == {200}
        assert len({page.cookies["lookalike-replica"] for page in pages}) == 1


# With a database


def test_image_with_the_client_of_a_database_gets_it_with_hashes_in_the_tested_versions():
    text = (ROOT / "requirements-postgresql.txt").read_text(encoding="utf-8")
    entries = re.findall(r"^(\S+==\S+) \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", text, re.MULTILINE)
    assert len(entries) == text.count("==")
    tested = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").split()
    assert set(entries) == {line for line in tested if line.startswith("psycopg")}
    brought = {canonicalize_name(each.name) for each in needed(map(Requirement, PROJECT["dependencies"]))}
    wanted = {canonicalize_name(each.name) for each in needed(map(Requirement, entries))}
    windows = {"tzdata"}
    assert wanted - brought - windows == {Requirement(one).name for one in entries}
    steps = " ".join(said for name, said in instructions() if name == "RUN")
    client = STORED["x-searching"]["build"]["args"]["LOOKALIKE_STORE_CLIENT"]
    assert f"requirements-{client}.txt" in {path.name for path in ROOT.iterdir()}
    assert "${LOOKALIKE_STORE_CLIENT:+requirements-$LOOKALIKE_STORE_CLIENT.txt} >> light.txt" in steps
    assert is_sent("requirements-postgresql.txt")


def test_database_can_be_reached_from_inside_alone_and_its_password_is_in_no_file():
    services = STORED["services"]
    assert not [name for name, service in services.items() if "ports" in service]
    assert {service["networks"][0] for name, service in services.items() if "networks" in service} == {"inside"}
    given = [value for service in services.values() for name, value in service["environment"].items() if "PASS" in name]
    assert set(given) == {"${LOOKALIKE_DATABASE_PASSWORD:?set it in .env}"}
    assert len(given) == len(services)
    assert not is_sent(".env")
    for name in ("app-1", "app-2"):
        assert services[name]["depends_on"] == {"index": {"condition": "service_completed_successfully"}}
    index = services["index"]
    app = COMPOSE["services"]["app-1"]
    assert {name: index[name] for name in ("read_only", "cap_drop", "security_opt", "tmpfs")} == {
        name: app[name] for name in ("read_only", "cap_drop", "security_opt", "tmpfs")
    }
    assert index["restart"] == "no"


def test_steps_of_the_database_are_done_once_and_both_replicas_search_there(postgres, shirt, tmp_path):
    services, address = STORED["services"], f"{postgres}&collection=composed"
    said = {**environment(), "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PGPASSWORD": "never-shown"}
    said |= {"HF_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    [*words, artifact, to, uri] = services["index"]["command"]
    assert (words, to, uri) == (["index"], "--to", services["app-1"]["environment"]["LOOKALIKE_STORE"])
    assert artifact == "${LOOKALIKE_ARTIFACT:-/artifacts/starter}"
    program = [sys.executable, PROGRAM, "--with", "psycopg,psycopg_pool,psycopg_binary", "retrieval"]
    for added in ("added", "0 added"):  # a second run changes nothing
        filled = subprocess.run(
            [*program, *words, STARTER, to, address], env=said, cwd=ROOT, capture_output=True, text=True
        )
        assert filled.returncode == 0, filled.stderr
        assert added in filled.stdout
    answers = []
    for _ in range(2):
        port = free_port()
        asked = {
            **said,
            "LOOKALIKE_STORE": address,
            "GRADIO_SERVER_PORT": str(port),
            "LOOKALIKE_ARTIFACT": str(STARTER),
        }
        with subprocess.Popen([*program, "serve"], cwd=ROOT, env=asked, stdout=-3, stderr=subprocess.PIPE) as app:
            try:
                waited_for(lambda port=port, app=app: is_ready(f"http://127.0.0.1:{port}") or app.poll() is not None)
                client = Client(f"http://127.0.0.1:{port}", verbose=False)
                info = client.predict(api_name="/info")
                assert info["store"] == address
                assert "never-shown" not in str(info)
                answers.append(client.predict(handle_file(shirt), k=5, api_name="/search")["hits"])
            finally:
                app.send_signal(signal.SIGTERM)
                complaints = app.communicate(timeout=60)[1].decode()
        assert "never-shown" not in complaints
    assert [hit["id"] for hit in answers[0]] == [hit["id"] for hit in answers[1]]
    assert answers[0][0]["label"] == "shirt"
