"""What the Dockerfile and .dockerignore say, as far as the tests need it."""

import json
import re
import shutil
from fnmatch import fnmatch

from conftest import ROOT


def instructions():
    """(instruction, its value) in order, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line]


def last_stage():
    found = instructions()
    return found[max(number for number, (name, _) in enumerate(found) if name == "FROM") :]


def value(name):
    """The value of an instruction of the last stage that occurs there once."""
    [found] = [said for each, said in last_stage() if each == name]
    return found


def environment():
    return dict(pair.split("=", 1) for pair in value("ENV").split())


def health_check():
    return json.loads(value("HEALTHCHECK").partition("CMD ")[2])


def command():
    return json.loads(value("ENTRYPOINT")) + json.loads(value("CMD"))


def is_sent(name):
    """Whether .dockerignore lets a file through to the builder: the last pattern that covers it decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parts = name.split("/")
        covers = [fnmatch("/".join(parts[: end + 1]), pattern) for end in range(len(parts))]
        if pattern.startswith("**/"):
            covers = [fnmatch(part, pattern.removeprefix("**/")) for part in parts]
        if any(covers):
            sent = line.startswith("!")
    return sent


def copy_into(app):
    """Do the COPY steps of the last stage that take files from the checkout, into the folder `app`."""
    for name, said in last_stage():
        if name != "COPY" or said.startswith("--from"):
            continue
        *sources, target = said.split()
        for source in sources:
            place = ROOT / source
            for path in [place] if place.is_file() else filter(lambda each: each.is_file(), place.rglob("*")):
                inside = path.relative_to(place) if place.is_dir() else path.name
                if is_sent(path.relative_to(ROOT).as_posix()):
                    to = app / target / inside
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, to)
