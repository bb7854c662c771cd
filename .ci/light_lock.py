"""Print the part of requirements-lock.txt that serving needs: the first part of requirements.txt, and what it brings.

    python .ci/light_lock.py > light.txt && pip install --require-hashes -r light.txt

Needs nothing but Python, as it runs before anything is installed. The lock says below each package whose need it is.
"""

import re
from pathlib import Path

ENTRY = re.compile(r"^(\S+?)==.*\n(?:    --hash=.*\n)+((?:    #.*\n)+)", re.MULTILINE)


def light(requirements: str, lock: str) -> list[str]:
    """The lock's entries, with their hashes, of what stands before the empty line in requirements.txt and its needs."""
    kept = set(re.findall(r"^([\w.-]+)==", requirements.partition("\n\n")[0], re.MULTILINE))
    entries = [(found[1], set(re.findall(r"[\w.-]+", found[2])), found[0]) for found in ENTRY.finditer(lock)]
    if missing := kept - {name for name, _, _ in entries}:
        raise SystemExit(f"requirements-lock.txt lacks {', '.join(sorted(missing))}: make it again (CONTRIBUTING.md).")
    before = -1
    while len(kept) > before:
        before = len(kept)
        kept |= {name for name, needed_by, _ in entries if needed_by & kept}
    return [text for name, _, text in entries if name in kept]


if __name__ == "__main__":
    folder = Path(__file__).parent
    folder = folder if (folder / "requirements.txt").is_file() else folder.parent  # beside it while an image is built
    names = ("requirements.txt", "requirements-lock.txt")
    print(*light(*((folder / name).read_text(encoding="utf-8") for name in names)), sep="", end="")
