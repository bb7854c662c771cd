"""A push killed with SIGKILL at any moment leaves the repository as it was, or with the whole new artifact.

`LOOKALIKE_KILLS` is the number of kills, 3 by default.
"""

import os
import shutil
import signal
from pathlib import Path

from conftest import contents
from hub_server import Fault
from moments import kills, run

from retrieval.artifact.load import load_artifact

KILLS = int(os.environ.get("LOOKALIKE_KILLS", "3"))
TOKEN = "hf_write"


def test_killed_push_leaves_the_old_or_the_new_artifact(hub, client, copied_run, tmp_path):
    assert client.run("push", copied_run, "me/kills", token=TOKEN).code == 0
    before = hub.files("model", "me/kills")
    changed = Path(shutil.copytree(copied_run, tmp_path / "changed"))
    assert client.run("remove", changed, load_artifact(changed).gallery.ids[0]).code == 0
    ids = load_artifact(changed).gallery.ids

    def push(number, error="KILL", moment=0, start=client.start):
        """Push a copy of the changed artifact to a repository with the one before."""
        repo, at = f"me/kills-{number}", Path(shutil.copytree(changed, tmp_path / f"at-{number}"))
        head = hub.commit("model", repo, before)
        hub.clear()
        status, out, err = run(start, ["push", at, repo], error, moment, token=TOKEN)
        assert load_artifact(at).gallery.ids == ids
        found = hub.files("model", repo)
        if is_new := hub.head("model", repo) != head:
            assert {name: found[name] for name in contents(at)} == contents(at)
        else:
            assert found == before
        return status, out, err, is_new

    status, out, err, is_new = push("whole")
    assert (status, is_new) == (0, True), err
    asked, ends = len(hub.requests), []
    for number, (kind, moment) in enumerate(kills(out, KILLS)):
        if number % 3:
            status, _, err, is_new = push(number, kind, moment)
        else:  # while the Hub answers one of its requests
            left = iter(range(1 + (asked - 1) * number // KILLS))
            started = []

            def start(*arguments, started=started, **options):
                started.append(client.start(*arguments, **options))
                return started[0]

            def kill(left=left, started=started):
                if next(left, None) is None:
                    started[0].kill()

            hub.faults.append(Fault("", times=None, before=kill))
            status, _, err, is_new = push(number, start=start)
            hub.faults.clear()
        assert status in (-signal.SIGKILL, 0), err  # 0: this push made fewer changes, or was faster
        if status:
            ends.append(is_new)
    print(f"{len(ends)} kills of push: {ends.count(False)} left the old artifact, {ends.count(True)} the new one")
    assert False in ends
