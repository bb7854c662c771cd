"""What is installed, and what runs in the workflows, is what was tested: versions, hashes and rights."""

import re
import tomllib

import pytest
import yaml
from conftest import ROOT
from dockerfile import instructions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from without_torch import needed

LOCK = (ROOT / "requirements-lock.txt").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^(\S+==[^\\\n]+?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", LOCK, re.MULTILINE)
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

FOLLOWED = {"pip", "github-actions", "docker", "docker-compose"}  # by Dependabot

# The first version of each package without the holes that were known in it: hostile pictures, models, tables,
# templates, forms and headers.
FIRST_SAFE = {
    "pillow": "12.1.1",  # CVE-2026-25990
    "torch": "2.6",  # CVE-2025-32434
    "transformers": "4.53",  # CVE-2025-5197 and others
    "sentencepiece": "0.2.1",  # CVE-2026-1260
    "protobuf": "6.33.5",  # CVE-2026-0994
    "pyarrow": "14.0.1",  # CVE-2023-47248
    "jinja2": "3.1.6",  # CVE-2025-27516
    "starlette": "1.3.1",  # CVE-2025-62727, CVE-2026-48710, CVE-2026-54282, CVE-2026-54283
    "python-multipart": "0.0.26",  # CVE-2026-24486, CVE-2026-40347
    "orjson": "3.11.6",  # CVE-2025-67221
    "httpcore": "1.0.9",  # the first that asks for h11 0.16: CVE-2025-43859
    "mcp": "1.23",  # CVE-2025-66416
    "filelock": "3.20.3",  # CVE-2025-68146, CVE-2026-22701
    "tqdm": "4.66.3",  # CVE-2024-34062
}


def locked():
    """The requirements of the lock that hold on this machine, {name: version}."""
    found = map(Requirement, (entry for entry, _ in ENTRIES))
    here = [each for each in found if each.marker is None or each.marker.evaluate()]
    versions = {canonicalize_name(each.name): next(iter(each.specifier)).version for each in here}
    assert len(versions) == len(here), "one version each"
    return versions


def pinned():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_lock_has_the_versions_of_the_requirements_and_hashes_for_each():
    assert {name: locked().get(name) for name in pinned()} == pinned(), "run the command at the top of the lock again"
    rest = LOCK
    for entry, hashes in ENTRIES:
        rest = rest.replace(f"{entry} \\\n{hashes}", "", 1)
    assert [line for line in rest.splitlines() if not line.lstrip().startswith("#")] == []
    assert "://" not in LOCK, "names no registry"


def test_lock_holds_everything_that_the_requirements_need():
    versions = locked()
    asked = list(needed(Requirement(f"{name}=={version}") for name, version in pinned().items()))
    assert len(asked) > 100
    assert [
        str(each)
        for each in asked
        if not each.specifier.contains(versions.get(canonicalize_name(each.name), "0"), prereleases=True)
    ] == []


def test_lock_is_made_by_the_documented_command():
    command = re.search(r"^#    (uv pip compile .+)$", LOCK, re.MULTILINE)[1]
    assert command in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_ranges_of_the_package_begin_above_the_holes_that_are_known():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    floors = {}
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    for each in map(Requirement, [*project["dependencies"], *extras]):
        if each.extras:
            continue  # one of the project's own extras
        floors[canonicalize_name(each.name)] = max(Version(s.version) for s in each.specifier if s.operator == ">=")
    assert {name: safe for name, safe in FIRST_SAFE.items() if floors[name] < Version(safe)} == {}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_runs_fixed_actions_and_may_only_read(path):
    text = path.read_text(encoding="utf-8")
    flow = yaml.safe_load(text)
    jobs = flow["jobs"].values()
    assert flow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in jobs)
    uses = re.findall(r"\buses: (.+)", text)
    assert [each for each in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)] == []
    steps = [step for job in jobs for step in job["steps"]]
    assert len(uses) == sum("uses" in step for step in steps)
    checkouts = [step for step in steps if "actions/checkout" in step.get("uses", "")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_pull_requests_get_no_secrets(path):
    text = path.read_text(encoding="utf-8")
    events = set(yaml.safe_load(text)[True])  # `on` is true in YAML
    assert not events & {"pull_request_target", "workflow_run", "issue_comment"}
    assert "pull_request" not in events or "secrets" not in text


def test_one_action_has_one_hash_in_all_workflows():
    pins = {tuple(each.split("@")) for path in WORKFLOWS for each in re.findall(r"uses: (.+)", path.read_text("utf-8"))}
    assert len(pins) == len({action for action, _ in pins})


def test_locked_versions_are_audited_and_kept_up_to_date():
    [audit] = [path for path in WORKFLOWS if "pip-audit" in path.read_text(encoding="utf-8")]
    flow = yaml.safe_load(audit.read_text(encoding="utf-8"))
    assert {"push", "pull_request", "schedule"} <= set(flow[True])
    [command] = [step["run"] for step in flow["jobs"]["audit"]["steps"] if "-r " in step.get("run", "")]
    assert {"pip-audit", "--strict", "--require-hashes", "requirements-lock.txt"} <= set(command.split())
    bot = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))
    assert {each["package-ecosystem"] for each in bot["updates"]} == FOLLOWED


def test_images_of_containers_are_fixed_by_version():
    bases = [said.split()[0] for name, said in instructions() if name == "FROM"]
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    fetched = [each["image"] for each in compose["services"].values() if "build" not in each]
    fixed = r"[a-z]+:\d+\.\d+\.\d+(-[a-z]+)+(@sha256:[0-9a-f]{64})?"
    assert [each for each in (*bases, *fetched) if not re.fullmatch(fixed, each)] == []
    assert len(set(bases)) == 1
    assert f"python:{python_of_ci()}." in bases[0]


def python_of_ci():
    [version] = {
        step["with"]["python-version"] for step in steps_of("ci.yml") if "setup-python" in step.get("uses", "")
    }
    return version


def steps_of(workflow):
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / workflow).read_text(encoding="utf-8"))
    return [step for job in flow["jobs"].values() for step in job["steps"]]


def test_every_test_that_the_security_page_names_exists():
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    code = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    names = set(re.findall(r"`(test_\w+)`", page))
    assert len(names) > 20
    assert {name for name in names if not any(f"def {name}(" in text for text in code)} == set()
    files = set(re.findall(r"`(test_\w+\.py)`", page))
    assert files <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}
