"""A process of its own that runs our command line against a Hub, time and again: importing torch once is enough.

The Hub's client reads its settings when it is imported, so it cannot be pointed elsewhere in the process of the tests.
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
        """Start `python ARGUMENTS` as another process of the same home: a token may be another one, or none."""
        return self.warm.start(
            *arguments, env={**self.hub.environment(self.home, token), **(settings or {})}, **options
        )

    def start_anew(self, *arguments, token=None, settings=None, **options):
        """The same by starting Python, and not by forking a process that has everything imported."""
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
        """Run a command; `setting` is one of the client's own (RLIMIT_FSIZE: bytes) for this command alone."""
        self.process.stdin.write(json.dumps({"command": [str(c) for c in command], "token": token, **(setting or {})}))
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        watch = Timer(_LIMIT, self.process.kill)  # then there is no line, and the test fails
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
    """Run what comes in, a line of JSON each, and print what came of it."""
    import io
    import resource
    import traceback
    from contextlib import redirect_stderr, redirect_stdout

    from retrieval.__main__ import main as command
    from retrieval.hub import client

    client._SECOND = 0.02  # what is said of waits is what matters here

    for line in sys.stdin:
        asked = json.loads(line)
        os.environ.pop("HF_TOKEN", None)
        if asked["token"]:
            os.environ["HF_TOKEN"] = asked["token"]
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if size := asked.get("RLIMIT_FSIZE"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        out, err = io.StringIO(), io.StringIO()
        # What a logger has no handler for, Python writes to the stderr of that moment; so it is caught, too.
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
