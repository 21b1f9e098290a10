"""Laws of Table: what goes in comes out, lines are aligned, nothing is cut without a word."""

import dataclasses
import pickle

import numpy as np
import pandas as pd
import pytest

from fastirl.exceptions import InvalidInputError
from fastirl.tables import Table

DATA = {"name": ["time", "left turns"], "estimate": [-2.494, -0.9333], "trips": [1832, 7], "note": [None, "held"]}


def table(**kwargs):
    return Table(DATA, title="Estimates", notes=["robust", "LL -6302.929"],
                 formats={"estimate": ".3f", "trips": ",d"}, **kwargs)


def test_printed():
    assert str(table()) == "\n".join([
        "Estimates",
        "name        estimate  trips  note",
        "──────────  ────────  ─────  ────",
        "time          -2.494  1,832",
        "left turns    -0.933      7  held",
        "robust",
        "LL -6302.929",
    ])


def test_default_formats():
    lines = str(Table({"x": [1.0, 1e-9, np.nan, 1234567.0], "n": [10**12, 1, 2, 3],
                       "b": [True, False, True, True]})).split("\n")
    assert [line.split() for line in lines[2:]] == [
        ["1", "1000000000000", "True"], ["1e-09", "1", "False"], ["nan", "2", "True"], ["1.23457e+06", "3", "True"]]


def test_numbers_are_right_aligned_even_with_gaps():
    lines = str(Table({"x": [1, None, 22.5], "y": ["a", "b", "c"]})).split("\n")
    assert lines[2:] == ["   1  a", "      b", "22.5  c"]


def test_wide_characters_count_two():
    lines = str(Table({"road": ["延安高架路", "M1"], "n": [1, 2]})).split("\n")
    assert lines[2:] == ["延安高架路  1", "M1          2"]


@pytest.mark.parametrize("n", [0, 1, 59, 60])
def test_short_tables_are_printed_in_full(n):
    text = str(Table({"i": range(n)}))
    assert [line.strip() for line in text.split("\n")[2:]] == [str(i) for i in range(n)]


@pytest.mark.parametrize("n, said", [(61, "… 1 more row"), (2060, "… 2,000 more rows")])
def test_long_tables_say_what_they_hide(n, said):
    shown = [line.strip() for line in str(Table({"i": range(n)})).split("\n")[2:]]
    assert shown == [*map(str, range(30)), said, *map(str, range(n - 30, n))]
    assert said in Table({"i": range(n)})._repr_html_()
    assert Table({"i": range(n)}).to_markdown().count("\n") == n + 1  # all rows


def test_round_trips():
    assert table().to_dict() == DATA
    assert all(type(v) is not np.float64 for v in table().to_dict()["estimate"])
    df = table().to_frame()
    pd.testing.assert_frame_equal(df, pd.DataFrame(DATA), check_dtype=False)
    assert Table(df.to_dict("list"))["estimate"].tolist() == DATA["estimate"]
    again = pickle.loads(pickle.dumps(table()))
    assert str(again) == str(table()) and again.to_dict() == DATA


def test_columns():
    t = table()
    assert t.columns == ("name", "estimate", "trips", "note") == tuple(t)
    assert len(t) == 2 and "trips" in t and "x" not in t
    assert t["estimate"].dtype == float and t["trips"].dtype == np.int64 and t["name"].dtype.kind == "U"
    assert Table({"x": [1, 2.5]})["x"].dtype == float
    assert Table({"x": [2**53 + 1, 2.5]})["x"].tolist() == [2**53 + 1, 2.5]
    assert Table({"x": [2**70]})["x"].tolist() == [2**70]
    assert Table({"x": [(1, 2), (3, 4)]})["x"].tolist() == [(1, 2), (3, 4)]
    with pytest.raises(InvalidInputError, match="'estimat' is not among .*did you mean 'estimate'"):
        t["estimat"]
    with pytest.raises(InvalidInputError, match="choose one of these"):
        t[0]
    assert repr(t) == "Table('Estimates', 2 rows: name, estimate, trips, note)"
    assert len(Table({})) == 0 and str(Table({}, title="nothing")).startswith("nothing")


def test_frozen_and_not_aliased():
    x = np.arange(3.0)
    t = Table({"x": x})
    x[0] = 9
    assert t["x"].tolist() == [0, 1, 2] and x.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        t["x"][0] = 1
    with pytest.raises(TypeError):
        t.data["y"] = x
    with pytest.raises(dataclasses.FrozenInstanceError):
        t.title = "new"
    df = t.to_frame()
    df.loc[0, "x"] = 7
    t.to_dict()["x"][0] = 7
    assert t["x"][0] == 0


def test_markdown():
    text = Table({"a|b": ["x|y", "two\nlines"], "n": [1.25, 2]}, title="T", notes="N",
                 formats={"n": ".1f"}).to_markdown()
    assert text == "\n".join(
        ["**T**", "", "| a\\|b | n |", "| --- | ---: |", "| x\\|y | 1.2 |", "| two lines | 2.0 |", "", "N"])


def test_html_is_escaped():
    text = Table({"<a>": ["<script>", "&"]}, title="<t>", notes="<n>")._repr_html_()
    assert "<script>" not in text and "&lt;script&gt;" in text and "&amp;" in text
    assert "&lt;t&gt;" in text and "&lt;n&gt;" in text and "&lt;a&gt;" in text


@pytest.mark.parametrize("kwargs, what", [
    ({"data": {"a": [1], "b": [1, 2]}}, "'b' has 2 rows, 'a' has 1"), ({"data": [1, 2]}, "list"),
    ({"data": {1: [1]}}, "got 1"),
    ({"data": {"a": 5}}, "'a' is not"), ({"data": {"a": "text"}}, "'a' is not"),
    ({"data": {"a": np.ones((2, 2))}}, "'a' is not"),
    ({"data": {"a": [1]}, "formats": {"b": ".2f"}}, "'b' is not among"),
    ({"data": {"a": [1.5]}, "formats": {"a": "d"}}, "'d' for column 'a'"),
    ({"data": {"a": [1.5]}, "formats": {"a": 3}}, "3 for column 'a'"), ({"data": {"a": np.array([1j])}}, "complex"),
])
def test_bad_tables(kwargs, what):
    with pytest.raises(InvalidInputError, match=what):
        Table(**kwargs)
