"""Processes that are forked from a preloaded one: they behave like processes started with `python`."""

import signal
import subprocess
import sys

import pytest
from conftest import ROOT, WARM
from warm import Warm


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "print('out'); import sys; sys.exit('words')"],
        ["-c", "import sys; print(sys.argv, __name__, sys.stdin.read()); sys.exit(3)", "one", "two"],
        ["-c", "import os, atexit; atexit.register(print, 'the end'); print(os.getcwd(), os.environ['MINE'])"],
        ["-c", "from threading import Timer; Timer(0.1, print, ['late']).start(); raise SystemExit"],
        ["-c", "import os; os.kill(os.getpid(), 9)"],
        ["-m", "json.tool", "--help"],
        ["-m", "training", "no-such-recipe", "--out", "it"],
        ["-m", "retrieval", "verify", "nothing-here"],
    ],
)
def test_forked_process_ends_like_a_started_one(arguments, tmp_path):
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), "MINE": "set", "HF_HUB_OFFLINE": "1"}
    options = {"cwd": tmp_path, "env": environment}
    forked = WARM.run(*arguments, **options)
    started = subprocess.run(
        [sys.executable, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options
    )
    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


def test_forked_process_takes_input_and_can_be_interrupted():
    code = "print(input(), flush=True); import time; time.sleep(100)"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with WARM.start("-c", code, **pipes) as process:
        process.stdin.write("a word\n")
        process.stdin.flush()
        assert process.stdout.readline() == "a word\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
        assert process.stderr.read().endswith("KeyboardInterrupt\n")


def test_preloaded_process_is_shared_by_name_and_ends_only_what_its_user_started():
    other, parent = Warm(name=WARM.name), ["-c", "import os; print(os.getppid())"]
    assert other.run(*parent).stdout == WARM.run(*parent).stdout
    waiting = ["-c", "print('here', flush=True); import time; time.sleep(100)"]
    with (
        WARM.start(*waiting, stdout=subprocess.PIPE) as stays,
        other.start(*waiting, stdout=subprocess.PIPE) as ends,
    ):
        assert (stays.stdout.readline(), ends.stdout.readline()) == ("here\n", "here\n")
        other.close()
        assert ends.wait(30) == -signal.SIGKILL
        assert stays.poll() is None
        stays.kill()
