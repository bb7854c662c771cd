"""Run a command that is killed, or whose disk fails, at one of the moments when it changes the file system."""

import json
import random
import subprocess
import sys

from conftest import WARM, tiny_recipe

RUN = f"""
import os, signal, sys, threading, time
sys.path[:0] = {sys.path!r}
from retrieval.images.door.workers import apart
apart.AVAILABLE = False  # as on macOS: the filter cannot tell files in memory from those on a disk
import torch
torch.set_num_threads(1)
from refusing import refuse
error, moment, calls = sys.argv[1], float(sys.argv[2]), sys.argv[3].split(",")
from retrieval.__main__ import main
from training.__main__ import main as train
CHANGES = {{"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "shutil.rmtree", "ctypes.dlopen"}}
count, begun = 0, time.monotonic()

def end():
    os.kill(os.getpid(), signal.SIGKILL)

def hook(event, arguments):
    global count
    # Not os.devnull, which the thread that starts other processes opens at any moment.
    opens = event == "open" and arguments[0] != os.devnull
    writes = opens and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if event in CHANGES or writes:
        count += 1
        if count == moment:
            end() if error == "KILL" else refuse(error, *calls)

if error == "AFTER":
    timer = threading.Timer(moment, end)
    timer.daemon = True
    timer.start()
sys.addaudithook(hook)
status = (train if sys.argv[4] == "train" else main)(sys.argv[4:])
print(count, time.monotonic() - begun, flush=True)
os._exit(status)
"""


def run(start, words, error="KILL", moment=0, calls=(), **options):
    """Run a command of ours; returns its exit status, standard output and standard error.

    `start` starts Python, as `Warm.start` does. With KILL, the process is killed before the change of this number, with
    AFTER after so many seconds; any other error is the answer to the system calls `calls` from that change on. Without
    any, the last line of the output is the number of changes and the seconds that the command took.
    """
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start("-c", RUN, error, moment, ",".join(calls), *words, **streams, **options) as process:
        return process.wait(), process.stdout.read(), process.stderr.read()


def trained_whole(drawings, folder):
    """Train in `folder` / whole without a kill; returns the command line, and what it wrote to standard output."""
    settings = tiny_recipe(data=str(drawings), save_steps=2, threads=1, epochs=1).settings()
    (folder / "recipe.yaml").write_text(json.dumps(settings))
    words = ["train", folder / "recipe.yaml", "--out", "it"]
    (folder / "whole").mkdir()
    status, out, err = run(WARM.start, words, cwd=folder / "whole")
    assert status == 0, err
    return words, out


def kills(out, wanted):
    """`wanted` pairs of KILL or AFTER and a moment, from the output of a complete run.

    They are spread over all changes; beyond that many, they are at random times, in the midst of a file.
    """
    count, seconds = (float(word) for word in out.split()[-2:])
    at = sorted({1 + int(count * (number + 0.5) / wanted) for number in range(wanted)})
    chance = random.Random(wanted)
    return [("KILL", moment) for moment in at] + [
        ("AFTER", round(chance.uniform(0, seconds), 3)) for _ in range(wanted - len(at))
    ]
