"""Filters: every operator over every type of column, compared with plain Python; and the sentences for wrong ones."""

import json
import operator
import random
import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT
from galleries import WAYS, opened_as

from retrieval.errors import QueryError
from retrieval.images.filters import Condition, Filter, parse, parse_line, parse_where
from retrieval.images.gallery import BASE_SCHEMA, Gallery, conform, write_gallery
from retrieval.images.stored import files
from retrieval.images.wide import Wide

ROWS = 400
DAYS = [date(1969, 12, 30) + timedelta(days=17 * n) for n in range(12)]
MOMENTS = [datetime(2024, 2, 28, 23, 59, 59) + timedelta(hours=7 * n, microseconds=n) for n in range(15)]
# Column -> its type, and the values that it draws from.
COLUMNS = {
    "text": (pa.string(), ["red", "Red", "", "grün", "10 %", "None", "a,b", "z=1", "<b>"]),
    "whole": (pa.int64(), [-3, 0, 1, 2, 10, 2**53, 2**53 + 1, -(2**63), 2**63 - 1]),
    "hash": (pa.uint64(), [0, 7, 2**63, 2**64 - 1]),
    "number": (pa.float64(), [-1.5, 0.0, 0.1, 1.0, 2.5, 1e20, float("inf")]),
    "single": (pa.float32(), [0.1, 0.5, 3.25]),
    "truth": (pa.bool_(), [True, False]),
    "day": (pa.date32(), DAYS),
    "moment": (pa.timestamp("us"), MOMENTS),
    "zoned": (pa.timestamp("ms", tz="Europe/Berlin"), [m.replace(microsecond=0, tzinfo=UTC) for m in MOMENTS]),
    "iso": (pa.string(), [day.isoformat() for day in DAYS]),
    "iso_moment": (pa.string(), [str(moment) for moment in MOMENTS]),
    "tags": (pa.list_(pa.string()), ["summer", "Winter", "new", ""]),
    "sizes": (pa.list_(pa.int64()), [36, 37, 38, 40, 42]),
    "widths": (pa.list_(pa.float64()), [0.5, 1.0, 2.25]),
    "flags": (pa.list_(pa.bool_()), [True, False]),
}
OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def draw(rng, kind, values):
    """A value of a column, or None; lists have up to four members, some of them None or repeated."""
    if rng.random() < 0.15:
        return None
    if pa.types.is_list(kind):
        return [rng.choice([*values, None]) for _ in range(rng.randrange(5))]
    return rng.choice(values)


@pytest.fixture(scope="module")
def records():
    rng = random.Random(15)
    first = {name: [None] if pa.types.is_list(kind) else None for name, (kind, _) in COLUMNS.items()}
    drawn = ({name: draw(rng, kind, values) for name, (kind, values) in COLUMNS.items()} for _ in range(ROWS - 1))
    return [{"id": str(row), "source": "", "sha256": "", **values} for row, values in enumerate([first, *drawn])]


@pytest.fixture(scope="module", params=WAYS)
def gallery(records, tmp_path_factory, request):
    path = tmp_path_factory.mktemp("filters") / "gallery.parquet"
    schema = pa.schema([*BASE_SCHEMA, *((name, kind) for name, (kind, _) in COLUMNS.items())])
    halves = [records[:150], records[150:]]
    names = ["id", "source", "sha256", *COLUMNS]
    inner = pa.schema([schema.field(name) for name in names])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "ROWS_A_GROUP", 30)
        write_gallery(path, [conform(pa.Table.from_pylist(half, schema=inner), schema) for half in halves], schema)
    return opened_as(request.param, path)


def members(value):
    """The values of a cell: those of a list without the missing ones, or the only one, or none."""
    return [one for one in (value if isinstance(value, list) else [value]) if one is not None]


def rows(records, keep):
    return [number for number, record in enumerate(records) if keep(record)]


def drawn_values(column, rng, count):
    known = {value for record in RECORDS_OF[column] for value in members(record)}
    return rng.sample(sorted(known), min(count, len(known)))


RECORDS_OF = {}


@pytest.fixture(autouse=True)
def known(records):
    RECORDS_OF.update({name: [record[name] for record in records] for name in COLUMNS})


def as_json(value):
    """A value as JSON can hold it."""
    return str(value) if isinstance(value, date) else value


def as_typed(value):
    """A value as it is typed on a command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


FORMS = [lambda value: value, as_json, as_typed]


@pytest.mark.parametrize("form", FORMS, ids=["python", "json", "typed"])
@pytest.mark.parametrize("column", COLUMNS)
def test_equal_and_not_equal_are_those_of_python(gallery, records, column, form):
    rng = random.Random(column)
    for count in (1, 1, 2, 3):
        chosen = drawn_values(column, rng, count)
        wanted = [form(value) for value in chosen]
        found = rows(records, lambda record, chosen=chosen: any(one in chosen for one in members(record[column])))
        assert found
        others = sorted({*range(ROWS)} - {*found})
        empty = rows(records, lambda record: not members(record[column]))
        assert gallery.rows_where({column: wanted}).tolist() == found
        assert gallery.rows_where({column: {"=": wanted}}).tolist() == found
        assert gallery.rows_where({column: {"!=": wanted}}).tolist() == others
        assert gallery.rows_where({column: [*wanted, None]}).tolist() == sorted({*found, *empty})
        assert gallery.rows_where({column: {"!=": [*wanted, None]}}).tolist() == sorted({*others} - {*empty})


@pytest.mark.parametrize("column", COLUMNS)
def test_has_a_value_and_has_none(gallery, records, column):
    empty = rows(records, lambda record: not members(record[column]))
    assert 0 in empty
    assert gallery.rows_where({column: None}).tolist() == empty
    assert gallery.rows_where(parse_where([f"{column}="])).tolist() == empty
    full = sorted({*range(ROWS)} - {*empty})
    assert gallery.rows_where({column: {"!=": None}}).tolist() == full
    assert gallery.rows_where(parse_where([f"{column}!="])).tolist() == full


@pytest.mark.parametrize("form", FORMS, ids=["python", "json", "typed"])
@pytest.mark.parametrize("sign", OPERATORS)
@pytest.mark.parametrize("column", [name for name in COLUMNS if name not in {"truth", "flags"}])
def test_order_is_that_of_python(gallery, records, column, sign, form):
    rng = random.Random(column)
    for bound in drawn_values(column, rng, 6):
        found = rows(
            records, lambda record, bound=bound: any(OPERATORS[sign](one, bound) for one in members(record[column]))
        )
        assert gallery.rows_where({column: {sign: form(bound)}}).tolist() == found
        assert gallery.rows_where(parse_where([f"{column}{sign}{as_typed(bound) or '0x'}"])).tolist() == (
            found if bound != "" else rows(records, lambda r: any(OPERATORS[sign](m, "0x") for m in members(r[column])))
        )


@pytest.mark.parametrize("sign", OPERATORS)
@pytest.mark.parametrize(
    ("column", "bounds"),
    [
        ("whole", [0.5, -0.5, 1.0, "2.5", "1e3", float("inf"), "-inf", 10**30, -(10**30), np.int8(2), np.float32(0.1)]),
        ("hash", [-1, 0.5, 2**64, "-7"]),
        ("number", [0, 1, "1", 10**400, -(10**400), 10**20 + 1, 10**20 - 1, 0.3, "0.10", np.float32(0.1)]),
        ("single", [0.1, np.float32(0.1), "0.1", 0.100001, 1]),
        ("sizes", [36.5, "39", 100]),
    ],
)
def test_numbers_between_the_values_of_a_column(gallery, records, column, sign, bounds):
    for bound in bounds:
        plain = {np.float32(0.1): 0.1}.get(bound, bound) if isinstance(bound, np.generic) else bound
        plain = plain.item() if isinstance(plain, np.generic) else plain
        if isinstance(plain, str):
            plain = float(plain)
        found = rows(
            records, lambda record, plain=plain: any(OPERATORS[sign](one, plain) for one in members(record[column]))
        )
        assert gallery.rows_where({column: {sign: bound}}).tolist() == found, bound


@pytest.mark.parametrize("sign", OPERATORS)
@pytest.mark.parametrize("column", ["moment", "zoned", "iso_moment"])
def test_date_compared_with_moments_is_a_whole_day(gallery, records, column, sign):
    def day_of(value):
        value = datetime.fromisoformat(value) if isinstance(value, str) else value
        return (value.astimezone(UTC) if value.tzinfo else value).date()

    day = date(2024, 3, 1)
    values = [[day_of(one) for one in members(record[column])] for record in records]
    found = [number for number, days in enumerate(values) if any(OPERATORS[sign](one, day) for one in days)]
    assert found
    assert gallery.rows_where({column: {sign: day}}).tolist() == found
    assert gallery.rows_where({column: {sign: "2024-03-01"}}).tolist() == found
    assert gallery.rows_where({column: "2024-03-01"}).tolist() == [n for n, days in enumerate(values) if day in days]


def test_conditions_are_combined_with_and(gallery, records):
    found = rows(
        records,
        lambda r: r["number"] is not None and 0 < r["number"] <= 1 and r["text"] != "red" and 38 in (r["sizes"] or []),
    )
    assert found
    where = {"number": {"<=": 1, ">": 0}, "text": {"!=": "red"}, "sizes": 38}
    assert gallery.rows_where(where).tolist() == found
    assert gallery.rows_where(parse(where)).tolist() == found
    typed = ["number<=1", "number>0", "text!=red", "sizes=38"]
    assert gallery.rows_where(parse_where(typed)).tolist() == found


def test_several_equal_signs_of_a_column_mean_any_of_them_and_other_signs_all_of_them(gallery, records):
    typed = parse_where(["text=red", "whole=1", "text=Red", "text=", "text!=Red", "whole!=2", "whole!=10"])
    assert typed == Filter(
        (
            Condition("text", "=", ("red", "Red", None)),
            Condition("whole", "=", ("1",)),
            Condition("text", "!=", ("Red",)),
            Condition("whole", "!=", ("2",)),
            Condition("whole", "!=", ("10",)),
        )
    )
    found = rows(records, lambda r: r["text"] in ("red", None) and r["whole"] == 1)
    assert gallery.rows_where(typed).tolist() == found


def test_first_sign_of_a_condition_counts():
    assert parse_where(["a=b<c"]) == Filter((Condition("a", "=", ("b<c",)),))
    assert parse_where(["a<=b=c", "d>\n>"]) == Filter((Condition("a", "<=", ("b=c",)), Condition("d", ">", ("\n>",))))
    assert parse_where([]) == parse(None) == parse({}) == Filter()


def test_facets_count_each_member_of_a_list_once_a_row(gallery, records):
    if isinstance(gallery.column("tags"), Wide):
        assert gallery.facets(None) == {}
        return
    assert {"tags", "sizes", "widths", "flags", "day", "moment"} <= {*gallery.filters}
    assert gallery.counts("tags") == {
        tag: sum(tag in members(record["tags"]) for record in records) for tag in gallery.counts("tags")
    }
    where = {"tags": ["new"], "number": {">": 0.1}, "sizes": {"!=": 42}}
    for column in ("tags", "sizes", "flags", "text"):
        found = gallery.facets(where)[column]
        left = rows(
            records,
            lambda r, column=column: (
                (column == "tags" or "new" in members(r["tags"]))
                and r["number"] is not None
                and r["number"] > 0.1
                and (column == "sizes" or 42 not in members(r["sizes"]))
            ),
        )
        values = {one for row in left for one in members(records[row][column])}
        assert found == {
            **{as_typed(v): sum(v in members(records[row][column]) for row in left) for v in values},
            None: sum(not members(records[row][column]) for row in left),
        }
    for tag, count in gallery.facets(None)["tags"].items():
        assert len(gallery.rows_where({"tags": [tag]})) == count


@pytest.mark.parametrize(("length", "filters"), [(32, ["numbers"]), (33, [])])
def test_column_of_long_lists_is_no_facet(tmp_path, length, filters):
    schema = pa.schema([*BASE_SCHEMA, ("numbers", pa.list_(pa.int64()))])
    table = {"id": [str(n) for n in range(60)], "numbers": pa.array([[*range(length), 0, None]] * 60, schema.types[-1])}
    write_gallery(tmp_path / "g", [conform(pa.table(table), schema)], schema)
    assert Gallery(tmp_path / "g").filters == filters


def test_rows_are_not_grouped_by_lists(gallery, records):
    with pytest.raises(QueryError, match="'tags' holds lists, so rows cannot be grouped by it"):
        gallery.groups("tags")
    numbers = gallery.groups("text")
    for one, other in pairwise(records):
        same = numbers[int(one["id"])] == numbers[int(other["id"])]
        assert same == (one["text"] == other["text"])


def test_negative_zero_equals_zero(tmp_path):
    schema = pa.schema([*BASE_SCHEMA, ("x", pa.float64())])
    write_gallery(tmp_path / "g", [conform(pa.table({"id": ["a", "b"], "x": [-0.0, 0.0]}), schema)], schema)
    assert Gallery(tmp_path / "g").rows_where({"x": 0}).tolist() == [0, 1]


def test_not_a_number_is_neither_less_nor_greater(tmp_path):
    schema = pa.schema([*BASE_SCHEMA, ("x", pa.float64())])
    write_gallery(tmp_path / "g", [conform(pa.table({"id": ["a", "b"], "x": [np.nan, 0.0]}), schema)], schema)
    gallery = Gallery(tmp_path / "g")
    assert [gallery.rows_where({"x": {sign: 1}}).tolist() for sign in OPERATORS] == [[1], [1], [], []]
    assert gallery.rows_where({"x": "nan"}).tolist() == [0]


def test_column_without_values_is_less_than_nothing(tmp_path):
    schema = pa.schema([*BASE_SCHEMA, ("x", pa.string()), ("y", pa.list_(pa.string()))])
    write_gallery(tmp_path / "g", [conform(pa.table({"id": ["a", "b"]}), schema)], schema)
    gallery = Gallery(tmp_path / "g")
    assert [gallery.rows_where({name: {"<": 5}}).tolist() for name in "xy"] == [[], []]
    assert gallery.rows_where({"y": None}).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"numbr": {"<": 1}}, "the gallery has no column 'numbr'; did you mean 'number'"),
        ({"number": {"=<": 1}}, "the filter of 'number' has no operator '=<'; use =, !=, <, <=, > or >=."),
        ({"number": {"gt": 1}}, "the filter of 'number' has no operator 'gt'; use =, !=, <, <=, > or >=."),
        ({"number": {1: 1}}, "has no operator '1'"),
        ({"number": {}}, "the filter of 'number' is empty"),
        ({"number": {"<": None}}, "number< must be followed by one value, not none"),
        ({"number": {"<": []}}, "number< must be followed by one value, not none"),
        ({"number": {">=": [1, 2]}}, "number>= must be followed by one value, not 2"),
        ({"number": {"<": "cheap"}}, "number holds numbers, so number<cheap cannot be compared; examples: "),
        ({"number": {"<": True}}, "number holds numbers, so number<True cannot be compared"),
        ({"number": {"<": "nan"}}, "number holds numbers, so number<nan"),
        ({"number": {"<": "1_0"}}, "number holds numbers, so number<1_0"),
        ({"number": {"<": {"a": 1}}}, "number holds numbers, so number<{'a': 1}"),
        ({"sizes": {"<": "big"}}, "sizes holds numbers, so sizes<big"),
        ({"truth": {"<": True}}, "'truth' is true or false, so truth< has no meaning; use = or !="),
        ({"day": {"<": "tomorrow"}}, "day holds dates, so day<tomorrow cannot be compared; write it like 19"),
        ({"day": {"<": 2024}}, "day holds dates, so day<2024"),
        ({"iso": {">": "2024-13-01"}}, "iso holds dates, so iso>2024-13-01"),
        ({"moment": {">": "2024"}}, "moment holds dates, so moment>2024"),
        ({"text": {"<": 50}}, "text holds text, such as '.+', so text<50 cannot be compared; give text"),
        ({"text": {"<": "50"}}, "text holds text, such as '.+', so text<50 cannot be compared"),
        ({"text": {"!=": "rde"}}, "no image has text=rde; did you mean 'Red'"),
        ({"day": "1999-01-01"}, "no image has day=1999-01-01"),
        ({"tags": "sumer"}, "no image has tags=sumer; did you mean 'summer'"),
        ({"tags": [["summer"]]}, "no image has tags="),
    ],
)
def test_wrong_condition_is_one_sentence_that_says_what_to_write(gallery, where, words):
    with pytest.raises(QueryError, match=words) as raised:
        gallery.rows_where(where)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["red", "", "colour"])
def test_condition_without_a_sign_is_refused(text):
    with pytest.raises(QueryError, match=f"a filter must have the form COLUMN=VALUE, not '{text}'; instead of = it"):
        parse_where([text])


def test_condition_without_a_value_to_compare_is_refused():
    with pytest.raises(QueryError, match="price<= must be followed by one value, not none"):
        parse_where(["price<="])


# The page of the docs


SHOP = [
    {"colour": "red", "price": 10.0, "sku": "00123", "tags": ["summer", "new"], "taken": "2024-03-01 18:30"},
    {"colour": "blue", "price": 50.0, "sku": None, "tags": [], "taken": "2024-02-29"},
    {"colour": None, "price": None, "sku": "x", "tags": None, "taken": None},
    {"colour": "teal", "price": 50.5, "sku": None, "tags": ["winter"], "taken": "2025-01-01"},
    {"colour": "blue", "price": 30.0, "sku": "y", "tags": ["summer"], "taken": "2024-02-01T00:00:00Z"},
]
ACCEPTED = [[0], [0, 1, 4], [1, 2, 3, 4], [2, 3], [0, 1, 4], [1, 4], [1, 3], [0, 2, 4], [0, 2], [0, 4], [0, 3]]


def test_both_forms_of_each_documented_condition_accept_the_same_rows(tmp_path):
    page = (ROOT / "docs" / "filters.md").read_text(encoding="utf-8").split("## Conditions")[1].split("\n## ")[0]
    documented = [line.split(" | ") for line in page.splitlines() if line.startswith("| `") and "{" in line]
    schema = pa.schema([*BASE_SCHEMA, *((name, pa.string()) for name in ("colour", "sku", "taken"))])
    schema = schema.append(pa.field("price", pa.float64())).append(pa.field("tags", pa.list_(pa.string())))
    records = [{"id": str(row), **record} for row, record in enumerate(SHOP)]
    inner = pa.schema([schema.field(name) for name in records[0]])
    write_gallery(tmp_path / "g", [conform(pa.Table.from_pylist(records, schema=inner), schema)], schema)
    gallery = Gallery(tmp_path / "g")
    typed = [gallery.rows_where(parse_where(re.findall("`(.+?)`", first))).tolist() for first, *_ in documented]
    as_json = [gallery.rows_where(json.loads(second.strip("`"))).tolist() for _, second, _ in documented]
    assert typed == as_json == ACCEPTED
    [code] = re.findall(r"where=(\{.*\})\)", (ROOT / "docs" / "filters.md").read_text(encoding="utf-8"))
    assert gallery.rows_where(json.loads(code)).tolist() == [4]
    [command] = re.findall(r"^python .*--where.*$", (ROOT / "docs" / "filters.md").read_text(encoding="utf-8"), re.M)
    assert gallery.rows_where(parse_where(re.findall("--where '(.*?)'", command))).tolist() == [4]


@pytest.mark.parametrize(
    ("line", "conditions"),
    [
        ("", []),
        (" , ", []),
        ("price<=50", ["price<=50"]),
        ("price <= 50 ,colour != red", ["price<=50", "colour!=red"]),
        ("colour=red, colour=blue, colour=", ["colour=red", "colour=blue", "colour="]),
        ("city=Paris, Texas, sku!=", ["city=Paris, Texas", "sku!="]),
        ("base colour = dark red", ["base colour=dark red"]),
        ("note=a=b", ["note=a=b"]),
    ],
)
def test_conditions_in_one_line_mean_the_same(line, conditions):
    assert parse_line(line) == parse_where(conditions)


def test_line_without_a_condition_is_refused():
    with pytest.raises(QueryError, match="COLUMN=VALUE, not 'red'"):
        parse_line("red")
