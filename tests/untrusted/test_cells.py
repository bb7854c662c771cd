"""CSV files never hold a text that a spreadsheet would run."""

import csv
import io

import pytest

from retrieval.untrusted.cells import disarmed


@pytest.mark.parametrize(
    "text", ["=1+1", "+49 30 1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=", "-", "＝1+1", "=cmd|' /C calc'!A0"]
)
def test_text_that_begins_like_a_formula_gets_an_apostrophe(text):
    assert disarmed([text]) == [f"'{text}"]


@pytest.mark.parametrize(
    "cell", ["-5", "+5", "-0.25", "1e-3", "-1,5", "-.5", -5, -0.25, None, True, "a=b", "a-b", "", " =1", "'=1"]
)
def test_numbers_and_other_text_stay_as_they_are(cell):
    assert disarmed([cell]) == [cell]


def test_every_cell_of_a_written_line_is_harmless_and_can_be_read_back():
    cells = ['=HYPERLINK("http://x")', 'red, "blue"', "-5", "@x"]
    text = io.StringIO()
    csv.writer(text).writerow(disarmed(cells))
    [read] = csv.reader(io.StringIO(text.getvalue()))
    assert not any(cell[0] in "=+@\t\r" for cell in read)
    assert [cell.removeprefix("'") for cell in read] == cells
