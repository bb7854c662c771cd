"""A separate process that runs many of our commands against a Hub, so that torch is imported only once.

The Hub's client reads its settings at import, so the test process cannot point it to another address.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from warm import Warm

_LIMIT = 300  # seconds for a command


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit status."""

    code: int
    out: str
    err: str


class HubClient:
    """`run("pull", "me/shirts", "--out", ...)` is `python -m retrieval pull ...`; `cache` is the Hub's cache."""

    def __init__(self, hub, home):
        self.hub, self.home, self.said = hub, Path(home), []
        self.warm = Warm(hub.environment(home))
        self.process = self.warm.start(__file__, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def start(self, *arguments, token=None, settings=None, **options):
        """Start `python ARGUMENTS` as another process with the same home, and with this token or none."""
        return self.warm.start(
            *arguments, env={**self.hub.environment(self.home, token), **(settings or {})}, **options
        )

    def start_anew(self, *arguments, token=None, settings=None, **options):
        """The same, but start Python afresh instead of forking a preloaded process."""
        environment = {**self.hub.environment(self.home, token), **(settings or {})}
        return subprocess.Popen([sys.executable, *map(str, arguments)], env=environment, text=True, **options)

    def python(self, *arguments, token=None, settings=None, **options):
        """Run `python ARGUMENTS` in the same way to its end."""
        return self.warm.run(*arguments, env={**self.hub.environment(self.home, token), **(settings or {})}, **options)

    @property
    def cache(self):
        return self.home / "hub"

    def forget(self):
        """Empty the home, and with it the cache."""
        for path in self.home.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def run(self, *command, token=None, setting=None):
        """Run a command; `setting` (RLIMIT_FSIZE: bytes) applies to this command only."""
        self.process.stdin.write(json.dumps({"command": [str(c) for c in command], "token": token, **(setting or {})}))
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        watch = Timer(_LIMIT, self.process.kill)  # then no line is read, and the test fails
        watch.start()
        answer = Answer(**json.loads(self.process.stdout.readline()))
        watch.cancel()
        self.said.append(answer.out + answer.err)
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.warm.close()


def main():
    """Run the commands on standard input, one JSON object per line, and print each result as JSON."""
    import io
    import resource
    import traceback
    from contextlib import redirect_stderr, redirect_stdout

    from retrieval.__main__ import main as command
    from retrieval.hub import client

    client._SECOND = 0.02  # shorter waits: the tests check the messages about waits, not their length

    for line in sys.stdin:
        asked = json.loads(line)
        os.environ.pop("HF_TOKEN", None)
        if asked["token"]:
            os.environ["HF_TOKEN"] = asked["token"]
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if size := asked.get("RLIMIT_FSIZE"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        out, err = io.StringIO(), io.StringIO()
        # Python writes log records without a handler to the current stderr, so this captures them too.
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = command(asked["command"])
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException:
                traceback.print_exc()
                code = 70
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}), flush=True)


if __name__ == "__main__":
    main()
