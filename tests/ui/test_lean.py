"""What the page leaves out of Gradio and Arrow: it is not loaded, and whoever needs it still gets it."""

import subprocess
import sys
from pathlib import Path

from conftest import python

ROOT = Path(__file__).parents[2]

WITHOUT_STUBS = """
import sys
from pathlib import Path
import retrieval.ui
import gradio
from gradio import component_meta

written = []
class Own(gradio.HTML):
    EVENTS = []
print(component_meta.create_or_modify_pyi.__name__)
stubs = Path(gradio.__file__).parent.rglob("*.pyi")
print(any(path.stat().st_mtime > Path(sys.argv[1]).stat().st_mtime for path in stubs))
"""

WITHOUT_PANDAS = """
import sys
from retrieval.ui.footprint import give_memory_back, without_pandas
without_pandas()
without_pandas()
import pyarrow as pa
assert pa.array([1, None, 3]).to_pylist() == [1, None, 3]
import retrieval.ui.page
loaded = [name for name in sys.modules if name.startswith("pandas.")]
give_memory_back()
import pandas
frame = pandas.DataFrame({"a": [1, 2]})
print(loaded, frame.a.sum(), pa.table({"a": [1, 2]}).to_pandas().a.sum())
"""


def test_gradio_does_not_write_its_stubs_again_and_components_of_others_still_work(tmp_path):
    (tmp_path / "now").touch()
    done = python("-c", WITHOUT_STUBS, tmp_path / "now", check=True)
    assert done.stdout.split() == ["write_others", "False"]


def test_page_needs_no_pandas_and_whoever_uses_it_gets_it():
    # A process of its own: the preloaded ones have pandas.
    done = subprocess.run([sys.executable, "-c", WITHOUT_PANDAS], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[] 3 3"
