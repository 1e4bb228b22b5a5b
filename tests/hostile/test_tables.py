"""Tables that were made to do harm, and tables of ours that would do it in a spreadsheet."""

import csv
import io
import json

import pyarrow
import pyarrow.parquet
import pytest

from kerastk.answers import table
from kerastk.datasets import table as tables
from kerastk.datasets.source import open_source
from kerastk.datasets.table import csv_cell
from kerastk.errors import DataError
from kerastk.predictor import Answer, Prediction
from kerastk.run import Run

EXPECTED = "expected UTF-8 text with a row a line: path,label[,split]."


@pytest.fixture
def csv_refused(refused, tmp_path):
    def call(content, **limits):
        (tmp_path / "x.csv").write_bytes(content)
        return refused(open_source, tmp_path / "x.csv", kind=DataError, **limits)

    return call


@pytest.mark.parametrize("content", [b"", b"path,label\na.jpg,x\n"])
def test_a_line_without_an_end_is_refused_before_it_is_read(content, csv_refused):
    number = content.count(b"\n") + 1
    message = csv_refused(content + b"a" * (32 * 2**20), megabytes=16)
    assert message.endswith(f"x.csv', line {number}: more than 1,048,576 characters; {EXPECTED}")


def test_a_large_cell_is_refused_with_its_line(csv_refused):
    message = csv_refused(b"path,label\na.jpg,x\nb.jpg," + b"y" * 200_000 + b"\n")
    assert message.endswith(f"line 3: field larger than field limit (131072); {EXPECTED}")


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(csv_refused):
    message = csv_refused(b'path,label\n"a.jpg,x\n' + 2**20 * b"b.jpg,y\n", megabytes=4)
    assert "field larger than field limit" in message
    assert EXPECTED in message


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"path,label\na.jpg,x\nb\0.jpg,y\n", 3),
        ("path,label\na.jpg,x\n".encode("utf-16"), 1),
        (b"PK\x03\x04\0\0\0", 1),
        (bytes(1000), 1),
    ],
)
def test_what_is_no_text_is_refused_with_its_line(content, line, csv_refused):
    message = csv_refused(content)
    assert f"line {line}: a NUL character" in message
    assert message.endswith(EXPECTED)


def test_hundreds_of_thousands_of_columns_are_one_short_line(csv_refused):
    message = csv_refused(300_000 * b"a," + b"a\n1,2\n", megabytes=80)
    assert "needs the columns path and label; it has a, a, a" in message
    assert "(300,001 columns)" in message


def test_a_million_columns_are_refused(csv_refused):
    assert "line 1: more than" in csv_refused(1_000_000 * b"a," + b"path,label\n", megabytes=16)


@pytest.mark.parametrize("name", ["path", "label", "split"])
def test_a_column_that_is_there_twice_is_refused(name, csv_refused):
    header = f"path,label,split,{name}".encode()
    assert f"has the column {name} 2 times" in csv_refused(header + b"\na.jpg,x,train,y\n")


@pytest.fixture
def parquet_refused(refused, tmp_path):
    def call(columns, names=None, **limits):
        made = pyarrow.table(columns, names=names)
        pyarrow.parquet.write_table(made, tmp_path / "x.parquet")
        return refused(open_source, tmp_path / "x.parquet", kind=DataError, **limits)

    return call


def test_parquet_columns_that_are_there_twice_are_refused(parquet_refused):
    assert "has the column label 2 times" in parquet_refused([["a.jpg"], ["x"], ["y"]], ["path", "label", "label"])


@pytest.mark.parametrize("name", ["path", "label"])
def test_lists_in_a_parquet_are_refused_unread(name, parquet_refused):
    columns = {"path": ["a.jpg"], "label": ["x"]} | {name: [["x"] * 1000]}
    assert f"{name} holds lists" in parquet_refused(columns)


def test_a_parquet_of_too_many_rows_is_refused_unread(parquet_refused, monkeypatch):
    monkeypatch.setattr(tables, "MAX_ROWS", 10)
    assert "has 11 rows; the limit is 10." in parquet_refused({"path": ["a.jpg"] * 11, "label": ["x"] * 11})


def test_texts_of_a_parquet_that_are_no_utf8_are_one_line(parquet_refused):
    spoiled = pyarrow.array([b"\xff\xfe"], pyarrow.binary()).view(pyarrow.string())
    assert "cannot read the table" in parquet_refused({"path": ["a.jpg"], "label": spoiled})


def test_one_long_text_for_all_rows_of_a_parquet_is_held_once(bounded, tmp_path):
    rows = 20_000
    long = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows), ["x" * 20_000])
    pyarrow.parquet.write_table(pyarrow.table({"path": ["a.jpg"] * rows, "label": long}), tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 2**20
    source, error = bounded(open_source, tmp_path / "x.parquet", megabytes=40)
    assert error is None
    assert [len(each) for each in source.classes] == [20_000]
    assert pyarrow.default_memory_pool().max_memory() < 100 * 2**20


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "binary", "dictionary"])
def test_a_parquet_of_any_kind_of_text_is_read(kind, tmp_path):
    values = pyarrow.array(["x", "y", "x"])
    values = values.dictionary_encode() if kind == "dictionary" else values.cast(getattr(pyarrow, kind)())
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"path": ["1.jpg", "2.jpg", "3.jpg"], "label": values}), path)
    shown = ["b'x'", "b'y'"] if kind == "binary" else ["x", "y"]
    assert open_source(path).classes == shown


# Formulas: https://owasp.org/www-community/attacks/CSV_Injection.

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_is_a_formula_gets_an_apostrophe(text):
    assert csv_cell(text) == "'" + text


@pytest.mark.parametrize("value", ["1+1", "'=1", " =1", "", "cat", "a-b", -1, -0.5, 3, None, True])
def test_what_is_none_stays_as_it_is(value):
    assert csv_cell(value) is value


def test_answers_hold_no_formula(tmp_path):
    # A carriage return inside a cell must not begin a new row, either.
    texts = [*FORMULAS, "a\r=1"]
    rows = [Prediction(f"{text}.jpg", [Answer(text, 0.5)]) for text in texts] + [Prediction("a", [], "@error")]
    for ending in ("csv", "jsonl", "parquet"):
        with table(tmp_path / f"x.{ending}", 1) as put:
            for row in rows:
                put(row)
    with open(tmp_path / "x.csv", newline="") as file:
        found = list(csv.reader(file))
    assert found[1:-2] == [[f"'{text}.jpg", f"'{text}", "0.500000", ""] for text in FORMULAS]
    assert found[-2] == ["a\r=1.jpg", "a\r=1", "0.500000", ""]
    assert found[-1] == ["a", "", "", "'@error"]
    # A program reads these two: they hold the names as they are.
    lines = [json.loads(line) for line in open(tmp_path / "x.jsonl")]
    assert [line["path"] for line in lines] == [row.path for row in rows]
    assert pyarrow.parquet.read_table(tmp_path / "x.parquet")["path"].to_pylist() == [row.path for row in rows]


def test_the_predictions_of_a_run_hold_no_formula(tmp_path):
    run = Run.create(tmp_path, "a")
    run.write_predictions([{"path": "=1.jpg", "truth": "-1", "prediction": "@x", "probability": 0.5, "n": -3}])
    text = run.predictions_csv.read_text()
    assert next(csv.reader(io.StringIO(text.splitlines()[1]))) == ["'=1.jpg", "'-1", "'@x", "0.5", "-3"]
