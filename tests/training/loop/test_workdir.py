"""The working folder of an unfinished run: only one run at a time may use it."""

import pytest
from conftest import tiny_recipe

from retrieval.errors import TrainingError
from training.loop.workdir import claim


def claimed(folder, **changes):
    return claim(folder / "it.training", folder / "it", tiny_recipe(**changes), resume=True)


def test_working_folder_is_released_when_its_run_ends(tmp_path):
    with claimed(tmp_path) as kept, pytest.raises(TrainingError, match="another process is training in"):  # noqa: SIM117
        with claimed(tmp_path):
            pass
    with claimed(tmp_path):
        pass
    del kept  # still referenced until here: the folder is released without waiting for garbage collection


def test_working_folder_is_released_when_its_run_fails(tmp_path):
    with pytest.raises(ZeroDivisionError) as failed, claimed(tmp_path):
        raise ZeroDivisionError
    with claimed(tmp_path):
        pass
    (tmp_path / "it.training" / "checkpoint-1").mkdir()
    with pytest.raises(TrainingError, match="with seed=0, not 5") as refused, claimed(tmp_path, seed=5):
        pass
    with claimed(tmp_path):
        pass
    with claimed(tmp_path, about="the same recipe in other words"):
        pass
    del failed, refused  # the stack frames of both errors were still alive until here
